//! Destinations that the broker refuses, and who is to blame (rules 5 and 6, as far as they go without
//! a table to park in).
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
use super::types::{Action, Addressed, Halt, Notice};
use super::window::Key;

/// Of one destination, the trial lane takes no more messages at once before others have their turn.
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
    /// So many of them came with words; a queue that is full may close without any, and goes on once
    /// it has room.
    pub(super) said: u32,
    /// The latest did.
    pub(super) in_words: bool,
    /// When its turn comes again.
    pub(super) next: Duration,
    /// So many of its messages may be unreceipted at once: the oldest alone until that has its
    /// receipt, then, with each receipt, one more.
    pub(super) width: usize,
    /// What the broker said last.
    pub(super) words: Box<str>,
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
}

impl<M: Addressed> Engine<M> {
    /// The lane for trials: one more than the settings say.
    #[must_use]
    pub fn trial_lane(&self) -> usize {
        self.lanes.len() - 1
    }

    /// Whether a lane has anything to do: the trial lane only while a destination is set aside.
    #[must_use]
    pub fn needs_lane(&self, lane: usize) -> bool {
        lane != self.trial_lane() || !self.troubles.by_destination.is_empty()
    }

    /// The destinations that are set aside.
    pub fn troubled(&self) -> impl Iterator<Item = Troubled<'_>> {
        self.troubles.by_destination.iter().map(|(destination, trouble)| Troubled {
            destination,
            attempts: trouble.attempts,
            waiting: trouble.waiting.len(),
            next: trouble.next,
            words: &trouble.words,
        })
    }

    /// A message enters the window: its lane's, unless its destination is set aside.
    pub(super) fn enqueue(&mut self, key: Key, lane: usize) {
        if self.set_aside(key) {
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
        trouble.waiting.insert(held.seq, key);
        true
    }

    /// A message has its receipt.
    pub(super) fn acquit(&mut self, key: Key, lane: usize) {
        if self.troubles.by_destination.is_empty() {
            return;
        }
        let Some(held) = self.window.get(key) else { return };
        let by_destination = &mut self.troubles.by_destination;
        let Some(trouble) = by_destination.get_mut(held.payload.destination()) else { return };
        if lane == self.lanes.len() - 1 {
            (trouble.attempts, trouble.said) = (0, 0);
            trouble.unproven = false;
            trouble.width = (trouble.width + 1).min(TURN);
        } else {
            trouble.out = trouble.out.saturating_sub(1);
        }
    }

    /// Gives the trial lane what is due. To be called after anything that may change it.
    pub(super) fn try_next(&mut self, now: Duration) {
        if self.troubles.by_destination.is_empty() {
            return;
        }
        let lane = self.trial_lane();
        if self.lanes[lane].order.first().is_none() {
            self.end_turn(now);
            if !self.lanes[lane].up || self.session.is_none() {
                return;
            }
            let all = self.troubles.by_destination.iter();
            let due = all.filter(|(_, trouble)| self.may_be_tried(trouble) && trouble.next <= now);
            let Some((name, _)) = due.min_by_key(|(_, trouble)| trouble.next) else { return };
            self.troubles.turn = Some(name.clone());
            self.troubles.taken = 0;
        }
        self.follow(lane);
    }

    /// The messages of the destination whose turn it is go to the trial lane: the oldest alone, then,
    /// once that has its receipt, the others.
    fn follow(&mut self, lane: usize) {
        let Some(name) = self.troubles.turn.as_deref() else { return };
        let Some(trouble) = self.troubles.by_destination.get_mut(name) else { return };
        let together = fault!(self, AllAreTriedTogether);
        while self.troubles.taken < TURN
            && (self.lanes[lane].order.len() < trouble.width || together)
            && let Some((_, key)) = trouble.waiting.pop_first()
        {
            self.troubles.taken += 1;
            self.window.append(&mut self.lanes[lane].order, key, lane);
        }
    }

    /// Nothing of the destination is on the trial lane any more: it is open again where nothing waits.
    fn end_turn(&mut self, now: Duration) {
        let Some(name) = self.troubles.turn.take() else { return };
        let Some(trouble) = self.troubles.by_destination.get_mut(&name) else { return };
        if trouble.width > 1 && trouble.waiting.is_empty() && trouble.out == 0 {
            self.troubles.by_destination.remove(&name);
            self.notice(Notice::Opened { destination: name.into() });
        } else if trouble.width > 1 {
            trouble.next = now; // behind those that wait already
        }
    }

    /// When a destination's turn comes.
    pub(super) fn trial_deadline(&self) -> Option<Duration> {
        let lane = self.lanes.last()?;
        if !lane.up || self.session.is_none() || lane.order.first().is_some() {
            return None;
        }
        let troubles = self.troubles.by_destination.values();
        troubles.filter(|trouble| self.may_be_tried(trouble)).map(|trouble| trouble.next).min()
    }

    /// Whether its oldest message is the oldest: nothing of it is written anywhere.
    fn may_be_tried(&self, trouble: &Trouble) -> bool {
        let all_in = trouble.out == 0 || fault!(self, WhatIsOutIsNotAwaited);
        all_in && !trouble.waiting.is_empty()
    }

    /// A connection was made, so the broker was not down: what it refused is refused.
    pub(super) fn prove(&mut self) {
        let pause_after = self.settings.pause_after;
        let mut halt = None;
        for trouble in self.troubles.by_destination.values_mut() {
            let proven = std::mem::take(&mut trouble.unproven);
            if proven && trouble.in_words && trouble.said >= pause_after {
                let head = trouble.waiting.first_key_value().map(|(_, key)| *key);
                halt = halt.or(head.map(|head| (head, trouble.said, trouble.words.clone())));
            }
        }
        if let Some((head, times, words)) = halt
            && let Some(held) = self.window.get(head)
            && !fault!(self, RefusalsNeverHalt)
        {
            let receipt = held.receipt;
            self.actions.push_back(Action::Halt(Halt { receipt, times, words: words.into() }));
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
