//! The judge's eye on the lanes: order, repeats, silence, probes, closes.

use std::time::Duration;

use crate::engine::{CloseReason, LaneDown, Receipt, Receipted};

use super::judge::Judge;
use super::message::Message;
use super::postgres::{Postgres, Transaction};
use super::rule::{Rule, Verdict};
use super::table::Standing;
use super::{PROBE_AFTER, Payload, RECEIPT_TIMEOUT};

/// A message written on the present connection and not receipted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outstanding {
    pub(super) message: usize,
    turn: u64,
    /// When something written after it was answered for the first time.
    overtaken: Option<Duration>,
}

/// What happened on a lane.
#[derive(Debug, Default)]
pub(super) struct LaneFacts {
    pub(super) up: bool,
    /// Unreceipted messages of this lane in the order in which they were accepted.
    pub(super) queue: Vec<usize>,
    pub(super) outstanding: Vec<Outstanding>,
    /// The unanswered probe: its turn, and when it was asked for.
    probe: Option<(u64, Duration)>,
    turn: u64,
    last_sent: Duration,
    last_answer: Duration,
    /// When a probe was last answered.
    released: Duration,
    /// The oldest of what was outstanding when the connection was last lost without a word.
    pub(super) stuck: Option<usize>,
    /// The messages whose receipts are missing.
    pub(super) missing: Vec<usize>,
    /// Of the lane for trials: since when others are answered, and it is not for long.
    pub(super) passed_over: Option<Duration>,
    /// It is closed for that.
    pub(super) given_up: bool,
}

impl LaneFacts {
    /// Something was answered: what was written before it and has no receipt is overtaken.
    fn answered(&mut self, turn: u64, now: Duration) {
        self.last_answer = now;
        self.passed_over = None;
        for earlier in self.outstanding.iter_mut().filter(|o| o.turn < turn) {
            earlier.overtaken.get_or_insert(now);
        }
    }

    /// Whether the broker is holding the lane: a probe is unanswered, and yet heart-beats come.
    fn held(&self, heartbeats: bool) -> bool {
        heartbeats && self.probe.is_some()
    }

    /// Whether the lane must be closed: a receipt is missing, and the broker was not holding us
    /// meanwhile; or, without heart-beats, the answer to a probe is.
    fn must_close(&self, now: Duration, heartbeats: bool) -> bool {
        let due = |at: Duration| now >= at + RECEIPT_TIMEOUT;
        let dead = !heartbeats && self.probe.is_some_and(|(_, asked)| due(asked));
        let missing = |o: &Outstanding| o.overtaken.is_some_and(|at| due(at.max(self.released)));
        dead || (!self.held(heartbeats) && self.outstanding.iter().any(missing))
    }
}

impl Judge {
    /// A lane is connected.
    pub(super) fn lane_up(&mut self, lane: usize, now: Duration) {
        let facts = &mut self.lanes[lane];
        facts.up = true;
        facts.last_answer = now;
        facts.last_sent = now;
        self.proven(now);
    }

    /// A lane is lost, was refused something or could not connect.
    pub(super) fn lane_down(&mut self, lane: usize, why: LaneDown<'_>, now: Duration) {
        let facts = &mut self.lanes[lane];
        facts.up = false;
        facts.probe = None;
        facts.passed_over = None;
        let sent: Vec<_> = facts.outstanding.drain(..).map(|o| o.message).collect();
        self.blame(lane, &sent, why, now);
    }

    /// What `next_send` gave.
    pub(super) fn sent(
        &mut self,
        pg: &Postgres,
        lane: usize,
        given: Option<(Receipt, &Payload)>,
        now: Duration,
    ) -> Verdict {
        let facts = &self.lanes[lane];
        let may = facts.up && facts.probe.is_none() && self.in_session();
        let due = facts.queue.iter().copied().find(|&message| {
            let written = facts.outstanding.iter().any(|o| o.message == message);
            !written && !self.is_set_aside(message)
        });
        let Some((Receipt(number), payload)) = given else {
            return self.hold(Rule::Sending, due.is_none() || !may, || {
                format!("message {due:?} is due on lane {lane}, nothing is sent")
            });
        };
        self.hold(Rule::Sending, may, || {
            format!("message {payload:?} is sent on lane {lane}, which may not: {facts:?}")
        })?;
        let index = payload.message;
        let message = &self.messages[index];
        let row = &pg.rows[payload.serial];
        self.hold(Rule::Invented, message.serial == payload.serial && row.committed, || {
            format!("message {index} is sent as {payload:?}; committed: {}", row.committed)
        })?;
        self.hold(Rule::Repeat, !message.receipted, || {
            format!("message {index} has its receipt and is sent again")
        })?;
        self.hold(Rule::Repeat, facts.outstanding.iter().all(|o| o.message != index), || {
            format!("message {index} is outstanding on lane {lane} and is sent again")
        })?;
        if lane == self.trial() {
            self.tried(pg, index, now)?;
        } else {
            self.hold(Rule::Order, due == Some(index), || {
                format!("message {due:?} is due on lane {lane}, {index} is sent")
            })?;
        }
        let free = || !self.messages.iter().any(|other| other.number == Some(number));
        self.hold(
            Rule::Receipt,
            message.number.map_or_else(free, |before| before == number),
            || {
                format!(
                    "message {index} is sent with receipt {number}, before with {:?}",
                    message.number
                )
            },
        )?;
        let recovered = !message.streamed;
        self.write(lane, index, number, now);
        self.first_sending(pg, payload.serial, recovered)
    }

