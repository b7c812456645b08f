//! Parking (rule 5, `docs/design.md`): a destination that the broker refuses again and again keeps its
//! messages in a table, so that they hold neither the log nor memory nor anybody else.
//!
//! Whoever speaks SQL takes one [`Job`] at a time and reports its [`Outcome`]; where that is not known
//! the job comes again, and does nothing twice. A destination's states: *parked* (what comes is kept, only
//! the oldest row is tried), *draining* (the oldest was taken: rows are sent in their order, what comes is
//! kept behind them, or waits in the window once few are left), then open again; or *condemned* (what is
//! kept is dead, only the newest is tried).

mod drain;
mod jobs;
mod keep;
mod types;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::trouble::Trouble;
use super::types::{Action, Addressed, Halt, Notice, Receipt};
use super::window::Key;
use super::{Engine, ledger};
use crate::lsn::Lsn;
pub use types::{InTable, Job, Keep, Outcome, Stored};

/// How far a destination is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Parked,
    Draining,
    Condemned,
}

/// A destination whose messages are kept.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) state: State,
    /// Its rows that are to be sent again, as far as known.
    pub(super) rows: u64,
    /// Of them, those behind the last that was handed over; and whether there may be more.
    unread: u64,
    unsure: bool,
    /// The last that was handed over.
    after: i64,
    /// Rows that were handed over and are in no lane.
    pub(super) loaded: BTreeMap<i64, Key>,
    /// Its rows in the window.
    held: usize,
    /// Its messages that are being kept, or perhaps are.
    keeping: usize,
    /// The row whose attempt was counted last.
    head: Option<i64>,
    /// Its rows are to be made dead.
    condemn: bool,
}

impl Parked {
    fn new(rows: u64) -> Self {
        Parked {
            state: State::Parked,
            rows,
            unread: 0,
            unsure: true,
            after: i64::MIN,
            loaded: BTreeMap::new(),
            held: 0,
            keeping: 0,
            head: None,
            condemn: false,
        }
    }

    /// Whether a turn on the trial lane makes sense.
    pub(super) fn may_be_tried(&self) -> bool {
        if !self.loaded.is_empty() {
            return true;
        }
        match self.state {
            State::Parked => self.held == 0 && self.keeping == 0 && self.rows > 0,
            State::Condemned => self.held == 0 && self.keeping == 0 && !self.condemn,
            State::Draining => false,
        }
    }

    /// Whether its oldest row must be asked for first.
    pub(super) fn needs_attempt(&self) -> bool {
        self.counts_first() && self.loaded.is_empty()
    }

    /// Whether an attempt is counted before the message is sent.
    pub(super) fn counts_first(&self) -> bool {
        self.state != State::Draining
    }
}

/// What the SQL side does, and is to do.
#[derive(Default)]
pub(super) struct Parking {
    running: Option<Running>,
    /// What it does is of no use any more.
    void: bool,
    /// Not before: the last has failed.
    again_at: Duration,
    /// These are perhaps kept.
    keeping: Vec<Keep>,
    /// The latest job was to keep something.
    kept_last: bool,
    /// Messages that can't be sent.
    pub(super) unfit: VecDeque<Receipt>,
    delivered: VecDeque<(i64, Receipt)>,
    notes: VecDeque<Note>,
    /// The oldest row of the destination whose turn it is is asked for.
    pub(super) attempting: bool,
    look_at: Duration,
    /// As many messages are kept as may be.
    full: bool,
    /// What messages out of the table are held under.
    pub(super) record: Option<ledger::Key>,
}

impl Parking {
    /// What is in the table must be known before the stream is read.
    pub(super) fn look_now(&mut self) {
        self.look_at = Duration::ZERO;
    }
}

#[derive(Debug)]
enum Running {
    Keep,
    Attempt(Box<str>),
    Load(Box<str>),
    Delivered(Vec<(i64, Receipt)>),
    Note(Note),
    Condemn(Box<str>),
    Look,
}

#[derive(Clone, Debug)]
struct Note {
    id: i64,
    attempts: u32,
    words: Box<str>,
    next: Duration,
}

impl<M: Addressed> Engine<M> {
    /// Whether as many messages are kept as may be, so that the stream is held.
    #[must_use]
    pub fn is_parking_full(&self) -> bool {
        self.parking.full
    }

    /// Messages in the window that came out of the table.
    pub(super) fn loaded(&self) -> usize {
        self.parking.record.and_then(|key| self.ledger.get(key)).map_or(0, |r| r.unreceipted)
    }

    /// Rows that are to be sent again, of all destinations.
    fn rows(&self) -> u64 {
        let all = self.troubles.by_destination.values();
        all.filter_map(|trouble| trouble.parked.as_ref()).map(|parked| parked.rows).sum()
    }

