//! What happens to the model PostgreSQL.

use std::rc::Rc;

use fastrand::Rng;

use crate::lsn::Lsn;

use super::postgres::{FIRST, Postgres, Wrote};
use super::relay_row::Guard;
use super::schedule::Schedule;
use super::slot::Slot;
use super::table::Standing;

impl Postgres {
    /// The slot is written to disk.
    pub(super) fn checkpoint(&mut self) {
        if let Some(slot) = &mut self.slot {
            slot.saved = slot.confirmed;
        }
    }

    /// Connections are gone, and what was not committed with them.
    fn down(&mut self) {
        self.boots += 1;
        self.open.clear();
        self.unseen.clear();
        self.completed = self.xid;
        self.locked.clear();
        self.sender = None;
        self.making = None;
    }

    /// An orderly restart: the slot is saved, open transactions end.
    pub(super) fn restart(&mut self) {
        self.checkpoint();
        self.down();
    }

    /// A crash: the slot is as it was saved, and asynchronous commits that were never flushed
    /// (and so never sent) may be gone; their positions and xids are used again.
    pub(super) fn crash(&mut self, rng: &mut Rng) {
        self.down();
        if let Some(slot) = &mut self.slot {
            slot.confirmed = slot.saved;
        }
        let flushed = self.wal.partition_point(|tx| tx.end.0 <= self.shown);
        let kept = rng.usize(flushed..=self.wal.len());
        let floor = self.shown;
        self.fork(kept, floor);
    }

    /// The slot is invalidated, or dropped by somebody.
    pub(super) fn lose_slot(&mut self, rng: &mut Rng) {
        self.sender = None;
        match &mut self.slot {
            Some(slot) if rng.bool() => slot.invalid = true,
            _ => self.slot = None,
        }
    }

    /// A standby takes over. It may lack the newest transactions, whatever was confirmed. Its copy of the
    /// slot may be older; it may have none; and one that was copied as a file may be ahead of it.
    pub(super) fn failover(&mut self, rng: &mut Rng, schedule: &Schedule) {
        self.down();
        self.timeline += 1;
        let odds = rng.u8(..100);
        let recent = |len: usize, rng: &mut Rng| rng.usize(len.saturating_sub(12)..=len);
        match self.slot.take() {
            Some(slot) if odds < schedule.slot_ahead => {
                let kept = recent(self.wal.len(), rng);
                self.fork(kept, FIRST);
                // The rest of what this slot skips is not its stream's.
                let (birth, past) = (slot.confirmed, vec![slot.confirmed]);
                self.slot = Some(Slot { birth, saved: birth, past, ..slot });
            }
            Some(slot)
                if odds >= schedule.slot_ahead + schedule.no_slot && !slot.past.is_empty() =>
            {
                let confirmed = older(&slot.past, rng);
                let first = self.wal.partition_point(|tx| tx.id.commit_lsn < confirmed);
                let kept = rng.usize(first..=self.wal.len());
                self.fork(kept, confirmed.0);
                let past = slot.past.iter().copied().filter(|at| at.0 <= self.insert).collect();
                self.slot = Some(Slot { confirmed, saved: confirmed, past, ..slot });
            }
            _ => {
                let kept = recent(self.wal.len(), rng);
                self.fork(kept, FIRST);
            }
        }
        self.shown = self.shown.min(self.insert);
        self.switches.push((self.timeline, Lsn(self.insert)));
        if rng.bool() {
            self.clock -= 500; // another machine's clock
        }
    }

    /// Goes on after the first `kept` transactions, at `floor` or later.
    fn fork(&mut self, kept: usize, floor: u64) {
        self.forks += 1;
        if kept < self.wal.len() {
            self.wal.truncate(kept);
            let last = self.wal.last().map_or(FIRST, |tx| tx.end.0);
            self.insert = last.max(floor);
            self.xid = self.wal.iter().map(|tx| tx.xid).max().unwrap_or(0);
            self.completed = self.xid;
            let rows = self.wal.iter().flat_map(|tx| tx.changes.iter().filter_map(|c| c.row));
            self.next_id = rows.map(|row| self.rows[row].id).max().unwrap_or(0);
            self.replay();
        }
    }

    /// What the transactions wrote, from the beginning.
    fn replay(&mut self) {
        self.relay = None;
        self.kept = Rc::default();
        self.publication = Guard { changed_by: 0, good: true };
        self.standings.clear();
        self.by_id.clear();
        for tx in self.wal.clone() {
            let rows: Vec<_> = tx.changes.iter().filter_map(|change| change.row).collect();
            self.stand(&rows, Standing::Waiting);
            match &tx.wrote {
                Wrote::Nothing => {}
                Wrote::Relay(row) => self.relay = Some(row.clone()),
                Wrote::Kept(kept) => self.kept = Rc::clone(kept),
                Wrote::Publication(guard) => self.publication = *guard,
                Wrote::Rows(rows, to) => self.stand(rows, *to),
            }
        }
    }
}

/// A position that the slot once had, mostly a late one.
fn older(past: &[Lsn], rng: &mut Rng) -> Lsn {
    let back = if rng.bool() { rng.usize(..past.len().min(3)) } else { rng.usize(..past.len()) };
    past[past.len() - 1 - back]
}
