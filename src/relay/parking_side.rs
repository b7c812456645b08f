//! The pump's half towards the parker: the engine's jobs go to it, what became of them comes back.

use std::task::{Context, Poll};
use std::time::Duration;

use tracing::warn;

use super::parking::{Answer, Task, Work};
use super::pump::Pump;
use crate::engine::{Job, Keep, Outcome};
use crate::store::undelivered::{Identity, KeptState, NewRow};

impl Pump {
    /// When the next job is due; none: there is none, or the slot is not ours for certain.
    pub(super) fn job_due(&self) -> Option<Duration> {
        if self.session.is_none() || self.unsure_since.is_some() {
            return None;
        }
        self.engine.job_deadline()
    }

    /// Takes what became of the last job, and hands out the next. `true`: something moved.
    pub(super) fn poll_jobs(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while let Poll::Ready(Some(answer)) = self.answers.poll_recv(cx) {
            self.job_done(answer);
            moved = true;
        }
        let now = self.clock.now;
        let due = self.job_due().is_some_and(|at| at <= now);
        let origin = self.session.as_ref().map(|session| session.origin);
        let (true, Some(holding), Some(origin)) = (due, self.holding, origin) else {
            return moved;
        };
        // One job at a time: there is room.
        let Ok(place) = self.parker.clone().try_reserve_owned() else { return moved };
        let Some(job) = self.engine.next_job(now) else { return moved };
        let task = match job {
            Job::Keep(batch) => {
                Task::Keep(batch.iter().filter_map(|keep| self.row(keep)).collect())
            }
            Job::Attempt { destination, newest_dead } => {
                let wait = if newest_dead { self.retry.pause } else { self.retry.wait };
                Task::Attempt { destination, newest_dead, wait }
            }
            Job::Load { destination, after, messages, bytes } => {
                Task::Load { destination, after, messages, bytes }
            }
            Job::Delivered(ids) => Task::Delivered(ids),
            Job::Note { id, attempts, words, next_in } => {
                Task::Note { id, attempts, words, next_in }
            }
            Job::Condemn { destination } => Task::Condemn { destination },
            Job::Look => Task::Look,
        };
        place.send(Work { holding, origin, now: self.clock.wall, task });
        true
    }

    /// The message, as it is kept.
    fn row(&self, keep: &Keep) -> Option<NewRow> {
        let message = self.engine.message(keep.receipt)?;
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let table = message.table().filter(|_| !keep.foreign).and_then(|table| {
            let name = self.intake.outbox.tables().get(usize::from(table.place))?;
            Some((table.oid, name.to_string()))
        });
        Some(NewRow {
            identity: keep.identity.map(|(of, change)| Identity {
                commit_lsn: of.commit_lsn,
                xid: of.xid,
                commit_time: of.commit_time,
                change,
            }),
            state: if keep.dead { KeptState::Dead } else { KeptState::Retrying },
            message_id: text(message.id()),
            destination: text(message.destination()),
            key: text(message.key()),
            headers: message.headers().map(|(name, value)| (name.into(), value.into())).collect(),
            body: message.is_whole().then(|| message.body()),
            unfit: message.unfit().is_some(),
            error: message.unfit().unwrap_or(&keep.words).to_owned(),
            attempts: keep.attempts,
            next_in: keep.next_in,
            table,
        })
    }

    fn job_done(&mut self, answer: Answer) {
        let Answer { outcome, error, dead, counts } = answer;
        self.telemetry.metrics.dead_letters.inc_by(dead);
        if let Some(counts) = counts {
            self.undelivered = counts;
            self.table_known = true;
        }
        match (&error, &self.job_failing) {
            (Some(error), _) => {
                if let Some(more) = self.throttle.allow("undelivered", self.clock.now) {
                    warn!("walpost.undelivered: {error}{more}");
                }
                let since = self.job_failing.take().map_or(self.clock.now, |(since, _)| since);
                self.job_failing = Some((since, error.clone()));
            }
            (None, Some(_)) if !matches!(outcome, Outcome::Failed) => self.job_failing = None,
            _ => {}
        }
        self.engine.job_done(outcome, self.clock.now);
    }

    /// Why nothing can be kept, once it could not for a while.
    pub(super) fn parking_problem(&self) -> Option<String> {
        let (since, error) = self.job_failing.as_ref()?;
        let long = self.clock.now >= *since + STUCK;
        long.then(|| format!("walpost.undelivered can't be read or written: {error}"))
    }
}

/// A failure that lasts longer is worth an alarm.
const STUCK: Duration = Duration::from_secs(5);
