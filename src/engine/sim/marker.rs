//! The relay's SQL side that marks rows, or deletes them: one batch at a time, a statement, and a look at what
//! it did not match. Anything may happen between two of these.

use crate::engine::{Receipt, TxId};
use crate::lsn::Lsn;

use super::Payload;
use super::driver::Driver;
use super::misstep::Misstep;
use super::rule::Verdict;
use super::table::Standing;

/// What the SQL side is doing.
#[derive(Debug, Default)]
pub(super) enum Marker {
    #[default]
    Idle,
    /// The statement is on its way.
    Asked(Batch),
    /// The statement's answer has come; what it did not match is to be looked at.
    Answered(Batch, Vec<Unmatched>),
}

/// Rows to be marked, and by whom.
#[derive(Debug)]
pub(super) struct Batch {
    items: Vec<Item>,
    /// The replication session in which they were asked for.
    session: u64,
    /// What there was of the server's lives and histories then.
    boots: u64,
    forks: i64,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    receipt: Receipt,
    transaction: Option<TxId>,
    payload: Payload,
}

/// A row that the statement did not match.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unmatched {
    item: Item,
    /// What was there then.
    there: Option<Standing>,
}

impl Marker {
    /// The messages that are under way.
    pub(super) fn messages(&self) -> impl Iterator<Item = usize> {
        let batch = match self {
            Marker::Idle => None,
            Marker::Asked(batch) | Marker::Answered(batch, _) => Some(batch),
        };
        batch.into_iter().flat_map(|batch| batch.items.iter().map(|item| item.payload.message))
    }
}

impl Driver {
    /// The SQL side does its next step.
    pub(super) fn mark(&mut self) -> Verdict {
        match std::mem::take(&mut self.marker) {
            Marker::Idle => self.ask_marks()?,
            Marker::Asked(batch) => self.execute(batch)?,
            Marker::Answered(batch, unmatched) => self.second_look(&batch, unmatched)?,
        }
        self.look()
    }

    fn ask_marks(&mut self) -> Verdict {
        let deadline = self.engine.marks_deadline();
        let due = self.engine.next_marks(self.now);
        self.judge.batch_due(deadline, !due.is_empty(), self.now)?;
        let items: Vec<_> = due
            .into_iter()
            .filter_map(|owed| {
                let payload = *self.engine.message(owed.receipt)?;
                Some(Item { receipt: owed.receipt, transaction: owed.transaction, payload })
            })
            .collect();
        let facts: Vec<_> =
            items.iter().map(|item| (item.payload, item.transaction.is_some())).collect();
        self.judge.asked(&facts)?;
        if !items.is_empty() {
            self.note(format_args!("marks are asked for: {items:?}"));
            self.marker = Marker::Asked(Batch {
                items,
                session: self.connections.session,
                boots: self.pg.boots,
                forks: self.pg.forks,
            });
        }
        Ok(())
    }

    /// Whether the statement takes effect: by its own look at the slot and at the relay's row.
    fn may_mark(&self, batch: &Batch) -> bool {
        let held = self.judge.in_session() && self.pg.connected();
        let ours = batch.session == self.connections.session;
        (held && (ours || self.slips(Misstep::MarksOfEarlierSession)))
            || self.slips(Misstep::MarksUnchecked)
    }

    /// The statement takes effect, or not. None: the slot is not ours on this server.
    fn take_effect(&mut self, batch: &Batch) -> Result<Option<Vec<Unmatched>>, super::Violation> {
        if !self.may_mark(batch) {
            return Ok(None);
        }
        let (mut rows, mut unmatched) = (Vec::new(), Vec::new());
        for &item in &batch.items {
            let id = self.pg.rows[item.payload.serial].id;
            let found = self.pg.read(id);
            let there = found.map(|row| self.pg.standing(row));
            match found {
                Some(row) if there == Some(Standing::Waiting) && !self.pg.locked.contains(&row) => {
                    // Out of the table and by the stream, the same row may be there twice.
                    if !rows.contains(&row) {
                        rows.push(row);
                    }
                }
                _ => unmatched.push(Unmatched { item, there }),
            }
        }
        self.judge.rows_marked(&rows)?;
        if let (false, Some(to)) = (rows.is_empty(), self.schedule.marking) {
            self.note(format_args!("{to:?}: rows {rows:?}"));
            self.tally.marked += rows.len() as u64;
            self.pg.change_rows(rows, to);
            if !self.slips(Misstep::MarksNotFlushed) {
                self.pg.shown = self.pg.insert;
            }
        }
        Ok(Some(unmatched))
    }

