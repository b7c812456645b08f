//! The finished transactions that are recognised when the slot sends them again.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::types::{ChangeId, TxId};
use crate::lsn::Lsn;

/// Transactions of which only a part was sent when their session ended; a session adds at most one.
const PARTIAL: usize = 1024;

/// What is known of a transaction that begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nothing.
    Never,
    /// Each of its messages was receipted.
    Whole,
    /// Its messages up to this change were receipted.
    UpTo(ChangeId),
}

/// A bounded memory of what is done. What it forgets can only be repeated.
///
/// Recording is one push: the index is made when a session starts, and consulted only for
/// transactions that are not past everything recorded, so a steady stream pays nothing for it.
pub(super) struct Ring {
    capacity: usize,
    /// The number of the oldest entry; entries keep their number while others are dropped.
    base: u64,
    whole: VecDeque<TxId>,
    /// Entry numbers (their low 32 bits) by the hash of the identity.
    index: HashTable<u32>,
    indexed_up_to: Lsn,
    hasher: RandomState,
    partial: VecDeque<(TxId, ChangeId)>,
}

impl Ring {
    pub(super) fn new(capacity: usize) -> Self {
        Ring {
            capacity: capacity.max(1),
            base: 0,
            whole: VecDeque::new(),
            index: HashTable::new(),
            indexed_up_to: Lsn::INVALID,
            hasher: RandomState::new(),
            partial: VecDeque::new(),
        }
    }

    /// A session starts: what was recorded so far may come again.
    pub(super) fn reindex(&mut self) {
        self.index = HashTable::with_capacity(self.whole.len());
        self.indexed_up_to = Lsn::INVALID;
        for offset in 0..self.whole.len() {
            self.index_entry(offset);
        }
    }

    /// Makes an entry known to the present session.
    fn index_entry(&mut self, offset: usize) {
        let (hasher, whole, base) = (&self.hasher, &self.whole, self.base);
        let Some(id) = whole.get(offset) else { return };
        let number = base.wrapping_add(offset as u64) as u32;
        self.indexed_up_to = self.indexed_up_to.max(id.commit_lsn);
        self.index.insert_unique(hasher.hash_one(id), number, |&other| {
            entry(whole, base, other).map_or(0, |id| hasher.hash_one(id))
        });
    }

    /// A transaction of an earlier session is finished before it has come again: the present
    /// session may still bring it.
    pub(super) fn finished_meanwhile(&mut self, id: TxId) {
        self.finished(id);
        self.index_entry(self.whole.len() - 1);
    }

    pub(super) fn finished(&mut self, id: TxId) {
        if self.whole.len() >= self.capacity {
            self.whole.pop_front();
            self.base = self.base.wrapping_add(1);
        }
        self.whole.push_back(id);
    }

    pub(super) fn partly_finished(&mut self, id: TxId, up_to: ChangeId) {
        if self.partial.len() >= PARTIAL {
            self.partial.pop_front();
        }
        self.partial.push_back((id, up_to));
    }

    /// Nothing that it knows is certain any more.
    pub(super) fn clear(&mut self) {
        self.base = self.base.wrapping_add(self.whole.len() as u64);
        self.whole.clear();
        self.partial.clear();
        self.index = HashTable::new();
        self.indexed_up_to = Lsn::INVALID;
    }

    /// What is known of a transaction that begins. A partly finished one is forgotten here: its
    /// caller records it again when it ends.
    pub(super) fn look_up(&mut self, id: TxId) -> Seen {
        if let Some(at) = self.partial.iter().position(|(partial, _)| *partial == id) {
            return match self.partial.remove(at) {
                Some((_, up_to)) => Seen::UpTo(up_to),
                None => Seen::Never,
            };
        }
        if id.commit_lsn > self.indexed_up_to {
            return Seen::Never;
        }
        let found = self.index.find(self.hasher.hash_one(id), |&number| {
            entry(&self.whole, self.base, number) == Some(&id)
        });
        if found.is_some() { Seen::Whole } else { Seen::Never }
    }

    /// Drops the index once the stream is past everything in it.
    pub(super) fn caught_up(&mut self, commit_lsn: Lsn) {
        if commit_lsn > self.indexed_up_to && !self.index.is_empty() {
            self.index = HashTable::new();
        }
    }
}

fn entry(whole: &VecDeque<TxId>, base: u64, number: u32) -> Option<&TxId> {
    whole.get(number.wrapping_sub(base as u32) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pgoutput::PgTime;

    fn id(n: u64) -> TxId {
        TxId { commit_lsn: Lsn(n), xid: n as u32, commit_time: PgTime(n as i64) }
    }

    #[test]
    fn recognises_the_last_ones_and_forgets_the_older() {
        let mut ring = Ring::new(100);
        (1..=250).for_each(|n| ring.finished(id(n)));
        ring.reindex();
        assert_eq!(ring.look_up(id(150)), Seen::Never);
        assert_eq!(ring.look_up(id(151)), Seen::Whole);
        assert_eq!(ring.look_up(id(250)), Seen::Whole);
        // What falls out while the index is in use is not found any more.
        (251..=300).for_each(|n| ring.finished(id(n)));
        assert_eq!(ring.look_up(id(200)), Seen::Never);
        assert_eq!(ring.look_up(id(201)), Seen::Whole);
    }

    #[test]
    fn a_reused_position_is_another_transaction() {
        let mut ring = Ring::new(10);
        ring.finished(id(5));
        ring.reindex();
        assert_eq!(ring.look_up(TxId { xid: 6, ..id(5) }), Seen::Never);
        assert_eq!(ring.look_up(TxId { commit_time: PgTime(6), ..id(5) }), Seen::Never);
        assert_eq!(ring.look_up(id(5)), Seen::Whole);
    }

    #[test]
    fn a_partly_finished_one_is_given_back_once() {
        let mut ring = Ring::new(10);
        let up_to = ChangeId { lsn: Lsn(3), place: 1 };
        ring.partly_finished(id(5), up_to);
        assert_eq!(ring.look_up(id(5)), Seen::UpTo(up_to));
        assert_eq!(ring.look_up(id(5)), Seen::Never);
    }
}
