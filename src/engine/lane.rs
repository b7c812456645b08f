//! What the engine knows of one lane: its order of sending, and how silent its broker is.

use std::time::Duration;

use super::types::Receipt;
use super::window::Order;

/// One STOMP connection, seen from the engine.
#[derive(Default)]
pub(super) struct Lane {
    pub(super) up: bool,
    /// Heart-beats are agreed: silence then shows in their absence, not in that of receipts.
    pub(super) heartbeats: bool,
    pub(super) order: Order,
    /// SENDs and probes on the present connection.
    pub(super) sent: u64,
    /// The highest of them that was answered.
    pub(super) answered: u64,
    /// Since when the broker has answered nothing although something was unanswered.
    pub(super) silent_since: Duration,
    pub(super) probe: Option<Probe>,
    /// When a probe was last answered: while it was not, the broker held the lane, and no message
    /// was missing for that.
    pub(super) released: Duration,
    /// The oldest unreceipted message when the connection was last lost without a word.
    pub(super) stuck: Option<Receipt>,
    /// These messages got no receipt although something sent after them was answered; oldest first.
    pub(super) missing: Vec<Receipt>,
    /// Since when the broker answers other lanes, and this one not for long.
    pub(super) passed_over: Option<Duration>,
    /// It is closed for that.
    pub(super) held: bool,
    /// A close was asked for; nothing more is asked of this connection.
    pub(super) closing: bool,
}

/// An empty transaction whose ABORT carries a receipt: its answer shows that the broker reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    /// Its running number among the SENDs.
    pub(super) no: u64,
    pub(super) since: Duration,
}

impl Lane {
    /// A connection begins or ends: nothing was sent on it, nothing was answered.
    pub(super) fn reset(&mut self, up: bool, now: Duration) {
        *self = Lane {
            up,
            heartbeats: up,
            order: self.order,
            silent_since: now,
            stuck: self.stuck,
            ..Lane::default()
        };
    }

    /// Something was answered.
    pub(super) fn heard(&mut self, no: u64, now: Duration) {
        self.answered = self.answered.max(no);
        self.silent_since = now;
        self.passed_over = None;
    }
}
