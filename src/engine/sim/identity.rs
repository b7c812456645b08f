//! What a walpost must recognise when it comes again, and what it may have forgotten.

use super::message::Message;
use super::postgres::Transaction;

/// What this walpost has read of a transaction.
#[derive(Debug, Default)]
struct Seen {
    /// By change: the latest message made of it, and in which round.
    accepted: Vec<Option<(usize, u32)>>,
    /// Goes up when a transaction that may be forgotten is accepted anew.
    round: u32,
    committed: bool,
    ever_committed: bool,
    finished: bool,
    /// It was not finished when the present session began to bring it.
    unfinished_begin: bool,
    /// The turn in which it was finished or broken off.
    ended: Option<u64>,
    /// The last turn in which an engine may have recorded it in its ring.
    touched: u64,
    /// Of an earlier walpost: its changes up to this one are delivered.
    resumed: Option<usize>,
}

/// All transactions that one walpost has read, by the model's own identity of them.
#[derive(Debug)]
pub(super) struct Memory {
    /// How many finished transactions the engine promises to recognise.
    ring: usize,
    seen: Vec<Seen>,
    turn: u64,
}

impl Memory {
    pub(super) fn new(ring: usize) -> Self {
        Memory { ring, seen: Vec::new(), turn: 0 }
    }

    /// A new walpost knows nothing.
    pub(super) fn clear(&mut self) {
        self.seen.clear();
        self.turn = 0;
    }

    /// Nothing that was finished must be recognised.
    pub(super) fn forget(&mut self) {
        for seen in &mut self.seen {
            seen.round += 1;
            seen.ever_committed = true;
        }
    }

    pub(super) fn begin(&mut self, tx: &Transaction) {
        if self.seen.len() <= tx.uid {
            self.seen.resize_with(tx.uid + 1, Seen::default);
        }
        let seen = &mut self.seen[tx.uid];
        seen.accepted.resize(tx.changes.len(), None);
        seen.unfinished_begin = !seen.finished;
    }

    /// A new walpost was told that the changes up to this one are delivered.
    pub(super) fn resume(&mut self, uid: usize, up_to: usize) {
        if self.seen.len() <= uid {
            self.seen.resize_with(uid + 1, Seen::default);
        }
        self.seen[uid].resumed = Some(up_to);
    }

    /// Whether a change was delivered by an earlier walpost, as this one was told; and whether that must
    /// be recognised: until it is forgotten, the transaction has not been read to its end.
    pub(super) fn resumed(&self, uid: usize, index: usize) -> (bool, bool) {
        let seen = &self.seen[uid];
        let told = seen.resumed.is_some_and(|up_to| index <= up_to);
        (told, told && !seen.ever_committed)
    }

    /// The latest message that was made of a change.
    pub(super) fn message(&self, uid: usize, index: usize) -> Option<usize> {
        self.seen[uid].accepted[index].map(|(message, _)| message)
    }

    /// Whether a change must be recognised: it was accepted, and either a message of its
    /// transaction is in the window or the ring reaches back to it.
    pub(super) fn must_know(&self, uid: usize, index: usize, messages: &[Message]) -> bool {
        let seen = &self.seen[uid];
        if seen.accepted[index].is_none_or(|(_, round)| round != seen.round) {
            return false;
        }
        // Whatever may have entered the ring since has pushed it back by one.
        let reached = |ended| {
            let later = self.seen.iter().filter(|other| other.touched > ended).count();
            later < self.ring
        };
        let mut made = seen.accepted.iter().flatten();
        seen.ended.is_none_or(reached) || made.any(|&(message, _)| !messages[message].settled)
    }

    pub(super) fn accept(&mut self, uid: usize, index: usize, message: usize) {
        let seen = &mut self.seen[uid];
        let told = seen.resumed.take_if(|up_to| index <= *up_to).is_some();
        if told || seen.accepted[index].is_some_and(|(_, round)| round == seen.round) {
            seen.round += 1;
            seen.finished = false;
            seen.committed = false;
            seen.unfinished_begin = true;
            seen.ended = None;
        }
        seen.accepted[index] = Some((message, seen.round));
    }

    pub(super) fn commit(&mut self, uid: usize, messages: &[Message]) {
        self.seen[uid].committed = true;
        self.seen[uid].ever_committed = true;
        self.end(uid, false);
        self.finish(uid, messages);
    }

    /// The session ended inside the transaction.
    pub(super) fn broken_off(&mut self, uid: usize) {
        self.end(uid, !self.seen[uid].finished);
    }

    /// A transaction is finished when it is read to its Commit and all its messages are done.
    pub(super) fn finish(&mut self, uid: usize, messages: &[Message]) {
        let seen = &mut self.seen[uid];
        if seen.finished || !seen.committed {
            return;
        }
        if seen.accepted.iter().flatten().all(|&(message, _)| messages[message].settled) {
            seen.finished = true;
            self.end(uid, true);
        }
    }

    /// These were finished at the same time: nobody knows which of them an engine recorded first.
    pub(super) fn together(&mut self, uids: &[usize]) {
        self.turn += 1;
        uids.iter().for_each(|&uid| self.seen[uid].touched = self.turn);
    }

    /// A transaction is finished or broken off (`really`), or an engine may think so only now.
    fn end(&mut self, uid: usize, really: bool) {
        self.turn += 1;
        let seen = &mut self.seen[uid];
        if seen.accepted.iter().all(Option::is_none) {
            return;
        }
        if really {
            seen.ended = Some(self.turn);
        }
        if really || seen.unfinished_begin {
            seen.touched = self.turn;
        }
    }
}
