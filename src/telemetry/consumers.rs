//! The consumers of `walpost run`, as `/status.json` shows them.

use serde::{Deserialize, Serialize};

/// One consumer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consumer {
    /// The queue's name.
    pub queue: String,
    /// What it is subscribed to.
    pub destination: String,
    /// Whether the subscription stands.
    pub connected: bool,
    /// `host:port` connected to, or last tried.
    pub host: Option<String>,
    /// Why it is not connected, or does not handle what comes, in one line.
    pub last_error: Option<String>,
}

/// Writes down how the consumer of that queue and destination fares.
pub fn note(consumers: &mut Vec<Consumer>, now: Consumer) {
    let same =
        |known: &&mut Consumer| known.queue == now.queue && known.destination == now.destination;
    match consumers.iter_mut().find(same) {
        Some(known) => *known = now,
        None => consumers.push(now),
    }
}
