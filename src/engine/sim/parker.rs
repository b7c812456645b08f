//! The relay's SQL side that keeps what is refused: one job at a time. Anything may happen between the
//! asking, the effect and the answer.

use crate::engine::{InTable, Job, Keep, Outcome, Outgoing, Stored};
use crate::pgoutput::PgTime;

use super::driver::Driver;
use super::kept::{Kept, KeptRow};
use super::misstep::Misstep;
use super::pump::key_hash;
use super::rule::Verdict;
use super::{NAMES, PAUSE, Payload, WAIT};

/// What the SQL side is doing.
#[derive(Debug, Default)]
pub(super) struct Parker {
    /// The job, whose messages they are, and the session in which it was asked for.
    asked: Option<(Job, Vec<Payload>, u64)>,
    /// The table is another one since.
    pub(super) void: bool,
}

impl Driver {
    /// The SQL side does its next step.
    pub(super) fn park(&mut self) -> Verdict {
        match self.parker.asked.take() {
            None => self.ask_job()?,
            Some((job, payloads, session)) => self.execute_job(&job, &payloads, session)?,
        }
        self.look()
    }

    fn ask_job(&mut self) -> Verdict {
        let Some(job) = self.engine.next_job(self.now) else { return Ok(()) };
        self.note(format_args!("job {job:?}"));
        let mut payloads = Vec::new();
        if let Job::Keep(batch) = &job {
            payloads.extend(batch.iter().filter_map(|keep| self.engine.message(keep.receipt)));
            self.judge.keeps(&self.pg, batch, &payloads)?;
        }
        if let Job::Attempt { destination, newest_dead } = &job {
            self.judge.attempt_asked(place(destination), *newest_dead, self.now)?;
        }
        self.parker =
            Parker { asked: Some((job, payloads, self.connections.session)), void: false };
        Ok(())
    }

    fn execute_job(&mut self, job: &Job, payloads: &[Payload], session: u64) -> Verdict {
        let odds = if self.calm { 9 } else { self.rng.u8(..12) };
        let held = self.judge.in_session() && self.pg.connected();
        let ours = held && session == self.connections.session;
        let effective = odds != 0 && (ours || self.slips(Misstep::KeepsUnchecked));
        let outcome = if effective { self.take_job(job, payloads)? } else { Outcome::Failed };
        let outcome = match (odds, job) {
            (0, Job::Keep(_)) if self.slips(Misstep::UnansweredIsKept) => {
                Outcome::Kept(self.pg.end())
            }
            (1, _) => Outcome::Failed,
            _ => outcome,
        };
        self.tally.jobs_failed += u64::from(matches!(outcome, Outcome::Failed));
        self.report_job(job, outcome, payloads)
    }

    /// The judge hears of it, then the engine.
    fn report_job(&mut self, job: &Job, mut outcome: Outcome<Payload>, of: &[Payload]) -> Verdict {
        self.note(format_args!("outcome {outcome:?}"));
        if self.parker.void {
            self.engine.job_done(Outcome::Failed, self.now);
            return Ok(());
        }
        match (job, &mut outcome) {
            (_, Outcome::Kept(position)) => {
                let messages: Vec<_> = of.iter().map(|payload| payload.message).collect();
                self.tally.kept += messages.len() as u64;
                self.judge.kept(&messages, *position);
            }
            (Job::Attempt { destination, .. }, Outcome::Attempted(row)) => {
                let of = place(destination);
                let row = row.as_deref_mut();
                self.judge.attempted(&self.pg, of, row, self.now)?;
            }
            (Job::Load { destination, .. }, Outcome::Loaded { rows, .. }) => {
                self.judge.loaded(&self.pg, place(destination), rows)?;
            }
            (Job::Delivered(ids), Outcome::Done) => self.judge.deleted(ids),
            (Job::Condemn { destination }, Outcome::Done) => {
                self.tally.condemned += 1;
                self.judge.made_dead(place(destination));
            }
            (Job::Look, Outcome::Looked(found)) => {
                let found = found.iter().map(|of| (place(&of.destination), of));
                self.judge.looked(found, self.now);
            }
            _ => {}
        }
        self.engine.job_done(outcome, self.now);
        Ok(())
    }

