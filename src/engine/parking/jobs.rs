//! The jobs of whoever speaks SQL, one at a time, and what becomes of them.

use std::time::Duration;

use super::{Job, Note, Outcome, Running, State};
use crate::engine::Engine;
use crate::engine::types::Addressed;

/// After a job that failed.
const AGAIN: Duration = Duration::from_millis(500);
/// How often the table is looked at.
const LOOK_EACH: Duration = Duration::from_secs(2);
/// Rows are asked for when fewer are at hand.
const FEW: usize = 64;

impl<M: Addressed> Engine<M> {
    /// When [`next_job`](Self::next_job) has one; none: one is under way, or the slot is not ours.
    #[must_use]
    pub fn job_deadline(&self) -> Option<Duration> {
        let parking = &self.parking;
        if self.session.is_none() || parking.running.is_some() {
            return None;
        }
        let due = if self.is_work_waiting() { Duration::ZERO } else { parking.look_at };
        Some(due.max(parking.again_at))
    }

    fn is_work_waiting(&self) -> bool {
        let parking = &self.parking;
        let any = !parking.delivered.is_empty() || !parking.notes.is_empty() || parking.attempting;
        if any || self.may_keep() {
            return true;
        }
        let mut all = self.troubles.by_destination.values();
        all.any(|trouble| {
            trouble.parked.as_ref().is_some_and(|parked| parked.condemn || self.wants_rows(parked))
        })
    }

    /// What the SQL side is to do next; its [`job_done`](Self::job_done) is to follow.
    pub fn next_job(&mut self, now: Duration) -> Option<Job> {
        if self.job_deadline().is_none_or(|at| at > now) {
            return None;
        }
        let (job, running) = self.choose(now);
        self.parking.kept_last = matches!(running, Running::Keep);
        self.parking.running = Some(running);
        self.parking.void = false;
        Some(job)
    }

    fn choose(&mut self, now: Duration) -> (Job, Running) {
        if !self.parking.delivered.is_empty() {
            let rows: Vec<_> = self.parking.delivered.drain(..).collect();
            let ids = rows.iter().map(|(id, _)| *id).collect();
            return (Job::Delivered(ids), Running::Delivered(rows));
        }
        // What is perhaps in the table must not be sent out of it meanwhile.
        let unknown = !self.parking.keeping.is_empty();
        let keep_first = unknown || !self.parking.kept_last;
        if keep_first && self.may_keep() {
            return (Job::Keep(self.next_to_keep(now)), Running::Keep);
        }
        if let Some(note) = self.parking.notes.pop_front() {
            let Note { id, attempts, ref words, next } = note;
            let (words, next_in) = (words.to_string(), next.saturating_sub(now));
            return (Job::Note { id, attempts, words, next_in }, Running::Note(note));
        }
        self.of_destinations().unwrap_or_else(|| {
            if self.may_keep() {
                return (Job::Keep(self.next_to_keep(now)), Running::Keep);
            }
            self.parking.look_at = now + LOOK_EACH;
            (Job::Look, Running::Look)
        })
    }

    fn of_destinations(&mut self) -> Option<(Job, Running)> {
        let troubles = &self.troubles;
        let mut all = troubles.by_destination.iter();
        let condemned = all.find(|(_, trouble)| trouble.parked.as_ref().is_some_and(|p| p.condemn));
        if let Some((name, _)) = condemned {
            let destination = name.to_string();
            return Some((Job::Condemn { destination }, Running::Condemn(name.clone())));
        }
        if self.parking.attempting
            && let Some(name) = &troubles.turn
        {
            let parked = troubles.by_destination.get(name).and_then(|of| of.parked.as_ref());
            let newest_dead = parked.is_some_and(|parked| parked.state == State::Condemned);
            let job = Job::Attempt { destination: name.to_string(), newest_dead };
            return Some((job, Running::Attempt(name.clone())));
        }
        let (name, trouble) = troubles.by_destination.iter().find(|(_, trouble)| {
            trouble.parked.as_ref().is_some_and(|parked| self.wants_rows(parked))
        })?;
        let after = trouble.parked.as_ref()?.after;
        let room = self.window.room();
        let job = Job::Load {
            destination: name.to_string(),
            after,
            messages: room.messages.clamp(1, FEW * 8),
            bytes: room.bytes,
        };
        Some((job, Running::Load(name.clone())))
    }

    /// What became of the job.
    pub fn job_done(&mut self, outcome: Outcome<M>, now: Duration) {
        let Some(running) = self.parking.running.take() else { return };
        if std::mem::take(&mut self.parking.void) {
            return;
        }
        match (running, outcome) {
            (Running::Keep, Outcome::Kept(position)) => self.kept(position),
            (Running::Attempt(name), Outcome::Attempted(row)) => self.attempted(&name, row, now),
            (Running::Load(name), Outcome::Loaded { rows, unread }) => {
                self.rows_loaded(&name, rows, unread);
            }
            (Running::Delivered(rows), Outcome::Done) => self.deleted(&rows),
            (Running::Condemn(name), Outcome::Done) => self.condemned(&name),
            (Running::Note(_), Outcome::Done) => {}
            (Running::Look, Outcome::Looked(found)) => self.looked(found, now),
            (running, _) => self.failed(running, now),
        }
        self.note_full();
        self.try_next(now);
    }

    /// Nothing came of it, or nobody knows: once more.
    fn failed(&mut self, running: Running, now: Duration) {
        self.parking.again_at = now + AGAIN;
        match running {
            Running::Delivered(rows) => {
                rows.into_iter().rev().for_each(|row| self.parking.delivered.push_front(row))
            }
            Running::Note(note) => self.parking.notes.push_front(note),
            Running::Look => self.parking.look_at = now,
            Running::Keep | Running::Attempt(_) | Running::Load(_) | Running::Condemn(_) => {}
        }
    }

    /// Whether the next rows are to be handed over, and there is room.
    fn wants_rows(&self, parked: &super::Parked) -> bool {
        parked.wants_rows() && (parked.held == 0 || self.window.room().messages > 0)
    }

    fn condemned(&mut self, name: &str) {
        let Some(trouble) = self.troubles.by_destination.get_mut(name) else { return };
        let Some(parked) = &mut trouble.parked else { return };
        (parked.condemn, parked.rows) = (false, 0);
        parked.head = None;
    }
}

impl super::Parked {
    fn wants_rows(&self) -> bool {
        self.state == State::Draining
            && self.keeping == 0
            && self.loaded.len() < FEW
            && (self.unsure || self.unread > 0)
    }
}
