//! The broker: STOMP connections that send what the engine gives them and read the receipts.
//!
//! A [`Lane`](lane::Lane) owns bytes being written and receipts being read, no messages: those are
//! the engine's. A lost lane connects again by itself, host after host. A [`Wire`] is a connection of
//! a consumer, which is told of every frame.

mod connect;
mod connection;
mod grouping;
pub mod lane;
mod once;
mod output;
pub mod profile;
mod settings;
mod wire;

pub use connect::{HostError, HostErrorKind};
pub use connection::{Connection, LaneError, LaneEvent};
pub use once::{OnceError, Stored, send_once};
pub use settings::Settings;
pub use wire::Wire;
