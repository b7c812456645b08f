//! Destinations that the broker refuses (rules 5 and 6); those that stay so are parked, see `parking`.
//!
//! A broker refuses a destination, hardly ever a single message. So when something is refused, the
//! destinations that may be meant are set aside: their messages leave the lanes, wait here in the
//! order of their commits, and the lanes go on with everything else. One more lane, the last, is for
//! trials: it takes one such destination at a time, and of that its oldest message alone. What is
//! refused there is refused for its own sake. Once that message has its receipt, the others of the
//! destination follow through the same lane, and when none is left the destination is open again.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Engine;
use super::lane::Lane;
use super::parking::{Parked, State};
use super::types::{Action, Addressed, CloseReason, Notice};
use super::window::Key;

/// Of one destination, the trial lane takes no more messages before others have their turn; where the
/// window is small, fewer.
const TURN: usize = 256;

/// A destination that is set aside.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    /// Its messages in no lane, by their place in the stream.
    pub(super) waiting: BTreeMap<u64, Key>,
    /// Its messages that are written on a lane that is up still.
    pub(super) out: usize,
    /// How often in a row its oldest message was refused.
    pub(super) attempts: u32,
    /// The latest of them is forgiven should the broker turn out to be down.
    pub(super) unproven: bool,
    /// When its turn comes again.
    pub(super) next: Duration,
    /// So many of its messages may be unreceipted at once: the oldest alone until that has its
    /// receipt, then, with each receipt, one more.
    pub(super) width: usize,
    /// What the broker said last.
    pub(super) words: Box<str>,
    /// Its messages are kept in a table.
    pub(super) parked: Option<Parked>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    pub(super) by_destination: BTreeMap<Box<str>, Trouble>,
    /// Whose turn it is on the trial lane.
    pub(super) turn: Option<Box<str>>,
    /// Messages that went out in this turn.
    taken: usize,
}

impl Troubles {
    /// The oldest message of the destination whose turn it is goes out.
    pub(super) fn begin_turn(&mut self) {
        self.taken = 1;
    }
}

/// A destination that is set aside, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Troubled<'a> {
    /// Its name.
    pub destination: &'a str,
    /// How often in a row its oldest message was refused; 0: it is only suspected.
    pub attempts: u32,
    /// Its messages that wait.
    pub waiting: usize,
    /// When it is tried again; in the past: as soon as the trial lane is free.
    pub next: Duration,
    /// The broker's words.
    pub words: &'a str,
    /// Its rows that are to be sent again, as far as known; none: it is not parked.
    pub rows: Option<u64>,
    /// It is condemned.
    pub condemned: bool,
}

impl<M: Addressed> Engine<M> {
    /// The lane for trials: one more than the settings say.
    #[must_use]
    pub fn trial_lane(&self) -> usize {
        self.lanes.len() - 1
    }

    /// Whether a lane has anything to do: the trial lane only while a destination is to be tried.
    #[must_use]
    pub fn needs_lane(&self, lane: usize, now: Duration) -> bool {
        if lane != self.trial_lane() || self.lanes[lane].order.first().is_some() {
            return true;
        }
        let mut all = self.troubles.by_destination.values();
        all.any(|trouble| self.may_be_tried(trouble) && trouble.next <= now)
    }

