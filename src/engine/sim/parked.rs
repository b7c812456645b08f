//! The judge's eye on parking: what is kept, what is sent out of the table, and what may be called done.

use std::time::Duration;

use crate::engine::{InTable, Keep, Stored};
use crate::lsn::Lsn;
use crate::pgoutput::PgTime;

use super::judge::Judge;
use super::message::Message;
use super::postgres::Postgres;
use super::rule::{Rule, Verdict};
use super::troubles::{Facts, Parked};
use super::{PAUSE, Payload, WAIT};

impl Judge {
    /// The engine wants these to be kept.
    pub(super) fn keeps(&self, pg: &Postgres, batch: &[Keep], of: &[Payload]) -> Verdict {
        self.hold(Rule::Parking, batch.len() == of.len(), || {
            format!("{batch:?} are to be kept, some are not in the window")
        })?;
        let mut seen = vec![0; super::NAMES.len()];
        for (keep, payload) in batch.iter().zip(of) {
            let message = &self.messages[payload.message];
            let waits = !message.receipted && !message.settled && message.kept.is_none();
            self.hold(Rule::Parking, waits, || format!("{keep:?} is to be kept: {message:?}"))?;
            if message.unfit {
                self.hold(Rule::Parking, keep.dead, || format!("{keep:?} is unfit"))?;
                continue;
            }
            let parked = self.troubled.get(&message.destination).and_then(|facts| facts.parked);
            self.hold(Rule::Parking, parked.is_some(), || {
                format!("{keep:?} is to be kept, its destination is not parked")
            })?;
            let before = seen[message.destination];
            let out = |index: usize| {
                let mut all = self.lanes.iter().flat_map(|lane| &lane.outstanding);
                all.any(|o| o.message == index)
            };
            let mut due = self.messages.iter().enumerate().filter(|(index, other)| {
                other.destination == message.destination
                    && !out(*index)
                    && !other.settled
                    && !other.receipted
                    && !other.unfit
                    && other.kept.is_none()
            });
            let due = due.nth(before).map(|(index, _)| index);
            self.hold(Rule::Order, due == Some(payload.message), || {
                format!("message {due:?} is to be kept, it is {}", payload.message)
            })?;
            seen[message.destination] += 1;
        }
        let new = |(keep, payload): &(&Keep, &Payload)| !keep.dead && !pg.is_kept(payload.serial);
        let retrying = pg.kept.rows.iter().filter(|row| !row.dead).count()
            + batch.iter().zip(of).filter(new).count();
        // Until the next look the engine does not know what an operator had sent again.
        self.hold(Rule::Parking, retrying <= self.max_parked || pg.kept.touched, || {
            format!("{retrying} messages are to be kept, {} may be", self.max_parked)
        })
    }

    /// They are kept, at a position before this one.
    pub(super) fn kept(&mut self, messages: &[usize], position: Lsn) {
        for &index in messages {
            let message = &mut self.messages[index];
            message.fence = Some(position);
            message.settled = true;
            self.waiting.messages -= 1;
            self.waiting.bytes -= message.size;
            self.fences = self.fences.max(position);
            for lane in &mut self.lanes {
                lane.queue.retain(|&queued| queued != index);
            }
            if let Some(uid) = self.messages[index].uid {
                self.memory.finish(uid, &self.messages);
            }
        }
    }

    /// A position that the stream has brought once is no fence any more.
    pub(super) fn pass_fences(&mut self) {
        let Some(brought) = self.brought().filter(|_| self.fences.is_valid()) else { return };
        for message in self.messages.iter_mut().filter(|m| m.fence.is_some_and(|at| at <= brought))
        {
            message.fence = None;
        }
        if self.resumed <= brought {
            self.resumed = Lsn::INVALID;
        }
        let left = self.messages.iter().filter_map(|message| message.fence).max();
        self.fences = left.unwrap_or(Lsn::INVALID).max(self.resumed);
    }

    /// The oldest row of a destination is asked for: it is time.
    pub(super) fn attempt_asked(&self, of: usize, newest_dead: bool, now: Duration) -> Verdict {
        let facts = self.troubled.get(&of);
        let state = if newest_dead { Parked::Condemned } else { Parked::Waiting };
        let due = facts.is_some_and(|facts| facts.parked == Some(state) && facts.next <= now);
        self.hold(Rule::Parking, due, || {
            format!("destination {of} is to be tried (dead: {newest_dead}): {facts:?}")
        })
    }

