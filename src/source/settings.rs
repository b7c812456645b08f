//! Where the slot is and how to read it.

use std::time::Duration;

use crate::net::{Address, PlainPassword, PostgresTls};
use crate::secret::Secret;

/// Whether a login by SCRAM is bound to the TLS connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Never,
    /// Where the server offers it.
    Offered,
    /// Always: no other login will do.
    Always,
}

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
    /// Whether TLS is spoken, and how.
    pub tls: PostgresTls,
    /// Whether a login by SCRAM is bound to the TLS connection.
    pub channel_binding: ChannelBinding,
    /// Whether it was said that the password can be read on the way.
    pub plain_password: PlainPassword,
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
