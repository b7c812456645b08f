//! A model PostgreSQL: a WAL, one logical slot, one walsender.
//!
//! As the real one it takes any flush position (backwards, beyond the end), forgets the unsaved
//! one in a crash, sends whole transactions whose commit record does not lie before the confirmed
//! position, and sends keepalives at any moment with a WAL end that may lie far back. It is honest
//! in one thing only: a WAL end never lies past a transaction that this connection has not sent.

use std::rc::Rc;

use fastrand::Rng;

use crate::engine::TxId;
use crate::lsn::Lsn;
use crate::pgoutput::PgTime;

use super::schedule::Schedule;

/// Where the WAL begins, and every position is a multiple of the step: so that a timeline hits
/// upon the positions of another.
const FIRST: u64 = 0x1000;
const STEP: u64 = 8;

/// What the broker will say to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is taken.
    Taken,
    /// It is refused, with the same words each time, until an operator acts.
    RefusedForEver,
    /// It is refused this many more times, then taken.
    RefusedTimes(u8),
    /// The same, with other words each time.
    RefusedInOtherWords(u8),
}

/// A row (or transactional message) that belongs to the outbox.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) key: u64,
    pub(super) size: usize,
    pub(super) fate: Fate,
    pub(super) committed: bool,
}

/// A change of a transaction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Logged {
    pub(super) lsn: Lsn,
    /// Serial number of the outbox row; none for what walpost filters out.
    pub(super) row: Option<usize>,
}

/// A committed transaction.
#[derive(Debug)]
pub(super) struct Transaction {
    /// Unique among all timelines: the model's own identity.
    pub(super) uid: usize,
    pub(super) id: TxId,
    pub(super) end: Lsn,
    pub(super) changes: Vec<Logged>,
}

/// What comes over the replication connection.
#[derive(Debug)]
pub(super) enum Wire {
    Begin(Rc<Transaction>),
    Change(Rc<Transaction>, usize),
    Commit(Rc<Transaction>),
    Keepalive(Lsn),
}

#[derive(Debug)]
struct Open {
    xid: u32,
    changes: Vec<Logged>,
}

#[derive(Debug)]
struct Sender {
    /// The transaction being sent or to be sent next.
    next: usize,
    /// 0: its Begin; then its changes; then its Commit.
    part: usize,
}

/// The server.
#[derive(Debug)]
pub(super) struct Postgres {
    /// All rows ever written, on any timeline, by serial number.
    pub(super) rows: Vec<Row>,
    /// What the present timeline holds, in commit order.
    pub(super) wal: Vec<Rc<Transaction>>,
    /// The slot's confirmed position, in memory and on disk.
    pub(super) confirmed: Lsn,
    saved: Lsn,
    /// Positions once confirmed that lie on the present timeline.
    past: Vec<Lsn>,
    open: Vec<Open>,
    insert: u64,
    /// The highest position that ever went over the wire: flushed for sure.
    shown: u64,
    xid: u32,
    xids: u32,
    clock: i64,
    forks: i64,
    uids: usize,
    sender: Option<Sender>,
}

impl Postgres {
    pub(super) fn new(xids: u32) -> Self {
        Postgres {
            rows: Vec::new(),
            wal: Vec::new(),
            confirmed: Lsn(FIRST),
            saved: Lsn(FIRST),
            past: vec![Lsn(FIRST)],
            open: Vec::new(),
            insert: FIRST,
            shown: FIRST,
            xid: 0,
            xids,
            clock: 1_000,
            forks: 0,
            uids: 0,
            sender: None,
        }
    }

    /// The end of the WAL.
    pub(super) fn end(&self) -> Lsn {
        Lsn(self.insert)
    }

    /// Whether a walsender is running.
    pub(super) fn connected(&self) -> bool {
        self.sender.is_some()
    }

    // --- the application

    /// An application does something.
    pub(super) fn write(&mut self, rng: &mut Rng, schedule: &Schedule) {
        if self.open.is_empty() || (self.open.len() < 3 && rng.u8(..3) == 0) {
            self.xid = (self.xid + 1) % self.xids;
            self.open.push(Open { xid: self.xid, changes: Vec::new() });
        }
        let at = rng.usize(..self.open.len());
        let many = if rng.u8(..100) < schedule.large {
            schedule.messages * 2 + rng.usize(..4)
        } else {
            rng.usize(0..=4)
        };
        self.insert_changes(rng, schedule, at, many);
        match rng.u8(..10) {
            0..=5 => self.commit(at),
            6 => drop(self.open.remove(at)),
            _ => {}
        }
        if rng.u8(..4) == 0 {
            self.insert += STEP * rng.u64(1..=3); // WAL that concerns nobody
        }
    }