    /// Its attempt is counted; the row is sent where the lane is there.
    pub(super) fn attempted(
        &mut self,
        pg: &Postgres,
        of: usize,
        row: Option<&mut Stored<Payload>>,
        now: Duration,
    ) -> Verdict {
        let ready = self.lanes[self.trial()].up && self.in_session();
        let Some(facts) = self.troubled.get_mut(&of) else { return Ok(()) };
        let Some(row) = row else {
            facts.emptied = true;
            if facts.parked == Some(Parked::Condemned) {
                facts.parked = Some(Parked::Draining);
            }
            return Ok(());
        };
        if !ready {
            return Ok(());
        }
        facts.attempts = row.attempts;
        facts.width = 1;
        facts.next = now + if facts.parked == Some(Parked::Condemned) { PAUSE } else { WAIT };
        self.take_in(pg, row);
        Ok(())
    }

    /// Rows are handed over.
    pub(super) fn loaded(
        &mut self,
        pg: &Postgres,
        of: usize,
        rows: &mut [Stored<Payload>],
    ) -> Verdict {
        if self.troubled.get(&of).is_some_and(|facts| facts.parked == Some(Parked::Draining)) {
            let held = |message: &Message| message.kept.filter(|_| !message.settled);
            let here: Vec<i64> = self.messages.iter().filter_map(held).collect();
            for row in rows.iter_mut().filter(|row| !here.contains(&row.id)) {
                self.take_in(pg, row);
            }
        }
        Ok(())
    }

    fn take_in(&mut self, pg: &Postgres, row: &mut Stored<Payload>) {
        let serial = row.outgoing.payload.serial;
        let its = &pg.rows[serial];
        row.outgoing.payload.message = self.messages.len();
        self.waiting.messages += 1;
        self.waiting.bytes += its.size;
        self.loaded_now += 1;
        self.messages.push(Message {
            serial,
            destination: its.destination,
            uid: None,
            streamed: row.transaction.is_some(),
            kept: Some(row.id),
            fence: None,
            unfit: false,
            commit_lsn: Lsn::INVALID,
            size: its.size,
            commit_time: PgTime(0),
            number: None,
            last_sent: Duration::ZERO,
            receipted: false,
            marks: row.outgoing.marks,
            settled: false,
        });
    }

    /// Rows are deleted.
    pub(super) fn deleted(&mut self, ids: &[i64]) {
        for index in 0..self.messages.len() {
            let message = &self.messages[index];
            if message.kept.is_some_and(|id| ids.contains(&id)) && message.receipted {
                self.leaves(index);
            }
        }
    }

    fn leaves(&mut self, index: usize) {
        let message = &mut self.messages[index];
        if std::mem::replace(&mut message.settled, true) {
            return;
        }
        self.waiting.messages -= 1;
        self.waiting.bytes -= message.size;
        self.loaded_now -= 1;
        if message.receipted && message.marks {
            self.owed -= 1;
        }
    }

    /// What came out of the table leaves the window: all of a destination without a receipt, or all.
    pub(super) fn unload(&mut self, of: Option<usize>) {
        for index in 0..self.messages.len() {
            let message = &self.messages[index];
            let its = of.is_none_or(|of| message.destination == of && !message.receipted);
            if message.kept.is_some() && its {
                self.leaves(index);
            }
        }
    }

    /// What is dead is sent out of its order, if ever.
    pub(super) fn note_dead(&mut self, pg: &Postgres) {
        self.ever_dead.resize(pg.rows.len(), false);
        for row in pg.kept.rows.iter().filter(|row| row.dead) {
            self.ever_dead[row.serial] = true;
        }
    }

    /// All rows of a destination are dead.
    pub(super) fn made_dead(&mut self, of: usize) {
        if let Some(facts) = self.troubled.get_mut(&of) {
            facts.made_dead = true;
        }
    }

