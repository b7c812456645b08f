//! The broker's side of the engine: connections, SENDs, receipts, silence.

use std::time::Duration;

use super::Engine;
use super::lane::Probe;
use super::types::{Action, Addressed, CloseReason, LaneDown, Receipt, Receipted};
use super::window;
use crate::lsn::Lsn;

impl<M: Addressed> Engine<M> {
    /// A lane is connected. What it has unreceipted is offered again by
    /// [`next_send`](Self::next_send), in order, before anything new.
    pub fn lane_up(&mut self, lane: usize, now: Duration) {
        let Some(state) = self.lanes.get_mut(lane) else { return };
        state.reset(true, now);
        self.window.rewind(&mut state.order);
        self.prove(now);
        self.try_next(now);
        #[cfg(test)]
        self.faulty_lane_up(lane);
    }

    /// The connection agreed on no heart-beats: then only an answered probe shows the broker
    /// alive, and one unanswered for `receipt_timeout` loses the lane.
    pub fn no_heartbeats(&mut self, lane: usize) {
        if let Some(state) = self.lanes.get_mut(lane) {
            state.heartbeats = false;
        }
    }

    /// A lane's connection ended or could not be made.
    pub fn lane_down(&mut self, lane: usize, why: LaneDown<'_>, now: Duration) {
        #[cfg(test)]
        self.faulty_lane_down(lane);
        self.blame(lane, why, now);
        let Some(state) = self.lanes.get_mut(lane) else { return };
        state.reset(false, now);
        self.try_next(now);
    }

    /// The next message to write on the lane; it counts as sent. `None`: there is nothing to send,
    /// or nothing may be sent (no session, lane down, a probe unanswered).
    pub fn next_send(&mut self, lane: usize, now: Duration) -> Option<(Receipt, &M)> {
        if self.session.is_none() && !fault!(self, SendWhileStandby) {
            return None;
        }
        if !self.may_send(lane) {
            return None;
        }
        let state = self.lanes.get_mut(lane)?;
        if state.answered == state.sent || state.order.first() == state.order.unsent() {
            // The broker owes an answer from now on, not from the last answer on.
            state.silent_since = now;
        }
        state.sent += 1;
        let (key, again) = self.window.mark_sent(&mut state.order, state.sent, now)?;
        self.sent += u64::from(!again);
        self.resent += u64::from(again);
        let held = self.window.get(key)?;
        Some((held.receipt, &held.payload))
    }

    /// Whether [`next_send`](Self::next_send) would give a message.
    #[must_use]
    pub fn has_unsent(&self, lane: usize) -> bool {
        self.session.is_some() && self.may_send(lane)
    }

    fn may_send(&self, lane: usize) -> bool {
        let Some(state) = self.lanes.get(lane) else { return false };
        let probing = state.probe.is_some() && !fault!(self, SendWhileProbing);
        state.up && !state.closing && !probing && state.order.unsent().is_some()
    }

    /// Whether the lane's present connection has messages without a receipt.
    #[must_use]
    pub fn has_unreceipted(&self, lane: usize) -> bool {
        let order = self.lanes.get(lane).map(|state| &state.order);
        order.is_some_and(|order| order.first().is_some() && order.first() != order.unsent())
    }

    /// A RECEIPT. `None`: no message with this number is outstanding on the lane's present
    /// connection; it is ignored.
    pub fn receipt(&mut self, lane: usize, receipt: Receipt, now: Duration) -> Option<Receipted> {
        let key = self.window.find(receipt)?;
        let held = self.window.get(key)?;
        if held.receipted.is_some() {
            return None;
        }
        if (held.lane != lane || held.sent_no == 0 || !self.lanes.get(lane)?.up)
            && !fault!(self, AcceptAnyReceipt)
        {
            return None;
        }
        let (lane, no, marks) = (held.lane, held.sent_no, held.marks);
        self.acquit(key, lane);
        let receipted = if marks && !fault!(self, ConfirmBeforeMark) {
            self.owe(key, now)
        } else {
            self.settle(key)
        };
        self.lanes.get_mut(lane)?.heard(no, now);
        self.note_overtaken(lane, now);
        self.note_held_trial(lane, now);
        self.try_next(now);
        #[cfg(test)]
        if fault!(self, CumulativeReceipt) {
            self.settle_sent_before(lane, no);
        }
        receipted
    }

    /// The message is done: it leaves the window, and its transaction may leave the ledger.
    /// One that came out of the table of what was refused stays until it is deleted there.
    pub(super) fn settle(&mut self, key: window::Key) -> Option<Receipted> {
        let held = self.window.get(key)?;
        let receipted = Receipted { commit_time: held.commit_time, last_sent: held.last_sent };
        if let Some(kept) = held.kept {
            self.owe_deletion(key, kept.id);
        } else {
            self.leave(key, Lsn::INVALID);
        }
        Some(receipted)
    }

