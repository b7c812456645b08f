//! Rows that are marked, or deleted, once their messages have a receipt: before anything of them is
//! confirmed (rule 8).
//!
//! Such a message stays in the window when its receipt comes, so that no position passes it and
//! memory stays bounded; only its lane has done with it. One batch at a time goes to whoever speaks
//! SQL. What that one could not mark is owed again, for as long as it takes: that the row is not to be
//! seen yet proves nothing (a commit may wait for a synchronous standby).

use std::collections::VecDeque;
use std::time::Duration;

use super::types::{Addressed, Owed, Receipt, Receipted};
use super::{Engine, window};
use crate::lsn::Lsn;

/// The most rows in a batch.
pub const BATCH: usize = 1000;
/// A mark waits so long for others to go with it.
const LINGER: Duration = Duration::from_millis(20);
/// What could not be marked is tried again after this.
const AGAIN: Duration = Duration::from_millis(500);

/// The marks that are owed, oldest first.
#[derive(Default)]
pub(super) struct Marking {
    owed: VecDeque<Receipt>,
    /// Since when the first of them waits.
    since: Duration,
    /// What could not be marked, and when it is due again.
    again: VecDeque<(Duration, Receipt)>,
    /// So many are being marked.
    asked: usize,
}

impl Marking {
    /// All that is owed.
    fn len(&self) -> usize {
        self.owed.len() + self.again.len() + self.asked
    }
}

impl<M: Addressed> Engine<M> {
    /// The message has its receipt; its row is to be marked.
    pub(super) fn owe(&mut self, key: window::Key, now: Duration) -> Option<Receipted> {
        let held = self.window.get(key)?;
        let (receipt, lane) = (held.receipt, held.lane);
        let receipted = Receipted { commit_time: held.commit_time, last_sent: held.last_sent };
        let state = self.lanes.get_mut(lane)?;
        self.window.detach(&mut state.order, key, now);
        if self.marking.owed.is_empty() {
            self.marking.since = now;
        }
        self.marking.owed.push_back(receipt);
        Some(receipted)
    }

    /// Messages that have their receipt and whose rows are not marked yet.
    #[must_use]
    pub fn owed(&self) -> usize {
        self.marking.len()
    }

    /// How many of them have waited for so long. Walks the window: for the status, not for each row.
    #[must_use]
    pub fn owed_longer_than(&self, age: Duration, now: Duration) -> usize {
        let old = |held: &&window::Held<M>| {
            held.receipted.is_some_and(|since| now.saturating_sub(since) >= age)
        };
        if self.owed() == 0 { 0 } else { self.window.iter().filter(old).count() }
    }

    /// When [`next_marks`](Self::next_marks) has a batch; none: there is nothing to mark, or a batch
    /// is under way.
    #[must_use]
    pub fn marks_deadline(&self) -> Option<Duration> {
        let marking = &self.marking;
        if marking.asked > 0 {
            return None;
        }
        let enough = BATCH.min(self.settings.messages / 4);
        let first = (!marking.owed.is_empty()).then(|| match marking.owed.len() {
            owed if owed >= enough => Duration::ZERO,
            _ => marking.since + LINGER,
        });
        first.into_iter().chain(marking.again.front().map(|(at, _)| *at)).min()
    }

    /// The next rows to mark, at most [`BATCH`]; none while the batch before it is under way. Each is
    /// to be reported: [`marked`](Self::marked) or [`not_marked`](Self::not_marked).
    pub fn next_marks(&mut self, now: Duration) -> Vec<Owed> {
        if self.marks_deadline().is_none_or(|at| at > now) {
            return Vec::new();
        }
        let marking = &mut self.marking;
        let mut batch = Vec::with_capacity(BATCH.min(marking.owed.len() + marking.again.len()));
        while batch.len() < BATCH
            && let Some((_, receipt)) = marking.again.pop_front_if(|(at, _)| *at <= now)
        {
            batch.push(receipt);
        }
        let room = (BATCH - batch.len()).min(marking.owed.len());
        batch.extend(marking.owed.drain(..room));
        marking.since = now;
        marking.asked = batch.len();
        batch
            .into_iter()
            .map(|receipt| Owed { receipt, transaction: self.transaction(receipt) })
            .collect()
    }

    /// A row of the batch is marked, or was deleted by somebody: its message is done.
    pub fn marked(&mut self, receipt: Receipt) {
        self.marking.asked = self.marking.asked.saturating_sub(1);
        if let Some(key) = self.window.find(receipt) {
            self.settle(key);
        }
    }

    /// A row of the batch could not be marked: it is owed again.
    pub fn not_marked(&mut self, receipt: Receipt, now: Duration) {
        self.marking.asked = self.marking.asked.saturating_sub(1);
        if fault!(self, FailedMarkIsForgotten) {
            return;
        }
        if self.window.find(receipt).is_some() {
            self.marking.again.push_back((now + AGAIN, receipt));
        }
    }

    /// What earlier sessions have read of transactions committed at `end` or later is not on this
    /// server, which may give their ids to other rows: nothing of it is marked. Nor is what came out of
    /// the table, of which nobody knows. To be called before a session starts.
    pub fn forget_marks_from(&mut self, end: Lsn) {
        if fault!(self, MarksOfTheOldTimeline) {
            return;
        }
        let ledger = &self.ledger;
        let gone = |tx| ledger.get(tx).is_some_and(|tx| tx.recovered || tx.id.commit_lsn >= end);
        let mut owed = Vec::new();
        for held in self.window.iter_mut().filter(|held| gone(held.tx)) {
            held.foreign = true;
            if std::mem::take(&mut held.marks) {
                owed.extend(held.receipted.map(|_| held.receipt));
            }
        }
        for receipt in owed {
            if let Some(key) = self.window.find(receipt) {
                self.settle(key);
            }
        }
        self.forget_marks_that_left();
    }

    /// What is not in the window is not marked.
    pub(super) fn forget_marks_that_left(&mut self) {
        self.marking.owed.retain(|receipt| self.window.find(*receipt).is_some());
        self.marking.again.retain(|(_, receipt)| self.window.find(*receipt).is_some());
    }
}
