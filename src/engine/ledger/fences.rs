//! Fences: a message that is kept in the table of what was refused is done only once the stream itself
//! has brought a position at or past the one at which it was kept. Until then a standby that takes over
//! may lack the row, and have the slot past its transaction.
//!
//! A transaction of which nothing else is outstanding is remembered as finished, and stands in the ledger
//! for its fence only. So that a long backlog does not make it long (rule 4), such records join where
//! they are neighbours: with the same fence, or where there are many.

use super::{Key, Ledger};
use crate::engine::TxId;
use crate::lsn::Lsn;
use crate::pgoutput::PgTime;

impl Ledger {
    /// Whether the present session has brought this position.
    fn has_brought(&self, fence: Lsn) -> bool {
        fence <= self.brought
    }

    /// The stream has brought a position, between transactions.
    pub(in crate::engine) fn bring(&mut self, position: Lsn) {
        self.brought = self.brought.max(position);
        while let Some(&(fence, key)) = self.fences.first()
            && self.has_brought(fence)
        {
            self.fences.pop_first();
            let Some(record) = self.get_mut(key) else { continue };
            record.fence = Lsn::INVALID;
            if record.fence_only {
                self.close(key);
            }
        }
    }

    /// A message of the transaction is kept, before this position.
    pub(in crate::engine) fn raise_fence(&mut self, key: Key, fence: Lsn) {
        if self.has_brought(fence) {
            return;
        }
        // What came out of the outbox table is known by a position there, which is written later.
        let Some(record) =
            self.get_mut(key).filter(|record| !record.recovered || record.fence_only)
        else {
            return;
        };
        let before = record.fence;
        record.fence = before.max(fence);
        if self.live {
            self.fences.remove(&(before, key));
            self.fences.insert((before.max(fence), key));
        }
    }

    /// The first transaction that does not stand here for its fence only.
    pub(in crate::engine) fn first_outstanding(&self) -> Option<Key> {
        let mut key = self.first()?;
        while let Some(record) = self.get(key).filter(|record| record.fence_only) {
            key = record.place.as_ref()?.after?;
        }
        Some(key)
    }

    /// What was done of the transaction before may be kept: before which position is not known any more,
    /// but the session still waits for it.
    pub(in crate::engine) fn fence_as_the_highest(&mut self, key: Key) {
        if let Some(&(fence, _)) = self.fences.last() {
            self.raise_fence(key, fence);
        }
    }

    /// Nothing of the transaction is outstanding but its fence. `false`: it has none.
    pub(in crate::engine) fn fence(&mut self, key: Key) -> bool {
        let Some(record) = self.get_mut(key).filter(|record| record.fence.is_valid()) else {
            return false;
        };
        if !record.has_come() {
            // Should it come again, it is known: all that comes from now on waits.
            let fence = record.fence;
            self.hold_from_now_on(fence);
            return false;
        }
        record.fence_only = true;
        let before = self.place_of(Some(key)).and_then(|place| place.before);
        self.join(before, Some(key));
        let key = if self.get(key).is_some() { Some(key) } else { before };
        let after = self.place_of(key).and_then(|place| place.after);
        self.join(key, after);
        true
    }

    /// Two neighbours become one, where both stand here for their fences only and may.
    pub(super) fn join(&mut self, one: Option<Key>, other: Option<Key>) {
        let (Some(one), Some(other)) = (one, other) else { return };
        let fence_of = |key| self.get(key).filter(|record| record.fence_only).map(|r| r.fence);
        let (Some(first), Some(second)) = (fence_of(one), fence_of(other)) else { return };
        if first == second || self.length > self.bound {
            self.raise_fence(one, second);
            self.take(other);
        }
    }

    /// A session begins on the same history: what an earlier one did not reach holds all of its
    /// positions.
    pub(in crate::engine) fn begin_session(&mut self) {
        self.live = true;
        let records = self.records.iter().enumerate();
        let fenced = records.filter_map(|(key, record)| Some((record.as_ref()?.fence, key as Key)));
        self.fences = fenced.filter(|(fence, _)| fence.is_valid()).collect();
        let carried = std::mem::take(&mut self.carried);
        if carried.is_valid() {
            self.hold_from_now_on(carried);
        }
    }

    /// Every position from now on waits for the fence; between sessions, those of the next one do.
    pub(in crate::engine) fn hold_from_now_on(&mut self, fence: Lsn) {
        if !self.live {
            self.carried = self.carried.max(fence);
            return;
        }
        if let Some(last) = self.last.filter(|last| self.get(*last).is_some_and(|r| r.fence_only)) {
            self.raise_fence(last, fence);
            return;
        }
        let nobody = TxId { commit_lsn: Lsn::INVALID, xid: 0, commit_time: PgTime(0) };
        let key = self.open_aside(nobody);
        if let Some(record) = self.get_mut(key) {
            (record.complete, record.fence, record.fence_only) = (true, fence, true);
        }
        self.append(key);
    }

    /// The session ends: fences that it has not reached.
    pub(super) fn carry_fences(&mut self) {
        self.live = false;
        for (fence, key) in std::mem::take(&mut self.fences) {
            if self.get(key).is_some_and(|record| record.fence_only) {
                self.carried = self.carried.max(fence);
                self.take(key);
            }
        }
        self.brought = Lsn::INVALID;
    }

    /// Another history: what was kept may not be there. Whether anything was unreached.
    pub(in crate::engine) fn forget_fences(&mut self) -> bool {
        let mut any = std::mem::take(&mut self.carried).is_valid();
        for record in self.records.iter_mut().flatten().filter(|record| record.fence.is_valid()) {
            any = true;
            record.fence = Lsn::INVALID;
            record.unsure = true;
        }
        any
    }
}
