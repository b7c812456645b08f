//! The judge's eye on refusals: which destinations are set aside, and what is tried of them.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::engine::{Halt, LaneDown, Notice, Receipt};

use super::judge::Judge;
use super::postgres::Postgres;
use super::rule::{Rule, Verdict};
use super::{FIRST_WAIT, MAX_ATTEMPTS, NAMES, PAUSE, PAUSE_AFTER, WAIT};

/// How far a destination is whose messages are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parked {
    Waiting,
    Draining,
    Condemned,
}

/// A destination that is set aside.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts {
    pub(super) attempts: u32,
    pub(super) unproven: bool,
    pub(super) next: Duration,
    pub(super) width: usize,
    /// It is parked.
    pub(super) parked: Option<Parked>,
    /// No row of it was found.
    pub(super) emptied: bool,
    /// Its rows are dead.
    pub(super) made_dead: bool,
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
        let mut missing = std::mem::take(&mut facts.missing);
        let given_up = std::mem::take(&mut facts.given_up) && why == LaneDown::Lost;
        missing.retain(|message| sent.contains(message));
        if why != LaneDown::Lost {
            missing.clear();
        }
        let stuck = if why == LaneDown::ConnectFailed { None } else { facts.stuck.take() };
        if why == LaneDown::ConnectFailed && self.lanes.iter().all(|lane| !lane.up) {
            for trouble in self.troubled.values_mut().filter(|trouble| trouble.unproven) {
                trouble.unproven = false;
                trouble.attempts = trouble.attempts.saturating_sub(1);
            }
        }
        let Some(oldest) = sent.first().copied() else { return };
        let (named, words) = match why {
            LaneDown::ConnectFailed => return,
            LaneDown::Lost => (missing.first().copied(), None),
            LaneDown::Refused { receipt, words } => {
                let is = |message: &usize| {
                    receipt.map(|Receipt(number)| number) == self.messages[*message].number
                };
                (sent.iter().copied().find(is), Some(words.to_owned()))
            }
        };
        if lane == self.trial() {
            let destination = self.messages[oldest].destination;
            let attempt = !given_up && (sent.len() == 1 || named == Some(oldest));
            self.refused(destination, attempt, words, now);
            return;
        }
        if why == LaneDown::Lost && missing.is_empty() && stuck != Some(oldest) {
            self.lanes[lane].stuck = Some(oldest);
            return;
        }
        let certain = match why {
            LaneDown::Lost => !missing.is_empty(),
            _ => named.is_some() || sent.len() == 1,
        };
        // Each that is missing is so by itself.
        let suspects = match named {
            Some(_) if !missing.is_empty() => missing,
            Some(message) => vec![message],
            None => sent.to_vec(),
        };
        self.accuse(&suspects, certain, words, now);
    }

    fn refused(&mut self, of: usize, attempt: bool, words: Option<String>, now: Duration) {
        let Some(trouble) = self.troubled.get_mut(&of) else { return };
        trouble.width = 1;
        let counted = trouble.parked.is_some_and(|state| state != Parked::Draining);
        if !counted {
            let wait = if trouble.parked.is_some() && attempt { WAIT } else { FIRST_WAIT };
            trouble.next = now + wait;
        }
        if trouble.parked == Some(Parked::Draining) {
            trouble.parked = Some(Parked::Waiting);
        }
        if attempt {
            trouble.attempts += u32::from(!counted);
            trouble.unproven = true;
            let attempts = trouble.attempts;
            self.expect_refused(of, attempts, words);
        }
        self.unload(Some(of));
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
                ..Facts::default()
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
    /// Those that were refused too often are parked, or condemned.
    pub(super) fn proven(&mut self, now: Duration) {
        for (&of, trouble) in &mut self.troubled {
            if !std::mem::take(&mut trouble.unproven) {
                continue;
            }
            let (attempts, destination) = (trouble.attempts, NAMES[of].to_owned());
            let words = String::new();
            if trouble.parked.is_none() && attempts >= PAUSE_AFTER {
                trouble.parked = Some(Parked::Waiting);
                trouble.next = now + PAUSE;
                let (destination, words) = (destination.clone(), words.clone());
                self.notices.push_back(Notice::Parked { destination, attempts, words });
            }
            let condemned = trouble.parked == Some(Parked::Condemned);
            if attempts >= MAX_ATTEMPTS && !condemned && !self.halts {
                trouble.parked = Some(Parked::Condemned);
                trouble.next = now + PAUSE;
                trouble.made_dead = false;
                self.notices.push_back(Notice::Condemned { destination, attempts, words });
            }
        }
    }

    /// A message has its receipt on the trial lane.
    pub(super) fn taken_on_trial(&mut self, message: usize) {
        let of = self.messages[message].destination;
        let Some(trouble) = self.troubled.get_mut(&of) else { return };
        trouble.attempts = 0;
        trouble.unproven = false;
        trouble.width += 1;
        if trouble.parked.is_some() && self.messages[message].kept.is_some() {
            trouble.parked = Some(Parked::Draining);
        }
    }

    /// The engine tells people something: it is what happened.
    pub(super) fn noticed(&mut self, pg: &Postgres, said: &Notice) -> Verdict {
        match said {
            Notice::Opened { destination } => {
                let of = NAMES.iter().position(|name| name == destination);
                return self.opened(pg, of.unwrap_or_default());
            }
            Notice::Full => return Ok(()),
            _ => {}
        }
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
            (
                Some(Notice::Parked { destination, attempts, .. }),
                Notice::Parked { destination: of, attempts: times, .. },
            )
            | (
                Some(Notice::Condemned { destination, attempts, .. }),
                Notice::Condemned { destination: of, attempts: times, .. },
            ) => destination == of && attempts == times,
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
    pub(super) fn tried(&self, pg: &Postgres, message: usize, now: Duration) -> Verdict {
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
        // A row's attempt was counted at its time.
        let row = self.messages[message].kept;
        self.hold(Rule::Refusal, row.is_some() == trouble.parked.is_some(), || {
            format!("message {message} is tried, row {row:?}: {trouble:?}")
        })?;
        let early = row.is_none() && trouble.next > now;
        self.hold(Rule::Refusal, !on_trial.is_empty() || !early, || {
            format!("message {message} is tried too early: {trouble:?}")
        })?;
        let elsewhere = self.lanes[..self.trial()]
            .iter()
            .flat_map(|lane| &lane.outstanding)
            .find(|o| self.messages[o.message].destination == of);
        self.hold(Rule::Refusal, elsewhere.is_none(), || {
            format!("message {message} is tried while {elsewhere:?} has no receipt")
        })?;
        if let Some(id) = row {
            return self.row_is_next(pg, message, id);
        }
        let is_due = |(index, other): &(usize, &super::message::Message)| {
            other.destination == of
                && !other.receipted
                && !other.settled
                && !other.unfit
                && on_trial.iter().all(|o| o.message != *index)
        };
        let due = self.messages.iter().enumerate().find(is_due).map(|(index, _)| index);
        self.hold(Rule::Order, due == Some(message), || {
            format!("message {due:?} is to be tried, {message} is sent")
        })
    }

    /// The engine halts: this message was refused so often in a row.
    pub(super) fn halt(&self, halt: &Halt) -> Verdict {
        let of = NAMES.iter().position(|name| *name == halt.destination);
        let attempts = of.and_then(|of| self.troubled.get(&of)).map(|facts| facts.attempts);
        let enough = halt.times >= MAX_ATTEMPTS && attempts == Some(halt.times) && self.halts;
        self.hold(Rule::Halt, enough, || {
            format!("{halt:?} after too few refusals: {:?}", self.troubled)
        })
    }

    /// A row out of the table is sent: it is the next of what is to be sent again.
    fn row_is_next(&self, pg: &Postgres, message: usize, id: i64) -> Verdict {
        let of = self.messages[message].destination;
        if self.troubled.get(&of).and_then(|facts| facts.parked) == Some(Parked::Condemned) {
            return Ok(());
        }
        let on_trial = &self.lanes[self.trial()].outstanding;
        let taken = |row: i64| {
            on_trial.iter().any(|o| self.messages[o.message].kept == Some(row))
                || self.messages.iter().any(|m| m.kept == Some(row) && m.receipted)
        };
        let mut rows = pg.retrying(of).filter(|row| !row.again && row.id < id);
        let before = rows.find(|row| !taken(row.id)).map(|row| row.id);
        self.hold(Rule::Order, before.is_none(), || {
            format!("row {before:?} is to be sent, {id} is")
        })
    }
}
