//! pgoutput, the row format of logical replication (PostgreSQL documentation, chapter
//! "Logical Replication Message Formats"), protocol version 1 with logical messages.
//!
//! Pure: bytes in, messages out. What is borrowed points into the caller's buffer.

mod decode;
mod error;
mod messages;
mod reader;
mod truncated;
mod tuple;

#[cfg(test)]
mod tests;

pub use crate::pgtime::PgTime;
pub use decode::decode;
pub use error::DecodeError;
pub use messages::*;
pub use truncated::{Truncated, decode_truncated};
pub use tuple::{Tuple, Value, Values};
