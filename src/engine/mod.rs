//! What is in flight and what is done: the relay's promise, as a pure state machine.
//!
//! Events of the source and of the broker go in as calls, what the pump must do comes out
//! ([`Engine::next_send`], [`Engine::next_action`]). There is no clock, socket or thread here, so
//! a simulation drives the engine, a model PostgreSQL and a model broker through any schedule.
//!
//! The promise: [`Engine::watermark`] is never past a committed transaction that has a message
//! without a receipt. Why it holds: a position becomes a candidate only in the `ledger`, which
//! keeps the transactions of the present session in the order of the stream; it counts as done
//! only when its transaction and all before it have no message in the `window`; and a message
//! leaves the window only by its own receipt, on the connection that it was last sent on, and where
//! its row is to be marked only when that is done (`marking`).
//!
//! "(rule 1)" and so on are those of `docs/design.md`, "Rules of the engine".
//!
//! Times are `now: Duration` since an epoch of the caller's; they never go back.

/// Is the engine built with this deliberate fault? Never, outside of tests: to read the engine,
/// take every `fault!(…)` for false.
macro_rules! fault {
    ($engine:expr, $fault:ident) => {{
        #[cfg(test)]
        {
            $engine.faults.has($crate::engine::Fault::$fault)
        }
        #[cfg(not(test))]
        {
            false
        }
    }};
}

mod blame;
mod broker_side;
mod certify;
#[cfg(test)]
mod fault;
mod lane;
mod ledger;
mod marking;
mod parking;
mod recovery;
mod ring;
#[cfg(test)]
mod sim;
mod source_side;
#[cfg(test)]
mod tests;
mod trouble;
mod types;
mod window;

use std::collections::{HashMap, VecDeque};

use crate::lsn::Lsn;
use crate::pgoutput::PgTime;

pub use certify::{Certifier, Connections};
#[cfg(test)]
pub use fault::Fault;
use lane::Lane;
use ledger::Ledger;
use marking::Marking;
use parking::Parking;
pub use parking::{InTable, Job, Keep, Outcome, Stored};
use ring::Ring;
use source_side::Open;
pub use trouble::Troubled;
use trouble::Troubles;
pub use types::*;
use window::Window;

/// The relay's state machine; `M` is the message that a lane sends.
pub struct Engine<M> {
    settings: Settings,
    session: Option<Session>,
    open: Option<Open>,
    ledger: Ledger,
    /// Transactions of earlier sessions that still have messages in the window and have not come
    /// again.
    stale: HashMap<TxId, ledger::Key>,
    /// What rows that are published again, from the table, are held under; while there are any.
    recovered: Option<ledger::Key>,
    ring: Ring,
    window: Window<M>,
    /// The last is for trials.
    lanes: Vec<Lane>,
    troubles: Troubles,
    marking: Marking,
    parking: Parking,
    actions: VecDeque<Action>,
    sent: u64,
    resent: u64,
    #[cfg(test)]
    faults: fault::Faults,
}

/// The time in which the slot is ours.
#[derive(Clone, Copy, Debug)]
struct Session {
    /// The slot's position when it became ours: nothing is reported until a candidate reaches it.
    confirmed: Lsn,
}

impl<M: Addressed> Engine<M> {
    /// An engine that knows nothing yet: no session, every lane down.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Engine {
            session: None,
            open: None,
            ledger: Ledger::new(settings.messages),
            stale: HashMap::new(),
            recovered: None,
            ring: Ring::new(settings.ring),
            window: Window::new(settings.messages, settings.bytes),
            lanes: (0..=settings.lanes.max(1)).map(|_| Lane::default()).collect(),
            troubles: Troubles::default(),
            marking: Marking::default(),
            parking: Parking::default(),
            actions: VecDeque::new(),
            sent: 0,
            resent: 0,
            settings,
            #[cfg(test)]
            faults: fault::Faults::default(),
        }
    }

    /// An engine with a deliberate fault.
    #[cfg(test)]
    pub fn with_fault(settings: Settings, fault: Fault) -> Self {
        Engine { faults: fault::Faults(Some(fault)), ..Engine::new(settings) }
    }

    /// The lane of an ordering key.
    fn lane_of(&self, key_hash: u64) -> usize {
        (key_hash % (self.lanes.len() as u64 - 1)) as usize
    }

    /// What a standby status update may report as flushed now: [`Lsn::INVALID`], which confirms
    /// nothing, until a candidate of this session reaches the slot's own confirmed position
    /// (rule 2), then the highest candidate.
    #[must_use]
    pub fn watermark(&self) -> Lsn {
        let Some(session) = self.session else { return Lsn::INVALID };
        if fault!(self, StaleHoldsCandidates) && !self.stale.is_empty() {
            return Lsn::INVALID;
        }
        let done = self.ledger.done();
        if done >= session.confirmed || fault!(self, NoConfirmedFloor) {
            done
        } else {
            Lsn::INVALID
        }
    }

    /// What the pump is to do next; call until `None`.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// A message in the window.
    #[must_use]
    pub fn message(&self, receipt: Receipt) -> Option<&M> {
        let key = self.window.find(receipt)?;
        Some(&self.window.get(key)?.payload)
    }

    /// The transaction that a message in the window belongs to; none: its row came from the table.
    #[must_use]
    pub fn transaction(&self, receipt: Receipt) -> Option<TxId> {
        let key = self.window.find(receipt)?;
        let held = self.window.get(key)?;
        if let Some(kept) = held.kept {
            return kept.transaction;
        }
        let record = self.ledger.get(held.tx)?;
        (!record.recovered).then_some(record.id)
    }

    /// Messages without a receipt or whose rows are not marked yet, and their bytes.
    #[must_use]
    pub fn in_flight(&self) -> InFlight {
        self.window.held()
    }

    /// Messages without a receipt of transactions that were committed at `lsn` or later, before the
    /// present session. Walks the window.
    #[must_use]
    pub fn unreceipted_from(&self, lsn: Lsn) -> usize {
        let of = |held: &&window::Held<M>| {
            held.receipted.is_none()
                && self.ledger.get(held.tx).is_some_and(|tx| tx.id.commit_lsn >= lsn)
        };
        self.window.iter().filter(of).count()
    }

    /// Messages of one lane without a receipt, sent or not.
    #[must_use]
    pub fn in_flight_on(&self, lane: usize) -> usize {
        self.lanes.get(lane).map_or(0, |state| state.order.len())
    }

    /// Whether every message has its receipt, and every row its mark. What came out of the table of what
    /// was refused does not count.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        #[cfg(test)]
        if self.faulty_drained() {
            return true;
        }
        self.window.held().messages == self.loaded()
    }

    /// Whether the stream stands inside a transaction.
    #[must_use]
    pub fn in_transaction(&self) -> bool {
        self.open.is_some()
    }

    /// Whether all that was read is done, so that only what was not read yet can be behind.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.open.is_none() && self.ledger.len() == 0 && self.recovered.is_none()
    }

    /// The commit time of the oldest transaction with a message in the window. Not for each row.
    #[must_use]
    pub fn oldest_commit_time(&self) -> Option<PgTime> {
        self.window.oldest_commit_time()
    }

    /// Transactions that the present session waits for; at most those in the window and one.
    #[must_use]
    pub fn ledger_len(&self) -> usize {
        self.ledger.len()
    }

    /// Messages sent for the first time, since the start.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// SENDs that repeated an earlier one, since the start.
    #[must_use]
    pub fn resent(&self) -> u64 {
        self.resent
    }
}
