//! Where the slot is and how to read it.

use std::time::Duration;

use crate::net::Address;
use crate::secret::Secret;

/// Where the slot is and how to read it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Tried in turn; the one that accepts writes is used.
    pub hosts: Vec<Address>,
    /// The role, which has the REPLICATION attribute.
    pub user: String,
    /// Its password.
    pub password: Option<Secret>,
    /// The database that the outbox is in.
    pub database: String,
    /// `options` of the connection string.
    pub options: Option<String>,
    /// For the TCP connection and for the login, each.
    pub connect_timeout: Duration,
    /// The slot.
    pub slot: String,
    /// The publication.
    pub publication: String,
    /// The longest time between two standby status updates.
    pub status_interval: Duration,
    /// The longest row that is read whole; a longer one is read past.
    pub max_row: usize,
}
