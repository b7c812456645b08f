//! The judge's eye on marking: no position passes a row that is not marked, and no row is marked that has
//! no receipt.

use std::time::Duration;

use crate::lsn::Lsn;

use super::Payload;
use super::judge::Judge;
use super::postgres::Postgres;
use super::rule::{Rule, Verdict};
use super::table::Standing;

/// No mark waits longer for its batch.
const MARKED_WITHIN: Duration = Duration::from_millis(500);

impl Judge {
    /// A message got its receipt.
    pub(super) fn receipted(&mut self, index: usize) {
        let message = &mut self.messages[index];
        message.receipted = true;
        let (serial, marks) = (message.serial, message.marks);
        if self.ever_receipted.len() <= serial {
            self.ever_receipted.resize(serial + 1, false);
        }
        self.ever_receipted[serial] = true;
        if self.messages[index].kept.is_some() {
            // It stays until it is deleted there.
            self.owed += usize::from(marks);
            return;
        }
        self.owed += 1;
        if !marks {
            self.settle(index);
        }
    }

    /// A message is done: nothing waits for it.
    fn settle(&mut self, index: usize) {
        let message = &mut self.messages[index];
        if std::mem::replace(&mut message.settled, true) {
            return; // a faulty engine says it twice
        }
        self.owed = self.owed.saturating_sub(1);
        self.waiting.messages -= 1;
        self.waiting.bytes -= message.size;
        if let Some(uid) = message.uid {
            self.memory.finish(uid, &self.messages);
        }
    }

    /// A row that something has passed must not wait for its mark.
    pub(super) fn holds_mark(
        &self,
        pg: &Postgres,
        row: usize,
        why: impl FnOnce() -> String,
    ) -> Verdict {
        let waits = self.marking && pg.standing(row) == Standing::Waiting && !pg.is_kept(row);
        self.hold(Rule::Unmarked, !waits, || format!("row {row} is not marked, and {}", why()))
    }

    /// A statement has marked or deleted these rows.
    pub(super) fn rows_marked(&self, rows: &[usize]) -> Verdict {
        let stranger =
            rows.iter().find(|row| !self.ever_receipted.get(**row).copied().unwrap_or(false));
        self.hold(Rule::Mismarked, stranger.is_none(), || {
            format!("row {stranger:?} is marked without a receipt")
        })
    }

    /// The engine wants these to be marked.
    pub(super) fn asked(&self, batch: &[(Payload, bool)]) -> Verdict {
        for (at, &(payload, streamed)) in batch.iter().enumerate() {
            self.origin(streamed, payload)?;
            let message = &self.messages[payload.message];
            let again = batch[..at].iter().any(|(other, _)| other.message == payload.message);
            let due = message.receipted && message.marks && !message.settled && !again;
            self.hold(Rule::Owed, due, || format!("{payload:?} is to be marked: {message:?}"))?;
        }
        Ok(())
    }

    /// Whether there was a batch, and whether there had to be one.
    pub(super) fn batch_due(&self, at: Option<Duration>, given: bool, now: Duration) -> Verdict {
        self.hold(Rule::Owed, (self.owed > 0) == at.is_some(), || {
            format!("marks are due at {at:?}")
        })?;
        self.hold(Rule::Owed, at.is_none_or(|at| at <= now + MARKED_WITHIN), || {
            format!("marks are due at {at:?} only")
        })?;
        self.hold(Rule::Owed, given == at.is_some_and(|at| at <= now), || {
            format!("marks are due at {at:?}, given: {given}")
        })
    }

    /// What is said to be owed; what is under way counts until it is reported, forgotten or not.
    pub(super) fn owed(&self, said: usize, asked: impl Iterator<Item = usize>) -> Verdict {
        if !(self.strict && self.marking) {
            return Ok(());
        }
        let owed = self.owed + asked.filter(|&message| self.messages[message].settled).count();
        self.hold(Rule::Owed, said == owed, || format!("{said} marks are owed, it is {owed}"))
    }

    /// The relay says that a message's row is marked or was deleted; it has seen that on this history,
    /// or it is another by now.
    pub(super) fn marked(&mut self, pg: &Postgres, message: usize, here: bool) -> Verdict {
        let row = self.messages[message].serial;
        let waits = here && pg.standing(row) == Standing::Waiting;
        self.hold(Rule::Owed, !waits, || format!("row {row} is not marked, and said to be"))?;
        let its = &mut self.messages[message];
        if its.kept.is_some() {
            let owed = std::mem::take(&mut its.marks) && !its.settled;
            self.owed -= usize::from(owed);
        } else if !its.settled {
            self.settle(message);
        }
        Ok(())
    }

    /// What was committed at `end` or later in earlier sessions, and what came out of the table, is not
    /// to be marked any more.
    pub(super) fn marks_forgotten(&mut self, end: Lsn) -> u64 {
        let (mut forgotten, mut together) = (0, Vec::new());
        for index in 0..self.messages.len() {
            let message = &mut self.messages[index];
            let gone = message.uid.is_none() || message.commit_lsn >= end;
            if message.settled || !message.marks || !gone {
                continue;
            }
            message.marks = false;
            if message.receipted && message.kept.is_none() {
                forgotten += 1;
                together.extend(message.uid);
                self.settle(index);
            }
        }
        self.memory.together(&together);
        forgotten
    }
}
