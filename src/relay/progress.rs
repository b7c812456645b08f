//! What the pump tells the keeper, and the other way round: where the session stands.

use crate::engine::{ChangeId, TxId};
use crate::lsn::Lsn;

/// Where the relay stands. The keeper sees the latest, not each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// The session that has the slot and reads the stream; none: there is none, or rows are published
    /// out of the table first.
    pub(super) session: Option<Holding>,
    /// What may be confirmed.
    pub(super) watermark: Lsn,
    /// Receipts since the start.
    pub(super) receipts: u64,
    /// How far a transaction is that is larger than the window.
    pub(super) large: Option<(TxId, ChangeId)>,
}

/// The time in which the slot is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holding {
    /// Goes with everything that is written.
    pub(super) epoch: i64,
    /// The server's process that has the slot for us.
    pub(super) walsender: u32,
    /// A number that no other session of this process has.
    pub(super) session: u64,
}
