//! The judge's eye on refusals: which destinations are set aside, and what is tried of them.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::engine::{Halt, LaneDown, Notice, Receipt};

use super::judge::Judge;
use super::rule::{Rule, Verdict};
use super::{FIRST_WAIT, NAMES, PAUSE_AFTER};

/// A destination that is set aside.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    attempts: u32,
    unproven: bool,
    next: Duration,
    width: usize,
    /// So often the broker has said why.
    said: u32,
    /// It has, the latest time.
    in_words: bool,
}

impl Judge {
    /// The lane for trials.
    pub(super) fn trial(&self) -> usize {
        self.lanes.len() - 1
    }

    /// Whether the destination of a message is set aside.
    pub(super) fn is_set_aside(&self, message: usize) -> bool {
        self.troubled.contains_key(&self.messages[message].destination)
    }

    /// A lane that had these messages unreceipted is lost.
    pub(super) fn blame(&mut self, lane: usize, sent: &[usize], why: LaneDown<'_>, now: Duration) {
        let facts = &mut self.lanes[lane];
        let missing = facts.missing.take();
        let stuck = if why == LaneDown::ConnectFailed { None } else { facts.stuck.take() };
        if why == LaneDown::ConnectFailed && self.lanes.iter().all(|lane| !lane.up) {
            for trouble in self.troubled.values_mut().filter(|trouble| trouble.unproven) {
                trouble.unproven = false;
                trouble.attempts -= 1;
                trouble.said -= u32::from(trouble.in_words);
            }
        }
        let Some(oldest) = sent.iter().min().copied() else { return };
        let (named, words) = match why {
            LaneDown::ConnectFailed => return,
            LaneDown::Lost if missing.is_some() => (missing, None),
            LaneDown::Lost => (None, None),
            LaneDown::Refused { receipt, words } => {
                let is = |message: &usize| {
                    receipt.map(|Receipt(number)| number) == self.messages[*message].number
                };
                (sent.iter().copied().find(is), Some(words.to_owned()))
            }
        };
        if lane == self.trial() {
            let destination = self.messages[oldest].destination;
            let said = why != LaneDown::Lost || missing.is_some();
            let attempt = sent.len() == 1 || named == Some(oldest);
            self.refused(destination, attempt, (said, words), now);
            return;
        }
        if why == LaneDown::Lost && missing.is_none() && stuck != Some(oldest) {
            self.lanes[lane].stuck = Some(oldest);
            return;
        }
        let certain = match why {
            LaneDown::Lost => missing.is_some(),
            _ => named.is_some() || sent.len() == 1,
        };
        let suspects = named.map_or_else(|| sent.to_vec(), |message| vec![message]);
        self.accuse(&suspects, certain, words, now);
    }

    fn refused(
        &mut self,
        of: usize,
        attempt: bool,
        (why_said, words): (bool, Option<String>),
        now: Duration,
    ) {
        let Some(trouble) = self.troubled.get_mut(&of) else { return };
        trouble.width = 1;
        trouble.next = now + FIRST_WAIT;
        if attempt {
            trouble.attempts += 1;
            trouble.in_words = why_said;
            trouble.said += u32::from(why_said);
            trouble.unproven = true;
            let attempts = trouble.attempts;
            self.expect_refused(of, attempts, words);
        }
    }

    fn expect_refused(&mut self, of: usize, attempts: u32, words: Option<String>) {
        let words = words.unwrap_or_default();
        let destination = NAMES[of].to_owned();
        self.notices.push_back(Notice::Refused { destination, attempts, words });
    }

    fn accuse(&mut self, suspects: &[usize], certain: bool, words: Option<String>, now: Duration) {
        let accused: BTreeSet<usize> =
            suspects.iter().map(|&message| self.messages[message].destination).collect();
        let new: Vec<_> =
            accused.into_iter().filter(|of| !self.troubled.contains_key(of)).collect();
        for &of in &new {
            let wait = if certain { FIRST_WAIT } else { Duration::ZERO };
            let attempts = u32::from(certain);
            let facts = Facts {
                attempts,
                unproven: certain,
                next: now + wait,
                width: 1,
                said: u32::from(certain),
                in_words: certain,
            };
            self.troubled.insert(of, facts);
            if certain {
                self.expect_refused(of, 1, words.clone());
            }
        }
        if !certain && !new.is_empty() {
            let words = words.unwrap_or_default();
            self.notices.push_back(Notice::Suspected { destinations: new.len(), words });
        }
    }

