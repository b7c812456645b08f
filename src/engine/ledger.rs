//! The transactions that are not done, in the order of the stream, and the position that may be
//! confirmed: the way back of `docs/design.md`'s picture.

use std::collections::BTreeSet;

mod fences;

use super::types::{ChangeId, TxId};
use crate::lsn::Lsn;

/// The key of a transaction's record.
pub(super) type Key = u32;

/// A transaction that has messages in the window or that is being read.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) id: TxId,
    /// The last change of it that became a message.
    pub(super) last: ChangeId,
    /// How many of its changes became messages, as far as this process has read it.
    pub(super) accepted: usize,
    /// No transaction of the stream: rows that are published again, from the table.
    pub(super) recovered: bool,
    /// Its changes came out of order: positions inside it can't be compared.
    pub(super) unordered: bool,
    /// Its messages in the window.
    pub(super) unreceipted: usize,
    /// Its Commit was read, in this session or an earlier one.
    pub(super) complete: bool,
    /// Messages of it are kept in the table of what was refused, and are done once the stream has
    /// brought this position.
    pub(super) fence: Lsn,
    /// What was kept of it may be gone: should it come again, it is read anew.
    pub(super) unsure: bool,
    /// It is remembered elsewhere already, and stands here for its fence only.
    pub(super) fence_only: bool,
    /// Where it stands in the present session's ledger; `None`: it is of an earlier session and
    /// has not come again, so it holds back no position of this one (rule 2).
    place: Option<Place>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// What is done when this transaction and all before it are done; invalid until its Commit
    /// is read.
    candidate: Lsn,
    before: Option<Key>,
    after: Option<Key>,
}

impl Record {
    /// Whether the present session has brought it.
    pub(super) fn has_come(&self) -> bool {
        self.place.is_some()
    }
}

/// Never longer than the window and the transaction being read: a transaction that is done
/// folds its position into its predecessor (rule 4).
#[derive(Default)]
pub(super) struct Ledger {
    records: Vec<Option<Record>>,
    free: Vec<Key>,
    first: Option<Key>,
    last: Option<Key>,
    length: usize,
    /// The running maximum of this session's candidates.
    done: Lsn,
    /// How far the present session has brought the stream, between transactions.
    brought: Lsn,
    /// Records with a fence that this session has not reached, by it.
    fences: BTreeSet<(Lsn, Key)>,
    /// The highest fence that an earlier session did not reach.
    carried: Lsn,
    /// Fences join where there are more records.
    bound: usize,
    /// A session is under way.
    live: bool,
}

impl Ledger {
    pub(super) fn new(messages: usize) -> Self {
        Ledger { bound: messages.saturating_mul(2), ..Ledger::default() }
    }

