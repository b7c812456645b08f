//! What walpost keeps in the model PostgreSQL: a row of a table, which a crash or a failover takes back
//! with all else.

use std::rc::Rc;

use crate::engine::{ChangeId, TxId};

/// Which transactions were visible at a moment: PostgreSQL's `pg_snapshot`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// Nothing from this id on is visible.
    pub(super) xmax: u64,
    /// Of those before it, what was in progress.
    pub(super) running: Vec<u64>,
}

impl Snapshot {
    /// PostgreSQL's `pg_visible_in_snapshot`.
    pub(super) fn sees(&self, xid: u64) -> bool {
        xid < self.xmax && !self.running.contains(&xid)
    }
}

/// What a look at the publication finds: the transaction that last changed it, and whether it
/// has the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Guard {
    pub(super) changed_by: u64,
    pub(super) good: bool,
}

/// How far the slot's making is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The slot is to be made.
    Creating,
    /// Rows are published out of the table.
    Recovering,
    /// Only the stream is.
    Streaming,
}

/// The slot's row in `walpost.relay`.
#[derive(Clone, Debug)]
pub(super) struct RelayRow {
    pub(super) epoch: u64,
    pub(super) timeline: u64,
    pub(super) state: State,
    /// All that it sees is delivered.
    pub(super) certified: Rc<Snapshot>,
    /// What it sees, and the certified one does not, is to be published out of the table.
    pub(super) upper: Option<Rc<Snapshot>>,
    /// Rows up to this one are.
    pub(super) cursor: Option<(u64, usize)>,
    /// What was found before the upper snapshot was taken.
    pub(super) guard: Guard,
    /// How far a large transaction is delivered.
    pub(super) large: Option<(TxId, ChangeId)>,
}

/// What the relay writes while it holds the slot; none of it if another has taken over since.
#[derive(Clone, Debug)]
pub(super) enum Update {
    /// Rows of a recovery have their receipts, up to this one.
    Cursor((u64, usize)),
    /// All rows of the recovery have.
    Recovered,
    Certified(Rc<Snapshot>),
    Large(TxId, ChangeId),
}

impl RelayRow {
    /// The row after an update.
    pub(super) fn with(&self, update: &Update) -> RelayRow {
        let row = self.clone();
        match update {
            Update::Cursor(up_to) => RelayRow { cursor: Some(*up_to), ..row },
            Update::Recovered => RelayRow {
                state: State::Streaming,
                certified: row.upper.clone().unwrap_or(row.certified),
                upper: None,
                cursor: None,
                ..row
            },
            Update::Certified(snapshot) => RelayRow { certified: Rc::clone(snapshot), ..row },
            Update::Large(id, up_to) => RelayRow { large: Some((*id, *up_to)), ..row },
        }
    }
}
