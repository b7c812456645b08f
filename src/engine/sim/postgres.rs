//! A model PostgreSQL: a WAL, the relay's row, the publication. Its slot is in `slot`, the outbox as a
//! table in `table`, what happens to it in `trouble`.
//!
//! As in the real one, a transaction is in the WAL (and may be sent) before it is visible, and visible
//! before it is flushed.

use std::rc::Rc;

use fastrand::Rng;

use crate::engine::TxId;
use crate::lsn::Lsn;
use crate::pgoutput::PgTime;

use super::kept::Kept;
use super::relay_row::{Guard, RelayRow, Snapshot, Update};
use super::schedule::Schedule;
use super::slot::{Making, Sender, Slot};
use super::table::Standing;

/// Where the WAL begins, and every position is a multiple of the step: so that a timeline hits
/// upon the positions of another.
pub(super) const FIRST: u64 = 0x1000;
pub(super) const STEP: u64 = 8;

/// What the broker will say to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is taken.
    Taken,
    /// It is refused, with the same words each time, until an operator acts.
    RefusedForEver,
    /// It is refused this many more times, with other words each time, then taken.
    RefusedTimes(u8),
    /// The same, by closing the connection without a word.
    ClosedTimes(u8),
}

/// A row (or transactional message) that belongs to the outbox.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// What it is marked by; another timeline gives it to another row.
    pub(super) id: u64,
    /// By the clock of whoever made it; it says nothing of when the row was committed.
    pub(super) created: u64,
    pub(super) key: u64,
    pub(super) destination: usize,
    pub(super) size: usize,
    pub(super) fate: Fate,
    /// It can't be sent.
    pub(super) unfit: bool,
    pub(super) committed: bool,
}

/// A change of a transaction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Logged {
    pub(super) lsn: Lsn,
    /// Serial number of the outbox row; none for what walpost filters out.
    pub(super) row: Option<usize>,
    /// The publication did not have the outbox: the stream does not bring it.
    pub(super) hidden: bool,
}

/// A committed transaction.
#[derive(Debug)]
pub(super) struct Transaction {
    /// Unique among all timelines: the model's own identity.
    pub(super) uid: usize,
    pub(super) id: TxId,
    /// The whole transaction id; the stream has a part of it.
    pub(super) xid: u64,
    pub(super) end: Lsn,
    pub(super) changes: Vec<Logged>,
    pub(super) wrote: Wrote,
}

/// What a transaction did beside inserting into the outbox.
#[derive(Debug)]
pub(super) enum Wrote {
    Nothing,
    Relay(Rc<RelayRow>),
    Publication(Guard),
    /// It wrote to the table of what was refused.
    Kept(Rc<Kept>),
    /// It marked rows of the outbox, or deleted them.
    Rows(Vec<usize>, Standing),
}

#[derive(Debug)]
pub(super) struct Open {
    pub(super) xid: u64,
    changes: Vec<Logged>,
}

/// The server.
#[derive(Debug)]
pub(super) struct Postgres {
    /// All rows ever written, on any timeline, by serial number.
    pub(super) rows: Vec<Row>,
    /// What the present timeline holds, in commit order.
    pub(super) wal: Vec<Rc<Transaction>>,
    pub(super) slot: Option<Slot>,
    pub(super) making: Option<Making>,
    pub(super) sender: Option<Sender>,
    pub(super) open: Vec<Open>,
    /// Committed, and not visible yet: they wait for a synchronous standby, say.
    pub(super) unseen: Vec<u64>,
    /// Of the present timeline, by serial number.
    pub(super) standings: Vec<Standing>,
    /// Of the present timeline: the row that has the id, whatever became of it.
    pub(super) by_id: Vec<usize>,
    /// Rows that somebody locks, by serial number.
    pub(super) locked: Vec<usize>,
    /// The last row's id: of a sequence that a fork takes back with all else.
    pub(super) next_id: u64,
    pub(super) relay: Option<Rc<RelayRow>>,
    /// What was refused.
    pub(super) kept: Rc<Kept>,
    pub(super) publication: Guard,
    pub(super) insert: u64,
    /// The highest position that ever went over the wire, or was waited for: flushed for sure.
    pub(super) shown: u64,
    /// The last transaction id in use, and the last of one that has ended.
    pub(super) xid: u64,
    pub(super) completed: u64,
    xids: u32,
    pub(super) clock: i64,
    pub(super) forks: i64,
    /// How often all connections have ended.
    pub(super) boots: u64,
    pub(super) timeline: u64,
    /// Where each timeline but the first begins.
    pub(super) switches: Vec<(u64, Lsn)>,
    pub(super) uids: usize,
    /// Of 100 commits, how many are visible only later.
    late: u8,
}

