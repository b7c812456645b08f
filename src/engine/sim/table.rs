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
        for &row in rows {
            self.standings[row] = standing;
            let id = usize::try_from(self.rows[row].id).unwrap();
            self.by_id.resize(self.by_id.len().max(id + 1), usize::MAX);
            self.by_id[id] = row;
        }
    }

    /// A row's place in the order of creation.
    pub(super) fn order(&self, row: usize) -> (u64, usize) {
        (self.rows[row].created, row)
    }

    /// Rows of the outbox that can be read now, of transactions and of rows that are wanted: the first
    /// `many` in order of creation.
    pub(super) fn table(
        &self,
        many: usize,
        wanted: impl Fn(u64) -> bool,
        those: impl Fn(usize) -> bool,
    ) -> Vec<usize> {
        let seen = self.wal.iter().filter(|tx| {
            !tx.changes.is_empty() && wanted(tx.xid) && !self.unseen.contains(&tx.xid)
        });
        let rows = seen.flat_map(|tx| tx.changes.iter().filter_map(|change| change.row));
        let there = |row: &usize| self.standing(*row).is_there() && those(*row);
        let mut rows: Vec<_> = rows.filter(there).collect();
        if many < rows.len() {
            rows.select_nth_unstable_by_key(many, |&row| self.order(row));
            rows.truncate(many);
        }
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

    /// The row with this id, if who reads now sees one.
    pub(super) fn read(&self, id: u64) -> Option<usize> {
        let row = *self.by_id.get(usize::try_from(id).unwrap())?;
        self.is_read(row).then_some(row)
    }

    /// Whether who reads now sees the row.
    fn is_read(&self, row: usize) -> bool {
        let mut unseen = self.wal.iter().filter(|tx| self.unseen.contains(&tx.xid));
        self.standing(row).is_there()
            && (self.unseen.is_empty()
                || !unseen.any(|tx| tx.changes.iter().any(|change| change.row == Some(row))))
    }

    /// A row that a user comes upon, mostly a late one that waits.
    fn some_row(&self, rng: &mut Rng) -> Option<usize> {
        let back = if rng.bool() { 20 } else { self.rows.len() };
        let first = self.rows.len().saturating_sub(back);
        let waits = rng.u8(..4) > 0;
        let mut tried = (0..6).filter_map(|_| rng.choice(first..self.rows.len()));
        tried.find(|&row| {
            self.is_read(row)
                && !self.locked.contains(&row)
                && (!waits || self.standing(row) == Standing::Waiting)
        })
    }

    /// A user locks a row, or all locks end.
    pub(super) fn lock(&mut self, rng: &mut Rng) {
        match self.some_row(rng) {
            Some(row) if rng.u8(..5) > 0 => self.locked.push(row),
            _ => self.locked.clear(),
        }
    }

    /// A user deletes a row, delivered or not. That its deletion may be gone after a crash concerns nobody
    /// here: it is flushed.
    pub(super) fn user_deletes(&mut self, rng: &mut Rng) -> Option<usize> {
        let row = self.some_row(rng)?;
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
