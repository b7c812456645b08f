//! Destinations that the broker refuses, and who is to blame (rules 5 and 6, as far as they go without
//! a table to park in).
//!
//! A broker refuses a destination, hardly ever a single message. So when something is refused, the
//! destinations that may be meant are set aside: their messages leave the lanes, wait here in the
//! order of their commits, and the lanes go on with everything else. One more lane, the last, is for
//! trials: it takes one such destination at a time, and of that its oldest message alone. What is
//! refused there is refused for its own sake. Once that message has its receipt, the others of the
//! destination follow through the same lane, and when none is left the destination is open again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Engine;
use super::types::{Action, Addressed, Halt, LaneDown, Notice, Receipt};
use super::window::Key;

/// Of one destination, the trial lane takes no more messages at once before others have their turn.
const TURN: usize = 256;
const WITHOUT_A_WORD: &str = "the broker closed the connection without a word";

/// A destination that is set aside.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    /// Its messages in no lane, by their place in the stream.
    waiting: BTreeMap<u64, Key>,
    /// Its messages that are written on a lane that is up still.
    out: usize,
    /// How often in a row its oldest message was refused.
    attempts: u32,
    /// The latest of them is forgiven should the broker turn out to be down.
    unproven: bool,
    /// The latest of them came with words; a queue that is full may close without any, and goes on
    /// once it has room.
    said: bool,
    /// When its turn comes again.
    next: Duration,
    /// So many of its messages may be unreceipted at once: the oldest alone until that has its
    /// receipt, then, with each receipt, one more.
    width: usize,
    /// What the broker said last.
    words: Box<str>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    by_destination: BTreeMap<Box<str>, Trouble>,
    /// Whose turn it is on the trial lane.
    turn: Option<Box<str>>,
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

/// Whom a lost lane speaks against.
struct Charge {
    destinations: BTreeSet<Box<str>>,
    /// It can only be this message.
    certain: bool,
    words: Box<str>,
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
    fn set_aside(&mut self, key: Key) -> bool {
        if self.troubles.by_destination.is_empty() {
            return false;
        }
        let Some(held) = self.window.get(key) else { return false };
        let destination = held.payload.destination();
        let Some(trouble) = self.troubles.by_destination.get_mut(destination) else { return false };
        trouble.waiting.insert(held.seq, key);
        true
    }

    /// A lane is lost or could not be made: what becomes of the messages that it had.
    pub(super) fn blame(&mut self, lane: usize, why: LaneDown<'_>, now: Duration) {
        if why == LaneDown::ConnectFailed && !self.lanes.iter().any(|state| state.up) {
            self.forgive();
        }
        let charge = if lane == self.trial_lane() { None } else { self.charge(lane, why) };
        let trial = (lane == self.trial_lane()).then(|| self.trial_verdict(why)).flatten();
        self.recall_sent(lane);
        if let Some(state) = self.lanes.get_mut(lane) {
            self.window.rewind(&mut state.order);
        }
        if let Some((certain, words)) = trial {
            self.judge_turn(certain, words, now);
        }
        if let Some(charge) = charge {
            self.accuse(charge, now);
        }
        self.sweep(lane == self.trial_lane());
    }

    /// A broker on its way down refuses nobody for their own sake.
    fn forgive(&mut self) {
        if fault!(self, DownIsAnAttempt) {
            return;
        }
        for trouble in self.troubles.by_destination.values_mut() {
            if std::mem::take(&mut trouble.unproven) {
                trouble.attempts = trouble.attempts.saturating_sub(1);
            }
        }
    }

    /// Who may be meant by the loss of a lane; nobody, where it may just be lost.
    fn charge(&mut self, lane: usize, why: LaneDown<'_>) -> Option<Charge> {
        let state = self.lanes.get_mut(lane)?;
        let (stuck, missing) = (state.stuck.take(), state.missing.take());
        let mut sent = Vec::new();
        self.window.for_each_sent(&state.order, |held| sent.push(held.receipt));
        let oldest = sent.first().copied()?;
        let (named, words) = match why {
            LaneDown::ConnectFailed => return None,
            LaneDown::Refused { receipt, words } => (receipt, words.into()),
            LaneDown::Lost if missing.is_some() => (missing, self.missing_words()),
            LaneDown::Lost => {
                // A broker may refuse a message by closing the connection without a word, and with it
                // what was on its way to others. Or it was just lost: that it was lost again with the
                // same message at the head tells the one from the other.
                if stuck != Some(oldest) || fault!(self, SilentCloseIsInnocent) {
                    self.lanes.get_mut(lane)?.stuck = Some(oldest);
                    return None;
                }
                (None, WITHOUT_A_WORD.into())
            }
        };
        let named = named.filter(|receipt| sent.contains(receipt));
        let certain = named.is_some() || sent.len() == 1;
        let suspects = match named {
            Some(receipt) => vec![receipt],
            None if fault!(self, OnlyTheOldestIsSuspect) => vec![oldest],
            None => sent,
        };
        #[cfg(test)]
        if fault!(self, RefusalIsReceipt) {
            self.settle_refused(lane, suspects[0]);
        }
        let of = |receipt: &Receipt| Some(Box::from(self.message(*receipt)?.destination()));
        let destinations = suspects.iter().filter_map(of).collect();
        // A lane that was lost with a lone message without a word is an accident as likely as not.
        let certain = certain && why != LaneDown::Lost || missing.is_some();
        Some(Charge { destinations, certain, words })
    }