    fn insert_changes(&mut self, rng: &mut Rng, schedule: &Schedule, at: usize, many: usize) {
        let copy = rng.u8(..3) == 0;
        for n in 0..many {
            if n == 0 || !copy {
                self.insert += STEP;
            }
            let row = (rng.u8(..5) > 0).then(|| {
                let large = rng.u8(..20) == 0;
                self.rows.push(Row {
                    key: rng.u64(..schedule.keys),
                    size: if large { rng.usize(1..=600) } else { rng.usize(1..=60) },
                    fate: fate(rng, schedule.refused),
                    committed: false,
                });
                self.rows.len() - 1
            });
            self.open[at].changes.push(Logged { lsn: Lsn(self.insert - STEP), row });
        }
    }

    fn commit(&mut self, at: usize) {
        let Open { xid, changes } = self.open.remove(at);
        for row in changes.iter().filter_map(|change| change.row) {
            self.rows[row].committed = true;
        }
        self.clock += 1;
        let commit_lsn = Lsn(self.insert);
        self.insert += STEP;
        // A time is never the same on two timelines, but it may go back.
        let commit_time = PgTime(self.clock * 1_000 + self.forks);
        let id = TxId { commit_lsn, xid, commit_time };
        self.uids += 1;
        self.wal.push(Rc::new(Transaction {
            uid: self.uids - 1,
            id,
            end: Lsn(self.insert),
            changes,
        }));
    }

    // --- the walsender

    /// Starts a walsender; gives the slot's confirmed position.
    pub(super) fn start(&mut self) -> Lsn {
        let next = self.wal.partition_point(|tx| tx.id.commit_lsn < self.confirmed);
        self.sender = Some(Sender { next, part: 0 });
        self.confirmed
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
        if let Some(index) = part.checked_sub(1).filter(|&index| index < tx.changes.len()) {
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
        if position.is_valid() {
            self.confirmed = position;
            self.past.push(position);
        }
    }

    // --- trouble

    /// The slot is written to disk.
    pub(super) fn checkpoint(&mut self) {
        self.saved = self.confirmed;
    }

    /// An orderly restart: the slot is saved, open transactions end.
    pub(super) fn restart(&mut self) {
        self.checkpoint();
        self.open.clear();
        self.sender = None;
    }

    /// A crash: the slot is as it was saved, and asynchronous commits that were never flushed
    /// (and so never sent) may be gone; their positions and xids are used again.
    pub(super) fn crash(&mut self, rng: &mut Rng) {
        self.open.clear();
        self.sender = None;
        self.confirmed = self.saved;
        let flushed = self.wal.partition_point(|tx| tx.end.0 <= self.shown);
        let kept = rng.usize(flushed..=self.wal.len());
        let floor = self.shown;
        self.fork(kept, floor);
    }

    /// A standby takes over. It may lack the newest transactions, whatever was confirmed, and its
    /// copy of the slot may be older.
    pub(super) fn failover(&mut self, rng: &mut Rng) {
        self.open.clear();
        self.sender = None;
        let back = if rng.bool() {
            rng.usize(..self.past.len().min(3))
        } else {
            rng.usize(..self.past.len())
        };
        self.confirmed = self.past[self.past.len() - 1 - back];
        self.saved = self.confirmed;
        let first = self.wal.partition_point(|tx| tx.id.commit_lsn < self.confirmed);
        let kept = rng.usize(first..=self.wal.len());
        let floor = self.confirmed.0;
        self.fork(kept, floor);
        self.shown = self.shown.min(self.insert);
        self.past.retain(|position| position.0 <= self.insert);
        if rng.bool() {
            self.clock -= 500; // another machine's clock
        }
    }

    /// Goes on after the first `kept` transactions, at `floor` or later.
    fn fork(&mut self, kept: usize, floor: u64) {
        self.forks += 1;
        if let Some(lost) = self.wal.get(kept) {
            self.xid = lost.id.xid.checked_sub(1).unwrap_or(self.xids - 1);
            let end = kept.checked_sub(1).map_or(FIRST, |last| self.wal[last].end.0);
            self.insert = end.max(floor);
            self.wal.truncate(kept);
        }
    }
}

fn fate(rng: &mut Rng, refused: u8) -> Fate {
    if rng.u8(..100) >= refused {
        return Fate::Taken;
    }
    match rng.u8(..3) {
        0 => Fate::RefusedForEver,
        1 => Fate::RefusedTimes(rng.u8(1..super::SAME_REFUSALS)),
        _ => Fate::RefusedInOtherWords(rng.u8(1..=5)),
    }
}