    fn execute(&mut self, batch: Batch) -> Verdict {
        // The connection may be lost before the statement has taken effect, or after.
        let odds = if self.calm { 9 } else { self.rng.u8(..12) };
        if odds == 0 {
            return self.no_answer(&batch);
        }
        let Some(unmatched) = self.take_effect(&batch)? else {
            self.tally.marks_refused += 1;
            return self.owed_again(&batch.items);
        };
        if odds == 1 {
            return self.no_answer(&batch);
        }
        self.marker = Marker::Answered(batch, unmatched);
        Ok(())
    }

    /// The connection is gone, and nobody knows what the statement did.
    fn no_answer(&mut self, batch: &Batch) -> Verdict {
        self.note(format_args!("no answer to the marks"));
        self.tally.marks_unanswered += 1;
        if !self.slips(Misstep::UnansweredIsMarked) {
            return self.owed_again(&batch.items);
        }
        batch.items.iter().try_for_each(|item| self.is_marked(batch, item))
    }

    /// What was not matched: is it there, and may it be seen, in one snapshot?
    fn second_look(&mut self, batch: &Batch, unmatched: Vec<Unmatched>) -> Verdict {
        let matched = |item: &&Item| !unmatched.iter().any(|un| un.item.receipt == item.receipt);
        for item in batch.items.iter().filter(matched) {
            self.is_marked(batch, item)?;
        }
        let connected = batch.boots == self.pg.boots && self.may_mark(batch);
        for Unmatched { item, there } in unmatched {
            let id = self.pg.rows[item.payload.serial].id;
            let found = self.pg.read(id);
            let now = found.map(|row| self.pg.standing(row));
            let there = if self.slips(Misstep::SeenAfterwards) { there } else { now };
            let seen = item.transaction.is_none_or(|id| self.pg.is_visible(id));
            let done = match there {
                Some(Standing::Waiting) => self.slips(Misstep::LockedIsDeleted),
                Some(_) => !self.slips(Misstep::MarkedIsLocked),
                None => seen || self.slips(Misstep::UnseenIsDeleted),
            };
            self.note(format_args!("{item:?}: there {there:?}, seen {seen}"));
            if connected && done {
                self.tally.marks_found += u64::from(there.is_none());
                self.is_marked(batch, &item)?;
            } else {
                self.tally.marks_again += 1;
                self.owed_again(&[item])?;
            }
        }
        Ok(())
    }

    fn is_marked(&mut self, batch: &Batch, item: &Item) -> Verdict {
        self.note(format_args!("marked {item:?}"));
        self.judge.marked(&self.pg, item.payload.message, batch.forks == self.pg.forks)?;
        self.engine.marked(item.receipt);
        Ok(())
    }

    fn owed_again(&mut self, items: &[Item]) -> Verdict {
        self.note(format_args!("owed again {items:?}"));
        items.iter().for_each(|item| self.engine.not_marked(item.receipt, self.now));
        Ok(())
    }

    /// walpost is killed: its statement may still take effect.
    pub(super) fn marker_dies(&mut self) -> Verdict {
        match std::mem::take(&mut self.marker) {
            Marker::Asked(batch) if self.rng.bool() => self.take_effect(&batch).map(|_| ()),
            _ => Ok(()),
        }
    }

    /// Before a session: what the engine holds of rows that may not be on this server is not marked.
    pub(super) fn forget_marks(&mut self) {
        let here = self.pg.timeline;
        let Some(was) = self.relay.timeline.replace(here).filter(|was| *was != here) else {
            return;
        };
        let end = if self.slips(Misstep::LatestEndOnly) {
            self.pg.end_of(here - 1)
        } else if self.rng.u8(..4) == 0 {
            Lsn::INVALID // nobody knows
        } else {
            self.pg.end_of(was)
        };
        self.note(format_args!("marks from {end} on are forgotten"));
        self.engine.table_lost();
        self.judge.table_lost();
        self.parker.void = true;
        self.engine.forget_marks_from(end);
        self.tally.marks_forgotten += self.judge.marks_forgotten(end);
    }

    /// A user deletes a row.
    pub(super) fn user_deletes(&mut self) {
        let row = self.pg.user_deletes(&mut self.rng);
        self.note(format_args!("a user deletes {row:?}"));
    }
}