    fn write(&mut self, lane: usize, index: usize, number: u64, now: Duration) {
        let message = &mut self.messages[index];
        if message.number.is_none() {
            message.number = Some(number);
        }
        message.last_sent = now;
        let facts = &mut self.lanes[lane];
        facts.turn += 1;
        facts.last_sent = now;
        facts.outstanding.push(Outstanding { message: index, turn: facts.turn, overtaken: None });
    }

    /// The first sendings of the rows of a key come in the commit order of the present timeline.
    /// Those of a recovery come in the order of creation.
    fn first_sending(&mut self, pg: &Postgres, serial: usize, recovered: bool) -> Verdict {
        if self.ever_sent.len() <= serial {
            self.ever_sent.resize(serial + 1, false);
        }
        if self.ever_sent[serial] {
            return Ok(());
        }
        let dead = |row: usize| self.ever_dead.get(row).copied().unwrap_or(false);
        if recovered || dead(serial) {
            self.ever_sent[serial] = true;
            return Ok(());
        }
        let birth = pg.slot.as_ref().map(|slot| slot.birth);
        let key = pg.rows[serial].key;
        let (mut at, mut change) = self.first_sent[usize::try_from(key).unwrap()];
        let (mut earlier, mut next) = (None, None);
        'wal: while let Some(tx) = pg.wal.get(at) {
            while let Some(logged) = tx.changes.get(change) {
                let unsent = |row: &usize| !self.ever_sent.get(*row).copied().unwrap_or(false);
                // One that its user has deleted, and that the slot is past, comes no more: a failover to a
                // standby that lacks what was sent takes away what was kept of it.
                let passed = pg.timeline > 1 && tx.end <= pg.confirmed();
                let never = |row: usize| {
                    passed && row != serial && pg.standing(row) == Standing::DeletedByUser
                };
                let streamed = !logged.hidden && Some(tx.id.commit_lsn) >= birth;
                earlier = logged.row.filter(|&row| streamed && pg.rows[row].key == key);
                earlier = earlier.filter(unsent).filter(|&row| !dead(row) && !pg.rows[row].unfit);
                if earlier.is_some_and(never) {
                    // It may be on its way still.
                    (earlier, next) = (None, next.or(Some((at, change))));
                }
                if earlier.is_some() {
                    break 'wal;
                }
                change += 1;
            }
            at += 1;
            change = 0;
        }
        self.first_sent[usize::try_from(key).unwrap()] = next.unwrap_or((at, change));
        self.ever_sent[serial] = true;
        // A row that another timeline or another slot has taken with it may come at any time.
        let streamed = || pg.wal.iter().filter(|tx| Some(tx.id.commit_lsn) >= birth);
        let is_it = |tx: &std::rc::Rc<Transaction>| {
            tx.changes.iter().any(|logged| logged.row == Some(serial))
        };
        let lost = || !streamed().any(is_it);
        self.hold(Rule::Order, earlier.is_none_or(|row| row == serial) || lost(), || {
            format!("row {serial} is sent before row {earlier:?} of the same key")
        })
    }

    /// A lane has read a receipt; the engine says what it was.
    pub(super) fn receipt(
        &mut self,
        lane: usize,
        number: u64,
        said: Option<Receipted>,
        now: Duration,
    ) -> Verdict {
        let facts = &mut self.lanes[lane];
        let messages = &self.messages;
        let found =
            facts.outstanding.iter().position(|o| messages[o.message].number == Some(number));
        let Some(found) = found else {
            return self.hold(Rule::Receipt, said.is_none(), || {
                format!(
                    "receipt {number} answers nothing on lane {lane}, and is taken for {said:?}"
                )
            });
        };
        let Outstanding { message, turn, .. } = facts.outstanding.remove(found);
        facts.answered(turn, now);
        self.passed_over(lane, now);
        for lane in &mut self.lanes {
            lane.queue.retain(|&queued| queued != message);
        }
        if !self.messages[message].receipted {
            self.receipted(message);
        }
        if lane == self.trial() {
            self.taken_on_trial(message);
        }
        let Message { commit_time, last_sent, .. } = self.messages[message];
        let right = Receipted { commit_time, last_sent };
        self.hold(Rule::Receipt, said == Some(right), || {
            format!("receipt {number} is {right:?}, not {said:?}")
        })
    }

    /// Another lane than that for trials has a receipt.
    fn passed_over(&mut self, lane: usize, now: Duration) {
        let trial = self.trial();
        let mut tried = self.lanes[trial].outstanding.iter().map(|o| o.message);
        let of = tried.next().map(|message| self.messages[message].destination);
        let other =
            self.troubled.iter().any(|(&name, facts)| Some(name) != of && facts.next <= now);
        let facts = &mut self.lanes[trial];
        let hangs = facts.probe.is_some_and(|(_, asked)| now >= asked + RECEIPT_TIMEOUT);
        if lane != trial && other && hangs && facts.held(self.heartbeats) {
            facts.passed_over.get_or_insert(now);
        }
    }

    /// The engine asks for a probe.
    pub(super) fn probe(&mut self, lane: usize, now: Duration) -> Verdict {
        let facts = &mut self.lanes[lane];
        let silent = now >= facts.last_answer + PROBE_AFTER;
        let due = facts.up && facts.probe.is_none() && !facts.outstanding.is_empty() && silent;
        facts.turn += 1;
        facts.probe = Some((facts.turn, now));
        let facts = &self.lanes[lane];
        self.hold(Rule::Silence, due, || format!("a probe on lane {lane} is not due: {facts:?}"))
    }

    /// A lane has read the answer to a probe.
    pub(super) fn probe_answered(&mut self, lane: usize, now: Duration) {
        let facts = &mut self.lanes[lane];
        if let Some((turn, _)) = facts.probe.take() {
            facts.answered(turn, now);
            facts.released = now;
        }
    }

    /// Whether the lane is said to be held by the broker.
    pub(super) fn blocked(&self, lane: usize, said: bool) -> Verdict {
        self.hold(Rule::Silence, said == self.lanes[lane].probe.is_some(), || {
            format!("lane {lane} is said to be blocked: {said}, {:?}", self.lanes[lane])
        })
    }

    /// The engine asks for a lane to be closed.
    pub(super) fn close(&mut self, lane: usize, why: CloseReason, now: Duration) -> Verdict {
        let facts = &self.lanes[lane];
        let due = |at: Duration| now >= at + RECEIPT_TIMEOUT;
        let missing = |number: u64| {
            let is = |o: &&Outstanding| self.messages[o.message].number == Some(number);
            let found = facts.outstanding.iter().find(is);
            found.filter(|o| o.overtaken.is_some_and(due)).map(|o| o.message)
        };
        let (right, suspect) = match why {
            CloseReason::Missing(Receipt(number)) => {
                let message = missing(number).filter(|_| !facts.held(self.heartbeats));
                (message.is_some(), message)
            }
            CloseReason::Held => {
                let long = facts.passed_over.is_some_and(|since| now >= since + PROBE_AFTER);
                (lane == self.trial() && facts.held(self.heartbeats) && long, None)
            }
            CloseReason::Silent => {
                (!self.heartbeats && facts.probe.is_some_and(|(_, asked)| due(asked)), None)
            }
        };
        self.hold(Rule::Silence, facts.up && right, || {
            format!("lane {lane} is closed for {why:?}, which is not so: {facts:?}")
        })?;
        let facts = &mut self.lanes[lane];
        let is_due = |o: &&Outstanding| o.overtaken.is_some_and(|at| due(at.max(facts.released)));
        let all = facts.outstanding.iter().filter(is_due).map(|o| o.message).collect();
        facts.missing = if suspect.is_some() { all } else { Vec::new() };
        facts.given_up = why == CloseReason::Held;
        Ok(())
    }

    /// Time has passed: what is due must have been asked for.
    pub(super) fn silence(&self, now: Duration) -> Verdict {
        for (lane, facts) in self.lanes.iter().enumerate().filter(|(_, facts)| facts.up) {
            self.hold(Rule::Silence, !facts.must_close(now, self.heartbeats), || {
                format!("a receipt is missing on lane {lane}, and it is not closed: {facts:?}")
            })?;
            let since = facts.last_answer.max(facts.last_sent);
            // What is overtaken needs no probe: something sent after it was answered already.
            let unproven = facts.outstanding.iter().any(|o| o.overtaken.is_none());
            let silent = unproven && now >= since + PROBE_AFTER;
            self.hold(
                Rule::Silence,
                !silent || facts.probe.is_some() || !self.in_session(),
                || format!("lane {lane} is silent and not probed: {facts:?}"),
            )?;
        }
        Ok(())
    }

    /// Numbers that a garbled receipt may carry: of any message, or of none.
    pub(super) fn some_number(&self, lane: usize, rng: &mut fastrand::Rng) -> Option<u64> {
        if self.messages.is_empty() || rng.u8(..4) == 0 {
            return Some(rng.u64(..1_000_000) + 1_000_000);
        }
        let number = self.messages[rng.usize(..self.messages.len())].number?;
        let here = |o: &Outstanding| self.messages[o.message].number == Some(number);
        (!self.lanes[lane].outstanding.iter().any(here)).then_some(number)
    }
}
