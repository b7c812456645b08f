//! pgoutput, the row format of logical replication (PostgreSQL documentation, chapter
//! "Logical Replication Message Formats"), protocol version 1 with logical messages.
//!
//! Pure: bytes in, messages out. What is borrowed points into the caller's buffer.

mod messages;
mod tuple;

pub use messages::*;
pub use tuple::Values;
