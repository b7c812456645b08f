//! The source: one replication connection that reads the slot and reports what is done.
//!
//! It reports on its own clock, whatever the broker is doing, so a slow broker never trips
//! `wal_sender_timeout`. Not reading the socket is the back-pressure.

mod command;
mod connect;
mod error;
mod feedback;
mod settings;
mod slot;
mod start;
mod stream;
mod timeline;

pub use command::{Origin, Replication};
pub use connect::connect;
pub use error::{Remedy, SourceError};
pub use settings::{ChannelBinding, Settings};
pub use slot::{Made, create_slot, make_failover};
pub use start::{Started, start};
pub use stream::{Incoming, Session};
pub use timeline::switch_point;
