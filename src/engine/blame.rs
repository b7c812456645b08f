//! Who is meant when the broker refuses something (rule 6).

use std::collections::BTreeSet;
use std::time::Duration;

use super::Engine;
use super::parking::Parked;
use super::trouble::Trouble;
use super::types::{Addressed, LaneDown, Notice, Receipt};

const WITHOUT_A_WORD: &str = "the broker closed the connection without a word";

const HELD: &str = "the broker takes it and does not answer, while it answers others";

/// Whom a lost lane speaks against.
struct Charge {
    destinations: BTreeSet<Box<str>>,
    /// It can only be this message.
    certain: bool,
    words: Box<str>,
}

impl<M: Addressed> Engine<M> {
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
        let mut forgiven = Vec::new();
        for (name, trouble) in &mut self.troubles.by_destination {
            if std::mem::take(&mut trouble.unproven) {
                trouble.attempts = trouble.attempts.saturating_sub(1);
                forgiven.push(name.clone());
            }
        }
        for name in forgiven {
            self.note_forgiven(&name);
        }
    }

    /// Who may be meant by the loss of a lane; nobody, where it may just be lost.
    fn charge(&mut self, lane: usize, why: LaneDown<'_>) -> Option<Charge> {
        // That no connection could be made in between, to another host perhaps, says nothing.
        if why == LaneDown::ConnectFailed {
            return None;
        }
        let state = self.lanes.get_mut(lane)?;
        let (stuck, mut named) = (state.stuck.take(), std::mem::take(&mut state.missing));
        let mut sent = Vec::new();
        self.window.for_each_sent(&state.order, |held| sent.push(held.receipt));
        let oldest = sent.first().copied()?;
        // What was missing may have been answered while the lane was closed.
        named.retain(|receipt| sent.contains(receipt));
        let missing = why == LaneDown::Lost && !named.is_empty();
        let words = match why {
            LaneDown::ConnectFailed => return None,
            LaneDown::Refused { receipt, words } => {
                named = receipt.filter(|receipt| sent.contains(receipt)).into_iter().collect();
                words.into()
            }
            LaneDown::Lost if missing => self.missing_words(),
            LaneDown::Lost => {
                // A broker may refuse a message by closing the connection without a word, and with it
                // what was on its way to others. Or it was just lost: that it was lost again with the
                // same message at the head tells the one from the other.
                if stuck != Some(oldest) || fault!(self, SilentCloseIsInnocent) {
                    self.lanes.get_mut(lane)?.stuck = Some(oldest);
                    return None;
                }
                WITHOUT_A_WORD.into()
            }
        };
        // A lane that was lost with a lone message without a word is an accident as likely as not.
        let alone = sent.len() == 1 && why != LaneDown::Lost;
        let certain = !named.is_empty() || alone;
        let suspects = match named {
            named if !named.is_empty() => named,
            _ if fault!(self, OnlyTheOldestIsSuspect) => vec![oldest],
            _ => sent,
        };
        #[cfg(test)]
        if fault!(self, RefusalIsReceipt) {
            self.settle_refused(lane, suspects[0]);
        }
        let of = |receipt: &Receipt| Some(Box::from(self.message(*receipt)?.destination()));
        let destinations = suspects.iter().filter_map(of).collect();
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
        let held = std::mem::take(&mut state.held);
        let missing = std::mem::take(&mut state.missing).first().copied();
        let mut sent = Vec::new();
        self.window.for_each_sent(&state.order, |held| sent.push(held.receipt));
        let oldest = sent.first().copied()?;
        let (named, words): (_, Option<Box<str>>) = match why {
            LaneDown::ConnectFailed => return None,
            LaneDown::Refused { receipt, words } => (receipt, Some(words.into())),
            LaneDown::Lost if missing.is_some() => (missing, Some(self.missing_words())),
            // Nothing was refused.
            LaneDown::Lost if held => return Some((false, Some(HELD.into()))),
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
        let retry = self.settings.retry;
        let Some(name) = self.troubles.turn.clone() else { return };
        let Some(trouble) = self.troubles.by_destination.get_mut(&name) else { return };
        trouble.width = 1;
        trouble.words = words.unwrap_or_else(|| WITHOUT_A_WORD.into());
        // An attempt of a parked one's oldest row was counted before it was sent, and when it is tried
        // again was said then.
        let counted = trouble.parked.as_ref().is_some_and(Parked::counts_first);
        // Where others were on their way with it, it may have been any of them: the oldest goes alone.
        if !counted {
            let parked = trouble.parked.is_some() && attempt;
            trouble.next = now + if parked { retry.wait } else { retry.first_wait };
        }
        if attempt {
            trouble.attempts += u32::from(!counted);
            trouble.unproven = true;
            self.notice_refused(&name);
        }
        let row = self.oldest_row_out();
        self.unload(&name, false);
        if let (true, Some(row)) = (attempt, row) {
            self.note_refusal(&name, row);
        }
    }

    /// The row whose message is the oldest on the trial lane.
    fn oldest_row_out(&self) -> Option<i64> {
        let oldest = self.lanes.last()?.order.first()?;
        Some(self.window.get(oldest)?.kept?.id)
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
                trouble.next = now + self.settings.retry.first_wait;
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
    pub(super) fn count_out(&mut self, destination: &str) {
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
    pub(super) fn sweep(&mut self, trial: bool) {
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
}