impl Postgres {
    pub(super) fn new(schedule: &Schedule) -> Self {
        Postgres {
            rows: Vec::new(),
            wal: Vec::new(),
            slot: None,
            making: None,
            sender: None,
            open: Vec::new(),
            unseen: Vec::new(),
            standings: Vec::new(),
            by_id: Vec::new(),
            locked: Vec::new(),
            next_id: 0,
            relay: None,
            kept: Rc::default(),
            publication: Guard { changed_by: 0, good: true },
            insert: FIRST,
            shown: FIRST,
            xid: 0,
            completed: 0,
            xids: schedule.xids,
            clock: 1_000,
            forks: 0,
            boots: 0,
            timeline: 1,
            switches: Vec::new(),
            uids: 0,
            late: schedule.late,
        }
    }

    /// The end of the WAL.
    pub(super) fn end(&self) -> Lsn {
        Lsn(self.insert)
    }

    /// A transaction of the present timeline.
    pub(super) fn transaction(&self, id: TxId) -> Option<&Rc<Transaction>> {
        self.wal.iter().find(|tx| tx.id == id)
    }

    // --- the application

    /// An application does something.
    pub(super) fn write(&mut self, rng: &mut Rng, schedule: &Schedule) {
        if rng.u8(..schedule.unseen_for) == 0 {
            self.becomes_visible();
        }
        if self.open.is_empty() || (self.open.len() < schedule.writers && rng.u8(..3) == 0) {
            self.xid += 1;
            self.open.push(Open { xid: self.xid, changes: Vec::new() });
        }
        let at = rng.usize(..self.open.len());
        let many = if rng.u8(..100) < schedule.large {
            schedule.messages * 2 + rng.usize(..4)
        } else {
            rng.usize(0..=4)
        };
        self.insert_changes(rng, schedule, at, many);
        match rng.u8(..schedule.patience) {
            0..=5 => self.commit(rng, at),
            6 => self.roll_back(at),
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
                self.next_id += 1;
                let key = rng.u64(..schedule.keys);
                self.rows.push(Row {
                    id: self.next_id,
                    created: self.rows.len() as u64 + rng.u64(..30),
                    key,
                    destination: usize::try_from(key).unwrap() % schedule.destinations,
                    size: if large { rng.usize(1..=600) } else { rng.usize(1..=60) },
                    fate: fate(rng, schedule.refused, schedule.refusals),
                    unfit: rng.u8(..100) < schedule.unfit,
                    committed: false,
                });
                self.rows.len() - 1
            });
            let hidden = !self.publication.good;
            self.open[at].changes.push(Logged { lsn: Lsn(self.insert - STEP), row, hidden });
        }
    }

    fn commit(&mut self, rng: &mut Rng, at: usize) {
        let Open { xid, changes } = self.open.remove(at);
        for row in changes.iter().filter_map(|change| change.row) {
            self.rows[row].committed = true;
        }
        self.log_commit(xid, changes, Wrote::Nothing);
        if rng.u8(..100) < self.late {
            self.unseen.push(xid);
        } else {
            self.completed = self.completed.max(xid);
        }
    }

    fn roll_back(&mut self, at: usize) {
        let Open { xid, .. } = self.open.remove(at);
        self.completed = self.completed.max(xid);
    }

    fn log_commit(&mut self, xid: u64, changes: Vec<Logged>, wrote: Wrote) {
        self.clock += 1;
        let commit_lsn = Lsn(self.insert);
        self.insert += STEP;
        // A time is never the same on two timelines, but it may go back.
        let commit_time = PgTime(self.clock * 1_000 + self.forks);
        let short = u32::try_from(xid % u64::from(self.xids)).unwrap();
        let id = TxId { commit_lsn, xid: short, commit_time };
        let rows: Vec<_> = changes.iter().filter_map(|change| change.row).collect();
        self.stand(&rows, Standing::Waiting);
        self.uids += 1;
        let (uid, end) = (self.uids - 1, Lsn(self.insert));
        self.wal.push(Rc::new(Transaction { uid, id, xid, end, changes, wrote }));
    }

    /// What committed first of what is not visible yet becomes so.
    pub(super) fn becomes_visible(&mut self) {
        if !self.unseen.is_empty() {
            self.completed = self.completed.max(self.unseen.remove(0));
        }
    }

    /// All applications come to their end.
    pub(super) fn quiesce(&mut self, rng: &mut Rng) {
        while !self.open.is_empty() {
            if rng.bool() { self.commit(rng, 0) } else { self.roll_back(0) }
        }
        while !self.unseen.is_empty() {
            self.becomes_visible();
        }
    }

    // --- what SQL sees

    /// `pg_current_snapshot()`.
    pub(super) fn snapshot(&self) -> Snapshot {
        let xmax = self.completed + 1;
        let running = self.open.iter().map(|open| open.xid).chain(self.unseen.iter().copied());
        Snapshot { xmax, running: running.filter(|&xid| xid < xmax).collect() }
    }

    /// Whether all transactions that began before this one have ended, and are visible if committed.
    pub(super) fn older_ended(&self, barrier: u64) -> bool {
        let running = self.open.iter().map(|open| &open.xid).chain(&self.unseen);
        running.min().is_none_or(|&oldest| oldest >= barrier)
    }

    /// Whether whoever reads now sees all that a snapshot sees.
    pub(super) fn sees_all_of(&self, snapshot: &Snapshot) -> bool {
        !self.unseen.iter().any(|&xid| snapshot.sees(xid))
    }

    // --- what SQL writes

    pub(super) fn write_at_once(&mut self, wrote: Wrote) {
        self.xid += 1;
        self.insert += STEP;
        self.log_commit(self.xid, Vec::new(), wrote);
        self.completed = self.completed.max(self.xid);
    }

    /// The relay's row is written, and waited for.
    pub(super) fn write_relay(&mut self, row: RelayRow) {
        let row = Rc::new(row);
        self.relay = Some(Rc::clone(&row));
        self.write_at_once(Wrote::Relay(row));
        self.shown = self.insert;
    }

    /// The relay that has this epoch writes to its row; false when another has taken over.
    pub(super) fn update_relay(&mut self, epoch: Option<u64>, update: &Update) -> bool {
        let Some(row) = self.relay.clone() else { return false };
        let ours = epoch.is_none_or(|epoch| row.epoch == epoch);
        if ours {
            self.write_relay(row.with(update));
        }
        ours
    }

    /// The outbox is taken out of the publication, or put back.
    pub(super) fn alter_publication(&mut self, good: bool) {
        self.publication = Guard { changed_by: self.xid + 1, good };
        let publication = self.publication;
        self.write_at_once(Wrote::Publication(publication));
    }
}

fn fate(rng: &mut Rng, refused: u8, times: u8) -> Fate {
    if rng.u8(..100) >= refused {
        return Fate::Taken;
    }
    match rng.u8(..3) {
        0 => Fate::RefusedForEver,
        1 => Fate::RefusedTimes(rng.u8(1..=times)),
        _ => Fate::ClosedTimes(rng.u8(1..=times)),
    }
}