    /// The message leaves the window; it is done once the stream has brought `fence`.
    pub(super) fn leave(&mut self, key: window::Key, fence: Lsn) {
        let Some(lane) = self.window.get(key).map(|held| held.lane) else { return };
        let Some(state) = self.lanes.get_mut(lane) else { return };
        let Some(held) = self.window.remove(&mut state.order, key) else { return };
        self.ledger.raise_fence(held.tx, fence);
        if let Some(record) = self.ledger.get_mut(held.tx) {
            record.unreceipted -= 1;
            #[cfg(test)]
            self.faulty_change_position(held.tx);
            if self.ledger.is_done(held.tx) {
                self.retire(held.tx);
            }
        }
    }

    /// The lane's probe was answered: the broker reads. It proves nothing of the messages before.
    pub fn probe_answered(&mut self, lane: usize, now: Duration) {
        let Some(state) = self.lanes.get_mut(lane) else { return };
        let Some(probe) = state.probe.take() else { return };
        state.heard(probe.no, now);
        state.released = now;
        self.note_overtaken(lane, now);
        #[cfg(test)]
        if fault!(self, ProbeIsReceipt) {
            self.settle_sent_before(lane, probe.no);
        }
    }

    /// What was sent before the latest answer and has no receipt is overtaken by it.
    fn note_overtaken(&mut self, lane: usize, now: Duration) {
        let state = &mut self.lanes[lane];
        self.window.overtake(&mut state.order, state.answered, now);
    }

    /// When the oldest unreceipted message of a lane is missing: no other was overtaken before it.
    /// While a probe is unanswered the broker is holding us, and nothing is missing; without
    /// heart-beats nobody can tell.
    fn missing_at(&self, lane: usize) -> Option<Duration> {
        let state = &self.lanes[lane];
        let held = state.order.first().and_then(|key| self.window.get(key))?;
        if (state.probe.is_some() && state.heartbeats) || fault!(self, MissingNeverNoticed) {
            return None;
        }
        Some(held.overtaken_since?.max(state.released) + self.settings.receipt_timeout)
    }

    /// All of a lane's messages that are missing, oldest first: each by itself, so that a broker which
    /// leaves many destinations without an answer is waited for once.
    fn missing(&mut self, lane: usize, now: Duration) -> Vec<Receipt> {
        let mut missing = Vec::new();
        let Some(state) = self.lanes.get(lane) else { return missing };
        let (released, timeout) = (state.released, self.settings.receipt_timeout);
        self.window.for_each_sent(&state.order, |held| {
            let since = held.overtaken_since.map(|at| at.max(released) + timeout);
            if since.is_some_and(|at| at <= now) {
                missing.push(held.receipt);
            }
        });
        missing
    }

    /// Time passed: probes silent lanes, closes those with a missing receipt (rule 7).
    pub fn tick(&mut self, now: Duration) {
        for lane in 0..self.lanes.len() {
            if self.lane_deadline(lane).is_some_and(|at| at <= now) {
                self.lane_overdue(lane, now);
            }
        }
        self.try_next(now);
    }

    fn lane_overdue(&mut self, lane: usize, now: Duration) {
        let is_missing = self.missing_at(lane).is_some_and(|at| at <= now);
        let missing = if is_missing { self.missing(lane, now) } else { Vec::new() };
        let state = &mut self.lanes[lane];
        if let Some(&oldest) = missing.first() {
            state.closing = true;
            state.missing = missing;
            self.actions.push_back(Action::Close { lane, why: CloseReason::Missing(oldest) });
        } else if state.probe.is_some() {
            state.closing = true;
            self.actions.push_back(Action::Close { lane, why: CloseReason::Silent });
        } else {
            state.sent += 1;
            state.probe = Some(Probe { no: state.sent, since: now });
            self.actions.push_back(Action::Probe { lane });
        }
    }

    /// When [`tick`](Self::tick) wants to be called next.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let lanes = (0..self.lanes.len()).filter_map(|lane| self.lane_deadline(lane));
        lanes.chain(self.trial_deadline()).min()
    }

    fn lane_deadline(&self, lane: usize) -> Option<Duration> {
        let state = &self.lanes[lane];
        if !state.up || state.closing || (!self.has_unreceipted(lane) && state.probe.is_none()) {
            return None;
        }
        let missing = self.missing_at(lane);
        let silent = match state.probe {
            Some(probe) => (!state.heartbeats || fault!(self, CloseOnSilence))
                .then(|| probe.since + self.settings.receipt_timeout),
            None => (state.answered < state.sent && !fault!(self, NoProbe))
                .then(|| state.silent_since + self.settings.probe_after),
        };
        [missing, silent].into_iter().flatten().min()
    }

    /// Whether the broker is holding this lane: it is connected and a probe is unanswered.
    #[must_use]
    pub fn blocked(&self, lane: usize) -> bool {
        self.lanes.get(lane).is_some_and(|state| state.up && state.probe.is_some())
    }
}