    /// The destinations that are set aside.
    pub fn troubled(&self) -> impl Iterator<Item = Troubled<'_>> {
        self.troubles.by_destination.iter().map(|(destination, trouble)| Troubled {
            destination,
            attempts: trouble.attempts,
            waiting: trouble.waiting.len(),
            next: trouble.next,
            words: &trouble.words,
            rows: trouble.parked.as_ref().map(|parked| parked.rows),
            condemned: trouble.parked.as_ref().is_some_and(|p| p.state == State::Condemned),
        })
    }

    /// A message enters the window: its lane's, unless its destination is set aside or it can't be sent.
    pub(super) fn enqueue(&mut self, key: Key) {
        let Some(held) = self.window.get(key) else { return };
        let lane = held.home;
        if held.unfit {
            self.parking.unfit.push_back(held.receipt);
            return;
        }
        if !fault!(self, ParkedIsOpen) && self.set_aside(key) {
            return;
        }
        if let Some(state) = self.lanes.get_mut(lane) {
            self.window.append(&mut state.order, key, lane);
        }
    }

    /// Lets the message wait where its destination is set aside.
    pub(super) fn set_aside(&mut self, key: Key) -> bool {
        if self.troubles.by_destination.is_empty() {
            return false;
        }
        let Some(held) = self.window.get(key) else { return false };
        let destination = held.payload.destination();
        let Some(trouble) = self.troubles.by_destination.get_mut(destination) else { return false };
        match (held.kept, &mut trouble.parked) {
            (Some(kept), Some(parked)) => parked.loaded.insert(kept.id, key),
            _ => trouble.waiting.insert(held.seq, key),
        };
        true
    }

    /// A message has its receipt.
    pub(super) fn acquit(&mut self, key: Key, lane: usize) {
        if self.troubles.by_destination.is_empty() {
            return;
        }
        let Some(held) = self.window.get(key) else { return };
        let kept = held.kept;
        let name: Box<str> = held.payload.destination().into();
        let Some(trouble) = self.troubles.by_destination.get_mut(&name) else { return };
        if lane == self.lanes.len() - 1 {
            trouble.attempts = 0;
            trouble.unproven = false;
            trouble.width = (trouble.width + 1).min(TURN);
            if let Some(kept) = kept {
                self.row_taken(&name, kept.id);
            }
        } else {
            trouble.out = trouble.out.saturating_sub(1);
            self.open_if_drained(&name);
        }
    }

    /// A lane has a receipt. Where the broker takes what others send, and neither refuses nor answers
    /// what is tried (a queue with flow control of its own), other destinations have their turn after
    /// `receipt_timeout`. Under an alarm it answers nobody: receipts that come in as it begins or
    /// ends are not enough.
    pub(super) fn note_held_trial(&mut self, lane: usize, now: Duration) {
        let trial = self.trial_lane();
        let timeout = self.settings.receipt_timeout;
        let hangs = |state: &Lane| {
            let probe = state.probe.filter(|_| state.up && !state.closing && state.heartbeats);
            probe.is_some_and(|probe| probe.since + timeout <= now)
        };
        if lane == trial || !(hangs(&self.lanes[trial]) && self.others_are_due(now)) {
            return;
        }
        let since = *self.lanes[trial].passed_over.get_or_insert(now);
        if now >= since + self.settings.probe_after || fault!(self, HeldTrialIsClosedAtOnce) {
            self.lanes[trial].closing = true;
            self.lanes[trial].held = true;
            self.actions.push_back(Action::Close { lane: trial, why: CloseReason::Held });
        }
    }

    /// Whether a destination is to be tried whose turn it is not.
    fn others_are_due(&self, now: Duration) -> bool {
        let mut all = self.troubles.by_destination.iter();
        all.any(|(name, trouble)| {
            let other = self.troubles.turn.as_ref() != Some(name);
            other && self.may_be_tried(trouble) && trouble.next <= now
        })
    }

    /// Gives the trial lane what is due. To be called after anything that may change it.
    pub(super) fn try_next(&mut self, now: Duration) {
        if self.troubles.by_destination.is_empty() {
            return;
        }
        let lane = self.trial_lane();
        if self.lanes[lane].order.first().is_none() {
            if self.parking.attempting {
                return;
            }
            self.end_turn(now);
            if !self.lanes[lane].up || self.session.is_none() {
                return;
            }
            let all = self.troubles.by_destination.iter();
            let due = all.filter(|(_, trouble)| {
                let time = trouble.next <= now || fault!(self, PauseIgnored);
                self.may_be_tried(trouble) && time
            });
            let Some((name, _)) = due.min_by_key(|(_, trouble)| trouble.next) else { return };
            let name = name.clone();
            let trouble = self.troubles.by_destination.get(&name);
            let parked = trouble.and_then(|trouble| trouble.parked.as_ref());
            self.parking.attempting = parked.is_some_and(Parked::needs_attempt);
            self.troubles.turn = Some(name);
            self.troubles.taken = 0;
            if self.parking.attempting {
                return; // its row is asked for
            }
        }
        self.follow(lane);
    }

    /// The messages of the destination whose turn it is go to the trial lane: the oldest alone, then,
    /// once that has its receipt, the others.
    fn follow(&mut self, lane: usize) {
        let Some(name) = self.troubles.turn.as_deref() else { return };
        let Some(trouble) = self.troubles.by_destination.get_mut(name) else { return };
        let together = fault!(self, AllAreTriedTogether);
        let turn = TURN.min(self.settings.messages / 4).max(1);
        while self.troubles.taken < turn
            && (self.lanes[lane].order.len() < trouble.width || together)
            && let Some(key) = trouble.next_to_try()
        {
            self.troubles.taken += 1;
            self.window.append(&mut self.lanes[lane].order, key, lane);
        }
    }

    /// Nothing of the destination is on the trial lane any more: it is open again where nothing waits.
    fn end_turn(&mut self, now: Duration) {
        let Some(name) = self.troubles.turn.take() else { return };
        let Some(trouble) = self.troubles.by_destination.get_mut(&name) else { return };
        if trouble.width <= 1 {
            return;
        }
        if trouble.parked.is_some() {
            if trouble.parked.as_ref().is_some_and(|parked| !parked.counts_first()) {
                trouble.next = now; // behind those that wait already
            }
            self.open_if_drained(&name);
        } else if trouble.out == 0 {
            // What it took in this turn it has taken: the lanes can go on with the rest.
            self.reopen(&name);
        } else {
            trouble.next = now;
        }
    }

    /// When a destination's turn comes.
    pub(super) fn trial_deadline(&self) -> Option<Duration> {
        let lane = self.lanes.last()?;
        let busy = lane.order.first().is_some() || self.parking.attempting;
        if !lane.up || self.session.is_none() || busy {
            return None;
        }
        self.next_trial()
    }

    /// When a destination is to be tried, whether or not its lane is up.
    #[must_use]
    pub fn next_trial(&self) -> Option<Duration> {
        let troubles = self.troubles.by_destination.values();
        troubles.filter(|trouble| self.may_be_tried(trouble)).map(|trouble| trouble.next).min()
    }

    /// Whether its oldest message is the oldest: nothing of it is written anywhere.
    fn may_be_tried(&self, trouble: &Trouble) -> bool {
        let all_in = trouble.out == 0 || fault!(self, WhatIsOutIsNotAwaited);
        all_in
            && match &trouble.parked {
                Some(parked) => parked.may_be_tried(),
                None => !trouble.waiting.is_empty(),
            }
    }

    /// A connection was made, so the broker was not down: what it refused is refused.
    pub(super) fn prove(&mut self, now: Duration) {
        let mut proven = Vec::new();
        for (name, trouble) in &mut self.troubles.by_destination {
            if std::mem::take(&mut trouble.unproven) {
                proven.push(name.clone());
            }
        }
        for name in proven {
            self.exhaust(&name, now);
        }
    }

    pub(super) fn notice(&mut self, notice: Notice) {
        self.actions.push_back(Action::Notice(notice));
    }

    pub(super) fn notice_refused(&mut self, destination: &str) {
        let Some(trouble) = self.troubles.by_destination.get(destination) else { return };
        let (attempts, words) = (trouble.attempts, trouble.words.to_string());
        let destination = destination.to_owned();
        self.notice(Notice::Refused { destination, attempts, words });
    }
}

impl Trouble {
    /// The oldest of its messages that may be sent.
    fn next_to_try(&mut self) -> Option<Key> {
        match &mut self.parked {
            Some(parked) => parked.loaded.pop_first().map(|(_, key)| key),
            None => self.waiting.pop_first().map(|(_, key)| key),
        }
    }
}