    /// The broker is there, and has refused these so often.
    pub(super) fn exhaust(&mut self, name: &str, now: Duration) {
        let retry = self.settings.retry;
        let Some(trouble) = self.troubles.by_destination.get_mut(name) else { return };
        let (attempts, words) = (trouble.attempts, String::from(&*trouble.words));
        let destination = || name.to_owned();
        if trouble.parked.is_none() && attempts >= retry.pause_after {
            trouble.parked = Some(Parked::new(0));
            trouble.next = now + retry.pause;
            self.notice(Notice::Parked {
                destination: destination(),
                attempts,
                words: words.clone(),
            });
        }
        if attempts < retry.max_attempts || fault!(self, NeverCondemned) {
            return;
        }
        if retry.halts {
            let halt = Halt { destination: destination(), times: attempts, words };
            self.actions.push_back(Action::Halt(halt));
            return;
        }
        let Some(trouble) = self.troubles.by_destination.get_mut(name) else { return };
        let Some(parked) = &mut trouble.parked else { return };
        if parked.state != State::Condemned {
            parked.state = State::Condemned;
            parked.condemn = true;
            trouble.next = now + retry.pause;
            self.notice(Notice::Condemned { destination: destination(), attempts, words });
            self.take_back_turn(name);
        }
    }

    /// It was the destination's turn, and its row is not asked for yet: it comes again when it is due.
    fn take_back_turn(&mut self, name: &str) {
        let asked = matches!(self.parking.running, Some(Running::Attempt(_)));
        if self.parking.attempting && !asked && self.troubles.turn.as_deref() == Some(name) {
            self.parking.attempting = false;
            self.troubles.turn = None;
        }
    }

    /// What the SQL side found: before the stream of a session is read, and from time to time.
    pub fn looked(&mut self, found: Vec<InTable>, now: Duration) {
        let mut known: Vec<Box<str>> = self.troubles.by_destination.keys().cloned().collect();
        for InTable { destination, rows, attempts, next_in, words } in found {
            known.retain(|name| **name != *destination);
            let next = now + next_in;
            // What is to be deleted may be among them, or not.
            let rows = rows + self.to_delete(&destination);
            if !self.troubles.by_destination.contains_key(&*destination) {
                let words = words.clone().into();
                let trouble = Trouble { next, width: 1, words, ..Trouble::default() };
                self.troubles.by_destination.insert(destination.clone().into(), trouble);
                self.count_out(&destination);
            }
            let Some(trouble) = self.troubles.by_destination.get_mut(&*destination) else {
                continue;
            };
            let parked = trouble.parked.get_or_insert_with(|| {
                (trouble.attempts, trouble.next) = (attempts, next);
                Parked::new(rows)
            });
            parked.rows = rows;
            if parked.state == State::Condemned && !parked.condemn {
                parked.state = State::Parked;
                (trouble.attempts, trouble.next) = (attempts, next);
            } else if parked.state == State::Parked && parked.held == 0 {
                // An operator may have asked for it to be tried now.
                trouble.next = trouble.next.min(next);
            }
        }
        for name in known {
            let trouble = self.troubles.by_destination.get_mut(&name);
            if let Some(parked) = trouble.and_then(|trouble| trouble.parked.as_mut())
                && parked.held == 0
            {
                parked.rows = 0;
            }
            self.open_if_drained(&name);
        }
        self.sweep(true);
        self.try_next(now);
    }

    /// Rows of a destination that are delivered, and not known to be deleted.
    fn to_delete(&self, destination: &str) -> u64 {
        let its = |(_, receipt): &&(i64, Receipt)| {
            let held = self.window.find(*receipt).and_then(|key| self.window.get(key));
            held.is_some_and(|held| {
                let counted = held.kept.is_some_and(|kept| !kept.dead);
                counted && held.payload.destination() == destination
            })
        };
        let under_way = match &self.parking.running {
            Some(Running::Delivered(rows)) => rows.as_slice(),
            _ => &[],
        };
        self.parking.delivered.iter().chain(under_way).filter(its).count() as u64
    }

    /// The table is another one: what came out of it is not known to be there.
    pub(super) fn forget_kept(&mut self) {
        let names: Vec<Box<str>> = self.troubles.by_destination.keys().cloned().collect();
        for name in names {
            self.unload(&name, true);
            let Some(trouble) = self.troubles.by_destination.get_mut(&name) else { continue };
            if trouble.parked.take().is_none() {
                continue;
            }
            (trouble.attempts, trouble.next) = (0, Duration::ZERO);
            (trouble.unproven, trouble.width) = (false, 1);
            // What was kept comes again, and what waits behind it must not be sent before it.
            let waiting = std::mem::take(&mut trouble.waiting);
            if trouble.out == 0 {
                self.troubles.by_destination.remove(&name);
            }
            self.troubles.turn.take_if(|turn| *turn == name);
            for key in waiting.into_values() {
                let tx = self.window.get(key).map(|held| held.tx);
                if let Some(record) = tx.and_then(|tx| self.ledger.get_mut(tx)) {
                    record.unsure = true;
                }
                self.leave(key, Lsn::INVALID);
            }
        }
        self.forget_marks_that_left();
        let parking = &mut self.parking;
        parking.void = parking.running.is_some();
        parking.attempting = false;
        parking.delivered.clear();
        parking.notes.clear();
        for keep in std::mem::take(&mut parking.keeping) {
            let unfit = |held: &super::window::Held<M>| held.unfit;
            let key = self.window.find(keep.receipt);
            if key.and_then(|key| self.window.get(key)).is_some_and(unfit) {
                parking.unfit.push_back(keep.receipt);
            }
        }
    }
}