    fn missing_words(&self) -> Box<str> {
        let timeout = self.settings.receipt_timeout;
        format!("no receipt within {timeout:?} although something sent later was answered").into()
    }

    /// What the loss of the trial lane says of the destination whose turn it is: whether that was an
    /// attempt of its oldest message, and the words.
    fn trial_verdict(&mut self, why: LaneDown<'_>) -> Option<(bool, Option<Box<str>>)> {
        let lane = self.trial_lane();
        let state = self.lanes.get_mut(lane)?;
        let missing = state.missing.take();
        let mut sent = Vec::new();
        self.window.for_each_sent(&state.order, |held| sent.push(held.receipt));
        let oldest = sent.first().copied()?;
        let (named, words): (_, Option<Box<str>>) = match why {
            LaneDown::ConnectFailed => return None,
            LaneDown::Refused { receipt, words } => (receipt, Some(words.into())),
            LaneDown::Lost if missing.is_some() => (missing, Some(self.missing_words())),
            LaneDown::Lost => (None, None),
        };
        #[cfg(test)]
        if fault!(self, RefusalIsReceipt) {
            self.settle_refused(lane, oldest);
        }
        Some((sent.len() == 1 || named == Some(oldest), words))
    }

    /// The lane's written messages are written no more, as far as their destinations are set aside.
    fn recall_sent(&mut self, lane: usize) {
        if self.troubles.by_destination.is_empty() || lane == self.trial_lane() {
            return;
        }
        let Some(state) = self.lanes.get(lane) else { return };
        let by_destination = &mut self.troubles.by_destination;
        self.window.for_each_sent(&state.order, |held| {
            if let Some(trouble) = by_destination.get_mut(held.payload.destination()) {
                trouble.out -= 1;
            }
        });
    }

    /// The destination whose turn it was is refused, or has lost its lane.
    fn judge_turn(&mut self, attempt: bool, words: Option<Box<str>>, now: Duration) {
        let first_wait = self.settings.first_wait;
        let Some(name) = self.troubles.turn.as_deref() else { return };
        let Some(trouble) = self.troubles.by_destination.get_mut(name) else { return };
        trouble.width = 1;
        trouble.said = words.is_some();
        // Where others were on their way with it, it may have been any of them: the oldest goes alone.
        trouble.next = now + first_wait;
        trouble.words = words.unwrap_or_else(|| WITHOUT_A_WORD.into());
        if attempt {
            trouble.attempts += 1;
            trouble.unproven = true;
            let name = name.to_owned();
            self.notice_refused(&name);
        }
    }

    /// These destinations may be refused: their messages leave the lanes.
    fn accuse(&mut self, charge: Charge, now: Duration) {
        let Charge { destinations, certain, words } = charge;
        let mut accused = 0;
        for destination in destinations {
            let troubles = &mut self.troubles.by_destination;
            if troubles.contains_key(&destination) {
                continue;
            }
            accused += 1;
            let mut trouble =
                Trouble { next: now, width: 1, words: words.clone(), ..Trouble::default() };
            if certain {
                trouble.attempts = 1;
                trouble.unproven = true;
                trouble.said = true;
                trouble.next = now + self.settings.first_wait;
            }
            troubles.insert(destination.clone(), trouble);
            self.count_out(&destination);
            if certain {
                self.notice_refused(&destination);
            }
        }
        if !certain && accused > 0 {
            self.notice(Notice::Suspected { destinations: accused, words: words.into() });
        }
    }

    /// What of the destination is written on a lane is waited for.
    fn count_out(&mut self, destination: &str) {
        let mut out = 0;
        for state in &self.lanes {
            self.window.for_each_sent(&state.order, |held| {
                out += usize::from(held.payload.destination() == destination);
            });
        }
        if let Some(trouble) = self.troubles.by_destination.get_mut(destination) {
            trouble.out = out;
        }
    }

    /// What is in a lane and not written on it leaves it where its destination is set aside.
    fn sweep(&mut self, trial: bool) {
        if self.troubles.by_destination.is_empty() {
            return;
        }
        let trial_lane = self.trial_lane();
        for lane in (0..self.lanes.len()).filter(|&lane| trial || lane != trial_lane) {
            let order = self.lanes[lane].order;
            for key in self.window.unsent_keys(&order) {
                if self.set_aside(key) {
                    self.window.unlink(&mut self.lanes[lane].order, key);
                }
            }
        }
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
            trouble.attempts = 0;
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
            if proven && trouble.said && trouble.attempts >= pause_after {
                let head = trouble.waiting.first_key_value().map(|(_, key)| *key);
                halt = halt.or(head.map(|head| (head, trouble.attempts, trouble.words.clone())));
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

    fn notice(&mut self, notice: Notice) {
        self.actions.push_back(Action::Notice(notice));
    }

    fn notice_refused(&mut self, destination: &str) {
        let Some(trouble) = self.troubles.by_destination.get(destination) else { return };
        let (attempts, words) = (trouble.attempts, trouble.words.to_string());
        let destination = destination.to_owned();
        self.notice(Notice::Refused { destination, attempts, words });
    }
}