    pub(super) fn get(&self, key: Key) -> Option<&Record> {
        self.records.get(key as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Record> {
        self.records.get_mut(key as usize)?.as_mut()
    }

    /// How many transactions the present session waits for.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// The highest candidate of the present session.
    pub(super) fn done(&self) -> Lsn {
        self.done
    }

    /// A transaction is read for the first time; it becomes the last of the ledger.
    pub(super) fn open(&mut self, id: TxId, first: ChangeId) -> Key {
        let key = self.record(id, first, false);
        self.append(key);
        key
    }

    /// Rows come from the table, not from the stream: no position waits for them, and they are not
    /// recognised should the stream bring them.
    pub(super) fn open_aside(&mut self, id: TxId) -> Key {
        self.record(id, ChangeId { lsn: Lsn::INVALID, place: 0 }, true)
    }

    fn record(&mut self, id: TxId, first: ChangeId, recovered: bool) -> Key {
        let key = self.free.pop().unwrap_or_else(|| {
            self.records.push(None);
            self.records.len() as Key - 1
        });
        self.records[key as usize] = Some(Record {
            id,
            last: first,
            accepted: 0,
            recovered,
            unordered: false,
            unreceipted: 0,
            complete: false,
            fence: Lsn::INVALID,
            fence_only: false,
            unsure: false,
            place: None,
        });
        key
    }

    /// The oldest transaction that the present session waits for.
    pub(super) fn first(&self) -> Option<Key> {
        self.first
    }

    /// A transaction of an earlier session comes again; it becomes the last of the ledger.
    pub(super) fn append(&mut self, key: Key) {
        let before = self.last;
        let Some(record) = self.get_mut(key) else { return };
        record.place = Some(Place { candidate: Lsn::INVALID, before, after: None });
        let fence = record.fence;
        if fence.is_valid() {
            self.fences.insert((fence, key));
        }
        self.length += 1;
        match self.place_of(before) {
            Some(place) => place.after = Some(key),
            None => self.first = Some(key),
        }
        self.last = Some(key);
    }

    /// The Commit of the last transaction was read.
    pub(super) fn committed(&mut self, key: Key, end_lsn: Lsn) {
        if let Some(record) = self.get_mut(key) {
            record.complete = true;
        }
        if let Some(place) = self.place_of(Some(key)) {
            place.candidate = end_lsn;
        }
    }

    /// A position with nothing of its own to wait for: an empty commit or a keepalive. It is done
    /// when all before it is (rule 3).
    pub(super) fn passed(&mut self, position: Lsn) {
        let last = self.last;
        match self.place_of(last) {
            Some(place) => place.candidate = place.candidate.max(position),
            None => self.done = self.done.max(position),
        }
    }

    /// Whether nothing of the transaction is outstanding any more, in the window or in the stream.
    pub(super) fn is_done(&self, key: Key) -> bool {
        self.get(key).is_some_and(|record| {
            record.unreceipted == 0
                && (record.fence_only
                    || record.place.is_none_or(|place| place.candidate.is_valid()))
        })
    }

    /// Takes out a transaction that is done, folding its position into its predecessor.
    pub(super) fn close(&mut self, key: Key) -> Option<Record> {
        let record = self.take(key)?;
        if let Some(place) = record.place {
            self.join(place.before, place.after);
        }
        Some(record)
    }

    fn take(&mut self, key: Key) -> Option<Record> {
        let record = self.records.get_mut(key as usize)?.take()?;
        self.free.push(key);
        self.fences.remove(&(record.fence, key));
        if let Some(place) = record.place {
            self.unlink(place);
        }
        Some(record)
    }

    fn unlink(&mut self, gone: Place) {
        self.length -= 1;
        match self.place_of(gone.before) {
            Some(before) => {
                before.after = gone.after;
                before.candidate = before.candidate.max(gone.candidate);
            }
            None => {
                self.first = gone.after;
                self.done = self.done.max(gone.candidate);
            }
        }
        match self.place_of(gone.after) {
            Some(after) => after.before = gone.before,
            None => self.last = gone.before,
        }
    }

    /// The session ends: its candidates die with it. Returns the transactions that it waited for,
    /// which are now of an earlier session.
    pub(super) fn end_session(&mut self) -> Vec<Key> {
        let mut keys = Vec::with_capacity(self.length);
        let mut at = self.first;
        while let Some(key) = at {
            keys.push(key);
            at = self
                .get_mut(key)
                .and_then(|record| record.place.take())
                .and_then(|place| place.after);
        }
        (self.first, self.last, self.length, self.done) = (None, None, 0, Lsn::INVALID);
        self.carry_fences();
        keys.retain(|key| self.get(*key).is_some());
        keys
    }

    fn place_of(&mut self, key: Option<Key>) -> Option<&mut Place> {
        self.get_mut(key?)?.place.as_mut()
    }
}

#[cfg(test)]
impl Ledger {
    /// A position counts as done whatever is before it: for deliberate faults.
    pub(super) fn force_done(&mut self, position: Lsn) {
        self.done = self.done.max(position);
    }

    /// The latest position counts, not the highest: for deliberate faults.
    pub(super) fn set_done(&mut self, position: Lsn) {
        self.done = position;
    }

    pub(super) fn candidate(&self, key: Key) -> Option<Lsn> {
        Some(self.get(key)?.place.as_ref()?.candidate)
    }
}