    /// The statement takes effect.
    fn take_job(
        &mut self,
        job: &Job,
        of: &[Payload],
    ) -> Result<Outcome<Payload>, super::Violation> {
        let mut kept = (*self.pg.kept).clone();
        let now = self.now;
        let outcome = match job {
            Job::Keep(batch) => {
                for (keep, payload) in batch.iter().zip(of) {
                    self.insert(&mut kept, keep, payload);
                }
                self.pg.keep(kept);
                self.judge.note_dead(&self.pg);
                return Ok(Outcome::Kept(self.pg.end()));
            }
            Job::Attempt { destination, newest_dead } => {
                let of = place(destination);
                let its = |row: &&mut KeptRow| {
                    let row: &KeptRow = row;
                    let it = &self.pg.rows[row.serial];
                    it.destination == of && row.dead == *newest_dead && !it.unfit
                };
                let mut rows = kept.rows.iter_mut().filter(its);
                let row = if *newest_dead { rows.next_back() } else { rows.next() };
                let Some(row) = row else { return Ok(Outcome::Attempted(None)) };
                row.attempts += 1;
                row.next = now + if *newest_dead { PAUSE } else { WAIT };
                Outcome::Attempted(Some(Box::new(self.stored(&row.clone()))))
            }
            Job::Load { destination, after, messages, bytes } => {
                return Ok(self.load(place(destination), *after, *messages, *bytes));
            }
            Job::Delivered(ids) => {
                kept.rows.retain(|row| !ids.contains(&row.id));
                Outcome::Done
            }
            Job::Note { id, attempts, next_in, .. } => {
                for row in kept.rows.iter_mut().filter(|row| row.id == *id) {
                    (row.attempts, row.next) = (*attempts, now + *next_in);
                }
                Outcome::Done
            }
            Job::Condemn { destination } => {
                let of = place(destination);
                for row in &mut kept.rows {
                    row.dead |= self.pg.rows[row.serial].destination == of;
                }
                Outcome::Done
            }
            Job::Look => return Ok(Outcome::Looked(self.in_table())),
        };
        self.pg.keep(kept);
        self.judge.note_dead(&self.pg);
        Ok(outcome)
    }

    fn insert(&self, kept: &mut Kept, keep: &Keep, payload: &Payload) {
        let there = kept.rows.iter_mut().find(|row| match keep.identity {
            Some(identity) => row.identity == Some(identity),
            // The same id, table and body.
            None => row.foreign == keep.foreign && row.serial == payload.serial,
        });
        if let Some(row) = there.filter(|_| !self.slips(Misstep::KeptTwice)) {
            row.foreign &= keep.foreign;
            return;
        }
        kept.last_id += 1;
        kept.rows.push(KeptRow {
            id: kept.last_id,
            serial: payload.serial,
            identity: keep.identity,
            foreign: keep.foreign,
            dead: keep.dead,
            attempts: keep.attempts,
            next: self.now + keep.next_in.unwrap_or_default(),
            again: false,
        });
    }

    fn load(&self, of: usize, after: i64, messages: usize, bytes: usize) -> Outcome<Payload> {
        let mut rows: Vec<Stored<Payload>> = Vec::new();
        let (mut unread, mut size) = (0, 0);
        for row in self.pg.retrying(of).filter(|row| row.id > after) {
            size += self.pg.rows[row.serial].size;
            if unread == 0 && rows.len() < messages && (rows.is_empty() || size <= bytes) {
                rows.push(self.stored(row));
            } else {
                unread += 1;
            }
        }
        Outcome::Loaded { rows, unread }
    }

    fn stored(&self, row: &KeptRow) -> Stored<Payload> {
        let its = self.pg.rows[row.serial];
        // Which message it becomes is the judge's to say.
        let payload =
            Payload { message: usize::MAX, serial: row.serial, destination: its.destination };
        let marks = self.schedule.marking.is_some() && !row.foreign;
        Stored {
            id: row.id,
            attempts: row.attempts,
            transaction: row.identity.map(|(id, _)| id),
            commit_time: PgTime(0),
            outgoing: Outgoing {
                key_hash: key_hash(its.key),
                size: its.size,
                marks,
                unfit: false,
                payload,
            },
        }
    }

    /// What a look at the table finds.
    pub(super) fn in_table(&self) -> Vec<InTable> {
        let of = |destination: usize| {
            let mut rows = self.pg.retrying(destination);
            let head = rows.next()?;
            Some(InTable {
                destination: NAMES[destination].to_owned(),
                rows: 1 + rows.count() as u64,
                attempts: head.attempts,
                next_in: head.next.saturating_sub(self.now),
                words: String::new(),
            })
        };
        (0..NAMES.len()).filter_map(of).collect()
    }

    /// walpost is killed: its statement may still take effect.
    pub(super) fn parker_dies(&mut self) -> Verdict {
        let dying = std::mem::take(&mut self.parker);
        if let Some((job, payloads, session)) = dying.asked
            && self.rng.bool()
            && self.judge.in_session()
            && self.pg.connected()
            && session == self.connections.session
        {
            self.take_job(&job, &payloads)?;
        }
        Ok(())
    }

    /// An operator has dead letters sent again.
    pub(super) fn operator(&mut self, all: bool) {
        let many = self.pg.operator_retries(&mut self.rng, all, self.now);
        self.tally.sent_again += many as u64;
        self.note(format_args!("an operator has {many} dead letters sent again"));
    }
}

/// Which destination has the name.
fn place(name: &str) -> usize {
    NAMES.iter().position(|known| *known == name).unwrap_or(0)
}
