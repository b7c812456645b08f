//! The SQL side: one ordinary connection beside the replication connection.
//!
//! [`connect::Store`] is that connection, with its session pinned; the other files are what is
//! asked over it, one subject a file. [`setup`] makes what a relay needs (schema, publication,
//! slot), for `walpost init` and for a relay's first start alike. Server errors are told apart by
//! SQLSTATE in [`sqlstate`], never by their text.

pub mod blockers;
pub mod connect;
pub mod error;
pub mod guard;
pub mod held_back;
pub mod inbox;
pub mod keeping;
pub mod marking;
pub mod name;
pub mod publication;
pub mod reading;
pub mod recovery;
pub mod relay_row;
pub mod retention;
pub mod schema;
pub mod server;
pub mod setup;
pub mod sharding;
pub mod slot;
pub mod slot_made;
pub mod slot_settings;
pub mod sqlstate;
pub mod table;
pub mod undelivered;
pub mod waiting;

mod handed;
mod query;

pub use blockers::Blocker;
pub use connect::{ConnectSettings, ConnectionEnd, HANDLER_LIMIT, Store};
pub use error::StoreError;
pub use held_back::HeldBack;
pub use inbox::{Inbox, InboxError};
pub use name::TableName;
pub use publication::{PublicationState, PublishedTable};
pub use reading::{Next, Reader, WaitingColumn, WaitingRow};
pub use recovery::{Cursor, Position, RecoveryState};
pub use relay_row::{RelayGap, RelayRow, RelayState, Taken};
pub use server::{Capacity, RoleFacts, Server};
pub use slot::{Lag, SlotState};
pub use slot_settings::{Hazard, SlotSettings};
pub use sqlstate::Class;
pub use table::{TableState, WaitingRows};
pub use waiting::{Between, OutboxTable};