    /// What a look at the table found.
    pub(super) fn looked<'a>(
        &mut self,
        found: impl Iterator<Item = (usize, &'a InTable)>,
        now: Duration,
    ) {
        let mut gone: Vec<usize> = self.troubled.keys().copied().collect();
        for (of, InTable { attempts, next_in, .. }) in found {
            gone.retain(|other| *other != of);
            let next = now + *next_in;
            let facts =
                self.troubled.entry(of).or_insert(Facts { next, width: 1, ..Facts::default() });
            let idle = !self.messages.iter().any(|message| {
                message.destination == of && message.kept.is_some() && !message.settled
            });
            match facts.parked {
                None => {
                    (facts.attempts, facts.next) = (*attempts, next);
                    facts.parked = Some(Parked::Waiting);
                }
                Some(Parked::Condemned) if facts.made_dead => {
                    (facts.attempts, facts.next) = (*attempts, next);
                    facts.parked = Some(Parked::Waiting);
                }
                Some(Parked::Waiting) if idle => facts.next = facts.next.min(next),
                Some(_) => {}
            }
            facts.emptied = false;
        }
        for of in gone {
            if let Some(facts) = self.troubled.get_mut(&of) {
                facts.emptied = true;
            }
        }
    }

    /// What was found before the stream is read.
    pub(super) fn looked_by_name(&mut self, found: &[InTable], now: Duration) {
        let place = |name: &str| super::NAMES.iter().position(|known| *known == name);
        let found = found.iter().filter_map(|of| Some((place(&of.destination)?, of)));
        self.looked(found, now);
    }

    /// Another history: nothing of the table is known.
    pub(super) fn table_lost(&mut self) {
        let waits = |message: &Message| {
            let facts = self.troubled.get(&message.destination);
            facts.is_some_and(|facts| facts.parked.is_some())
                && !(message.settled || message.receipted || message.unfit)
        };
        // But for what is on its way: that goes on.
        let out = |index: usize| {
            let lanes = &self.lanes[..self.trial()];
            lanes.iter().any(|lane| lane.outstanding.iter().any(|o| o.message == index))
        };
        let waiting: Vec<_> = (0..self.messages.len())
            .filter(|&index| {
                let message = &self.messages[index];
                message.kept.is_none() && waits(message) && !out(index)
            })
            .collect();
        if self.fences.is_valid() || !waiting.is_empty() {
            self.memory.forget();
        }
        for index in waiting {
            self.messages[index].settled = true;
            self.waiting.messages -= 1;
            self.waiting.bytes -= self.messages[index].size;
            self.lanes.iter_mut().for_each(|lane| lane.queue.retain(|&queued| queued != index));
        }
        (self.fences, self.resumed) = (Lsn::INVALID, Lsn::INVALID);
        self.messages.iter_mut().for_each(|message| message.fence = None);
        self.unload(None);
        let messages = &self.messages;
        for lane in &mut self.lanes {
            lane.outstanding.retain(|o| messages[o.message].kept.is_none());
        }
        let mut reset = Vec::new();
        for (of, facts) in self.troubled.iter_mut().filter(|(_, facts)| facts.parked.is_some()) {
            *facts = Facts { width: 1, ..Facts::default() };
            reset.push(*of);
        }
        let messages = &self.messages;
        let lanes = &self.lanes;
        let left = |of: usize| {
            let out = lanes.iter().flat_map(|lane| &lane.outstanding);
            messages.iter().any(|m| m.destination == of && !m.settled && !m.receipted && !m.unfit)
                || out.into_iter().any(|o| messages[o.message].destination == of)
        };
        self.troubled.retain(|of, _| !reset.contains(of) || left(*of));
    }

    /// A destination may be called open: nothing of it is kept to be sent again, or on its way.
    pub(super) fn opened(&mut self, pg: &Postgres, of: usize) -> Verdict {
        let facts = self.troubled.remove(&of);
        let trial = self.trial();
        let out = self.lanes.iter().flat_map(|lane| &lane.outstanding);
        let out = out.filter(|o| self.messages[o.message].destination == of).count();
        let rows: Vec<_> = pg.retrying(of).filter(|row| !row.again).map(|row| row.id).collect();
        let parked = facts.is_some_and(|facts| facts.parked.is_some());
        let taken = facts.is_some_and(|facts| facts.width > 1 || parked);
        self.hold(Rule::Parking, taken && out == 0 && (rows.is_empty() || !parked), || {
            format!("destination {of} is opened: {facts:?}, {out} on their way, rows {rows:?}")
        })?;
        // What waited goes to its lanes, behind what is there.
        for (_, lane) in self.lanes.iter_mut().enumerate().filter(|(lane, _)| *lane != trial) {
            let messages = &self.messages;
            let (mut its, others): (Vec<_>, Vec<_>) =
                lane.queue.iter().partition(|&&message| messages[message].destination == of);
            its.sort_unstable();
            lane.queue = others.into_iter().chain(its).collect();
        }
        Ok(())
    }
}
