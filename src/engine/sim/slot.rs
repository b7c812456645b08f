//! The model PostgreSQL's logical slot and its walsender.
//!
//! As the real one it takes any flush position (backwards, beyond the end), forgets the unsaved
//! one in a crash, sends whole transactions whose commit record does not lie before the confirmed
//! position, and sends keepalives at any moment with a WAL end that may lie far back. It is honest
//! in one thing only: a WAL end never lies past a transaction that this connection has not sent.

use std::rc::Rc;

use fastrand::Rng;

use crate::lsn::Lsn;

use super::postgres::{FIRST, Postgres, STEP, Transaction};
use super::relay_row::Snapshot;

/// What comes over the replication connection.
#[derive(Debug)]
pub(super) enum Wire {
    Begin(Rc<Transaction>),
    Change(Rc<Transaction>, usize),
    Commit(Rc<Transaction>),
    Keepalive(Lsn),
}

/// The slot.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    /// Unique among all slots ever made; its copies on other machines have the same.
    pub(super) uid: usize,
    /// What was committed before is not in its stream.
    pub(super) birth: Lsn,
    /// The confirmed position, in memory and on disk.
    pub(super) confirmed: Lsn,
    pub(super) saved: Lsn,
    /// Positions once confirmed that lie on the present timeline.
    pub(super) past: Vec<Lsn>,
    /// It can't be read any more.
    pub(super) invalid: bool,
}

/// A slot being made: it waits for what was in progress when its making began.
#[derive(Debug)]
pub(super) struct Making {
    barrier: u64,
}

/// The walsender.
#[derive(Debug)]
pub(super) struct Sender {
    /// The transaction being sent or to be sent next.
    next: usize,
    /// 0: its Begin; then its changes; then its Commit.
    part: usize,
}

impl Postgres {
    // --- the slot

    /// The slot's confirmed position.
    pub(super) fn confirmed(&self) -> Lsn {
        self.slot.as_ref().map_or(Lsn::INVALID, |slot| slot.confirmed)
    }

    /// Makes the slot, as far as it goes; gives the snapshot that is exported once it is made. That is
    /// told by commit records: what is committed there may not be visible to anybody yet.
    pub(super) fn make_slot(&mut self) -> Option<Snapshot> {
        let barrier = self.making.get_or_insert(Making { barrier: self.xid + 1 }).barrier;
        if self.open.iter().any(|open| open.xid < barrier) {
            return None;
        }
        self.making = None;
        self.insert += STEP;
        self.shown = self.insert;
        let birth = self.end();
        self.uids += 1;
        self.slot = Some(Slot {
            uid: self.uids,
            birth,
            confirmed: birth,
            saved: birth,
            past: vec![birth],
            invalid: false,
        });
        let running = self.open.iter().map(|open| open.xid).collect();
        Some(Snapshot { xmax: self.xid + 1, running })
    }

    /// The slot is dropped.
    pub(super) fn drop_slot(&mut self) {
        self.slot = None;
        self.sender = None;
    }

    // --- the walsender

    /// Whether a walsender is running.
    pub(super) fn connected(&self) -> bool {
        self.sender.is_some()
    }

    /// Starts a walsender; gives the slot's confirmed position.
    pub(super) fn start(&mut self) -> Option<Lsn> {
        let confirmed = self.slot.as_ref().filter(|slot| !slot.invalid)?.confirmed;
        let next = self.wal.partition_point(|tx| tx.id.commit_lsn < confirmed);
        self.sender = Some(Sender { next, part: 0 });
        Some(confirmed)
    }

    /// Which transaction is being sent.
    pub(super) fn reading(&self) -> usize {
        self.sender.as_ref().map_or(0, |sender| sender.next)
    }

    /// Ends the walsender.
    pub(super) fn stop(&mut self) {
        self.sender = None;
    }

    /// The next part of the stream; none when there is nothing to send.
    pub(super) fn send(&mut self, rng: &mut Rng, keepalives: u8) -> Option<Wire> {
        if rng.u8(..100) < keepalives {
            return self.keepalive(rng);
        }
        let sender = self.sender.as_mut()?;
        let tx = self.wal.get(sender.next)?;
        let part = sender.part;
        sender.part += 1;
        self.shown = self.shown.max(tx.end.0);
        if part == 0 {
            return Some(Wire::Begin(Rc::clone(tx)));
        }
        // What is not published is not sent.
        let published = (part - 1..tx.changes.len()).find(|&index| !tx.changes[index].hidden);
        if let Some(index) = published {
            sender.part = index + 2;
            return Some(Wire::Change(Rc::clone(tx), index));
        }
        sender.next += 1;
        sender.part = 0;
        Some(Wire::Commit(Rc::clone(tx)))
    }

    /// A keepalive with the WAL end at the sent position, or anywhere before it.
    fn keepalive(&mut self, rng: &mut Rng) -> Option<Wire> {
        let sent = self.sent()?;
        let back = match rng.u8(..4) {
            0 => rng.u64(..=(sent.0 - FIRST) / STEP) * STEP,
            1 => (rng.u64(..=3) * STEP).min(sent.0 - FIRST),
            _ => 0,
        };
        self.shown = self.shown.max(sent.0);
        Some(Wire::Keepalive(Lsn(sent.0 - back)))
    }

    /// A keepalive of a server that has sent everything; none when it has not.
    pub(super) fn idle(&mut self) -> Option<Wire> {
        let sender = self.sender.as_ref()?;
        (sender.next == self.wal.len()).then_some(Wire::Keepalive(Lsn(self.insert)))
    }

    /// The furthest honest WAL end.
    fn sent(&self) -> Option<Lsn> {
        let sender = self.sender.as_ref()?;
        Some(self.wal.get(sender.next).map_or(Lsn(self.insert), |tx| tx.id.commit_lsn))
    }

    /// A status update arrives: whatever it says is taken.
    pub(super) fn flush(&mut self, position: Lsn) {
        if let Some(slot) = self.slot.as_mut().filter(|_| position.is_valid()) {
            slot.confirmed = position;
            slot.past.push(position);
        }
    }
}
