//! What the pump is made of, taken from the configuration.

use std::sync::Arc;
use std::time::Duration;

use crate::{broker, engine, outbox, source};

/// What the pump is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The replication connection.
    pub source: Arc<source::Settings>,
    /// What a row becomes.
    pub outbox: outbox::Settings,
    /// What may be in flight.
    pub engine: engine::Settings,
    /// The STOMP connections.
    pub broker: Arc<broker::Settings>,
    /// A longer frame is not sent.
    pub max_frame_size: usize,
    /// How long outstanding receipts are waited for at the end.
    pub shutdown_timeout: Duration,
}