    /// A connection was made: whatever was refused before was refused by a broker that is there.
    pub(super) fn proven(&mut self) {
        self.troubled.values_mut().for_each(|trouble| trouble.unproven = false);
    }

    /// A message has its receipt on the trial lane.
    pub(super) fn taken_on_trial(&mut self, message: usize) {
        let of = self.messages[message].destination;
        let left = self.messages.iter().any(|m| m.destination == of && !m.receipted);
        let Some(trouble) = self.troubled.get_mut(&of) else { return };
        trouble.attempts = 0;
        trouble.said = 0;
        trouble.unproven = false;
        trouble.width += 1;
        if !left {
            self.troubled.remove(&of);
            self.notices.push_back(Notice::Opened { destination: NAMES[of].to_owned() });
        }
    }

    /// The engine tells people something: it is what happened.
    pub(super) fn noticed(&mut self, said: &Notice) -> Verdict {
        let expected = self.notices.pop_front();
        // The engine has words of its own for what the broker did without any.
        let same = match (expected.clone(), said.clone()) {
            (
                Some(Notice::Refused { destination, attempts, words }),
                Notice::Refused { destination: of, attempts: times, words: said },
            ) => destination == of && attempts == times && (words == said || words.is_empty()),
            (
                Some(Notice::Suspected { destinations, words }),
                Notice::Suspected { destinations: many, words: said },
            ) => destinations == many && (words == said || words.is_empty()),
            (expected, said) => expected == Some(said),
        };
        self.hold(Rule::Refusal, same, || format!("{said:?} is told, it is {expected:?}"))
    }

    /// All that happened was told.
    pub(super) fn all_noticed(&mut self) -> Verdict {
        let untold = self.notices.pop_front();
        self.hold(Rule::Refusal, untold.is_none(), || format!("{untold:?} is not told"))
    }

    /// A message goes out on the trial lane.
    pub(super) fn tried(&self, message: usize, now: Duration) -> Verdict {
        let of = self.messages[message].destination;
        let on_trial = &self.lanes[self.trial()].outstanding;
        let Some(trouble) = self.troubled.get(&of) else {
            return self.hold(Rule::Refusal, false, || {
                format!("message {message} is tried, its destination is not refused")
            });
        };
        let alone = on_trial.iter().all(|o| self.messages[o.message].destination == of);
        let room = on_trial.len() < trouble.width;
        self.hold(Rule::Refusal, alone && room, || {
            format!("message {message} is tried beside {on_trial:?}: {trouble:?}")
        })?;
        self.hold(Rule::Refusal, !on_trial.is_empty() || trouble.next <= now, || {
            format!("message {message} is tried too early: {trouble:?}")
        })?;
        let elsewhere = self.lanes[..self.trial()]
            .iter()
            .flat_map(|lane| &lane.outstanding)
            .find(|o| self.messages[o.message].destination == of);
        self.hold(Rule::Refusal, elsewhere.is_none(), || {
            format!("message {message} is tried while {elsewhere:?} has no receipt")
        })?;
        let is_due = |(index, other): &(usize, &super::judge::Message)| {
            other.destination == of
                && !other.receipted
                && on_trial.iter().all(|o| o.message != *index)
        };
        let due = self.messages.iter().enumerate().find(is_due).map(|(index, _)| index);
        self.hold(Rule::Order, due == Some(message), || {
            format!("message {due:?} is to be tried, {message} is sent")
        })
    }

    /// The engine halts: this message was refused so often in a row.
    pub(super) fn halt(&self, halt: &Halt) -> Verdict {
        let its = |message: &super::judge::Message| message.number == Some(halt.receipt.0);
        let of = self.messages.iter().find(|message| its(message)).map(|m| m.destination);
        let oldest = self.messages.iter().find(|m| Some(m.destination) == of && !m.receipted);
        let trouble = of.and_then(|of| self.troubled.get(&of));
        let said = trouble.is_some_and(|t| t.in_words && t.said == halt.times);
        let enough = said && halt.times >= PAUSE_AFTER;
        self.hold(Rule::Halt, enough && oldest.is_some_and(its), || {
            format!("{halt:?} after too few refusals: {:?}", self.troubled)
        })
    }
}
