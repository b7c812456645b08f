//! The model PostgreSQL's outbox as a table: which of its rows wait, which are marked or deleted, and who
//! locks them.

use fastrand::Rng;

use crate::engine::TxId;
use crate::lsn::Lsn;

use super::postgres::{Postgres, Wrote};

/// What a row is on the present timeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Standing {
    /// It was not committed here.
    #[default]
    Absent,
    /// Committed, and not marked.
    Waiting,
    Marked,
    Deleted,
    DeletedByUser,
}

impl Standing {
    /// Whether the row is in the table, for who sees its transaction.
    fn is_there(self) -> bool {
        matches!(self, Standing::Waiting | Standing::Marked)
    }
}

impl Postgres {
    /// What a row is on the present timeline.
    pub(super) fn standing(&self, row: usize) -> Standing {
        self.standings.get(row).copied().unwrap_or_default()
    }

    pub(super) fn stand(&mut self, rows: &[usize], standing: Standing) {
        self.standings.resize(self.rows.len(), Standing::Absent);
        rows.iter().for_each(|&row| self.standings[row] = standing);
    }

    /// A row's place in the order of creation.
    pub(super) fn order(&self, row: usize) -> (u64, usize) {
        (self.rows[row].created, row)
    }

    /// Rows of the outbox that can be read now, of transactions that are wanted, in order of creation.
    pub(super) fn table(&self, wanted: impl Fn(u64) -> bool) -> Vec<usize> {
        let seen = self.wal.iter().filter(|tx| wanted(tx.xid) && !self.unseen.contains(&tx.xid));
        let rows = seen.flat_map(|tx| tx.changes.iter().filter_map(|change| change.row));
        let mut rows: Vec<_> = rows.filter(|&row| self.standing(row).is_there()).collect();
        rows.sort_unstable_by_key(|&row| self.order(row));
        rows
    }

    /// Whether who reads now sees what the transaction wrote.
    pub(super) fn is_visible(&self, id: TxId) -> bool {
        self.transaction(id).is_none_or(|tx| !self.unseen.contains(&tx.xid))
    }

    /// Rows are marked or deleted.
    pub(super) fn change_rows(&mut self, rows: Vec<usize>, to: Standing) {
        self.stand(&rows, to);
        self.write_at_once(Wrote::Rows(rows, to));
    }

    /// A user locks a row that waits, or all locks end.
    pub(super) fn lock(&mut self, rng: &mut Rng) {
        let rows = self.table(|_| true);
        if rows.is_empty() || rng.u8(..3) == 0 {
            self.locked.clear();
        } else {
            self.locked.push(rows[rng.usize(..rows.len())]);
        }
    }

    /// A user deletes a row, delivered or not. That its deletion may be gone after a crash concerns nobody
    /// here: it is flushed.
    pub(super) fn user_deletes(&mut self, rng: &mut Rng) -> Option<usize> {
        let mut rows = self.table(|_| true);
        rows.retain(|row| !self.locked.contains(row));
        let row = *rng.choice(&rows)?;
        self.change_rows(vec![row], Standing::DeletedByUser);
        self.shown = self.insert;
        Some(row)
    }

    /// From where on this timeline does not have what another had.
    pub(super) fn end_of(&self, timeline: u64) -> Lsn {
        let later = self.switches.iter().filter(|(began, _)| *began > timeline);
        later.map(|(_, at)| *at).min().unwrap_or(Lsn::INVALID)
    }
}
