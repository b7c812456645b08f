//! The judge: what must be true, held against what the engine says and does.
//!
//! It knows no window, ledger or ring; it keeps plain lists of everything that ever happened and
//! looks things up in them. The two *outside* rules are those a user would see (nothing lost,
//! everything arrives); the others pin the engine down more tightly, so that a fault shows at
//! once and not only when a crash happens to follow.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use crate::engine::{Change, InFlight, Notice};
use crate::lsn::Lsn;

use super::identity::Memory;
use super::lanes::LaneFacts;
use super::message::Message;
use super::postgres::{Postgres, Row, Transaction};
use super::relay_row::Snapshot;
use super::rule::{Rule, Verdict, Violation};
use super::schedule::Schedule;
use super::table::Standing;

#[derive(Debug)]
enum Item {
    /// All after it waits for this message.
    Message(usize),
    Candidate(Lsn),
}

#[derive(Debug)]
struct Session {
    confirmed: Lsn,
    items: Vec<Item>,
    done: usize,
    best: Lsn,
    open: Option<usize>,
    /// How far the stream was brought, between transactions.
    brought: Lsn,
}

/// The judge's memory.
#[derive(Debug)]
pub(super) struct Judge {
    /// Whether the rules beyond the outside ones are held.
    pub(super) strict: bool,
    messages_max: usize,
    bytes_max: usize,
    pub(super) heartbeats: bool,
    /// Rows are marked, or deleted, after the receipt.
    pub(super) marking: bool,
    /// The last is for trials.
    pub(super) lanes: Vec<LaneFacts>,
    // --- one life of walpost
    pub(super) messages: Vec<Message>,
    pub(super) memory: Memory,
    session: Option<Session>,
    pub(super) waiting: InFlight,
    /// Messages that have their receipt and are not done.
    pub(super) owed: usize,
    /// The destinations that are set aside.
    pub(super) troubled: BTreeMap<usize, super::troubles::Facts>,
    /// What people are to be told now.
    pub(super) notices: VecDeque<Notice>,
    /// The highest position before which a message was kept.
    pub(super) fences: Lsn,
    /// The end of the WAL when a new walpost was told how far a large transaction is: some of it may be kept.
    pub(super) resumed: Lsn,
    /// Messages in the window that came out of the table of what was refused.
    pub(super) loaded_now: usize,
    // --- for ever
    pub(super) max_parked: usize,
    pub(super) halts: bool,
    /// By serial number: was given up once.
    pub(super) ever_dead: Vec<bool>,
    /// By serial number: sent to, or receipted by, the broker.
    pub(super) ever_sent: Vec<bool>,
    pub(super) ever_receipted: Vec<bool>,
    /// By serial number: the slot from whose exported snapshot the row was recovered.
    pub(super) recovered_beside: Vec<Option<usize>>,
    /// The certified snapshot that was looked at, and on which history.
    pub(super) seen_certified: Option<(i64, Rc<Snapshot>)>,
    /// The slot that was made last, and what it exported.
    pub(super) exported: Option<(usize, Snapshot)>,
    /// Transactions of the present timeline whose rows are all receipted.
    safe: usize,
    /// By key: how many rows of the present timeline were looked at and found sent.
    pub(super) first_sent: Vec<(usize, usize)>,
}

impl Judge {
    pub(super) fn new(schedule: &Schedule, strict: bool) -> Self {
        Judge {
            strict,
            messages_max: schedule.messages,
            bytes_max: schedule.bytes,
            heartbeats: schedule.heartbeats,
            marking: schedule.marking.is_some(),
            lanes: (0..=schedule.lanes).map(|_| LaneFacts::default()).collect(),
            messages: Vec::new(),
            memory: Memory::new(schedule.ring),
            session: None,
            waiting: InFlight::default(),
            owed: 0,
            troubled: BTreeMap::new(),
            notices: VecDeque::new(),
            fences: Lsn::INVALID,
            resumed: Lsn::INVALID,
            loaded_now: 0,
            max_parked: schedule.max_parked,
            halts: schedule.halts,
            ever_dead: Vec::new(),
            ever_sent: Vec::new(),
            ever_receipted: Vec::new(),
            recovered_beside: Vec::new(),
            seen_certified: None,
            exported: None,
            safe: 0,
            first_sent: vec![(0, 0); usize::try_from(schedule.keys).unwrap()],
        }
    }

    /// Holds a rule.
    pub(super) fn hold(&self, rule: Rule, held: bool, what: impl FnOnce() -> String) -> Verdict {
        let outside = matches!(rule, Rule::Lost | Rule::Stuck | Rule::Unmarked | Rule::Mismarked);
        if held || !(self.strict || outside) {
            return Ok(());
        }
        Err(Violation { rule, what: what() })
    }

    /// walpost was killed, and a new one starts with nothing but what the server knows.
    pub(super) fn new_life(&mut self) {
        self.messages.clear();
        self.memory.clear();
        self.session = None;
        self.waiting = InFlight::default();
        self.owed = 0;
        self.troubled.clear();
        self.notices.clear();
        (self.fences, self.resumed) = (Lsn::INVALID, Lsn::INVALID);
        self.loaded_now = 0;
        self.lanes.iter_mut().for_each(|lane| *lane = LaneFacts::default());
    }

    // --- the stream

    /// The slot is ours.
    pub(super) fn session_started(&mut self, confirmed: Lsn) {
        self.session = Some(Session {
            confirmed,
            items: Vec::new(),
            done: 0,
            best: Lsn::INVALID,
            open: None,
            brought: Lsn::INVALID,
        });
    }

    /// The slot is ours no longer.
    pub(super) fn session_lost(&mut self) {
        if let Some(uid) = self.session.take().and_then(|session| session.open) {
            self.memory.broken_off(uid);
        }
    }

    /// Whether the slot is ours.
    pub(super) fn in_session(&self) -> bool {
        self.session.is_some()
    }

    /// A Begin was read.
    pub(super) fn begin(&mut self, tx: &Transaction) {
        self.memory.begin(tx);
        if let Some(session) = &mut self.session {
            session.open = Some(tx.uid);
        }
    }

    /// A change was read; the engine says whether it knows it.
    pub(super) fn change(&mut self, tx: &Transaction, index: usize, said: Change) -> Verdict {
        if tx.changes[index].row.is_none() {
            return Ok(()); // nothing was accepted, nothing follows from the answer
        }
        let accepted = self.memory.message(tx.uid, index);
        let (told, must_recall) = self.memory.resumed(tx.uid, index);
        let must = self.memory.must_know(tx.uid, index, &self.messages) || must_recall;
        let may = accepted.is_some() || told;
        let known = said == Change::Known;
        self.hold(Rule::Identity, may || !known, || {
            format!("change {index} of {:?} was never accepted, but is called known", tx.id)
        })?;
        self.hold(Rule::Identity, known || !must, || {
            format!("change {index} of {:?} was accepted, but is called new", tx.id)
        })?;
        if let (true, Some(message)) = (known, accepted) {
            self.wait_for(message);
        }
        Ok(())
    }

    /// Whether the window takes a message of this size.
    pub(super) fn fits(&self, size: usize, said: bool) -> Verdict {
        let InFlight { messages, bytes } = self.waiting;
        let fits =
            messages == 0 || (messages < self.messages_max && bytes + size <= self.bytes_max);
        self.hold(Rule::Window, fits == said, || {
            format!("{messages} messages and {bytes} bytes in flight: room for {size} more is {fits}, not {said}")
        })
    }

    /// A change becomes a message; gives its index.
    pub(super) fn accept(
        &mut self,
        tx: &Transaction,
        index: usize,
        serial: usize,
        row: &Row,
        lane: usize,
    ) -> usize {
        let message = self.messages.len();
        self.messages.push(Message {
            serial,
            destination: row.destination,
            uid: Some(tx.uid),
            commit_lsn: tx.id.commit_lsn,
            size: row.size,
            commit_time: tx.id.commit_time,
            number: None,
            last_sent: Duration::ZERO,
            receipted: false,
            marks: self.marking,
            streamed: true,
            kept: None,
            fence: None,
            unfit: row.unfit,
            settled: false,
        });
        self.hold_place(message, lane);
        self.memory.accept(tx.uid, index, message);
        self.wait_for(message);
        message
    }

    /// A message takes room in the window.
    pub(super) fn hold_place(&mut self, message: usize, lane: usize) {
        self.waiting.messages += 1;
        self.waiting.bytes += self.messages[message].size;
        if !self.messages[message].unfit {
            self.lanes[lane].queue.push(message);
        }
    }

    fn wait_for(&mut self, message: usize) {
        if let Some(session) = &mut self.session {
            session.items.push(Item::Message(message));
        }
    }

    /// A Commit was read.
    pub(super) fn commit(&mut self, tx: &Transaction) {
        if let Some(session) = &mut self.session {
            session.items.push(Item::Candidate(tx.end));
            session.open = None;
            session.brought = session.brought.max(tx.end);
        }
        self.pass_fences();
        self.memory.commit(tx.uid, &self.messages);
    }

    /// A keepalive was read.
    pub(super) fn keepalive(&mut self, wal_end: Lsn) {
        if let Some(session) = self.session.as_mut().filter(|session| session.open.is_none()) {
            session.items.push(Item::Candidate(wal_end));
            session.brought = session.brought.max(wal_end);
        }
        self.pass_fences();
    }

    // --- positions

    /// What the watermark must be now: the highest candidate of this session before which all is
    /// done, or `0/0` while that is below what the slot had confirmed.
    fn allowed(&mut self) -> Option<Lsn> {
        let session = self.session.as_mut()?;
        let waits = self.resumed > session.brought;
        while let Some(item) = session.items.get(session.done).filter(|_| !waits) {
            match *item {
                Item::Message(message) if !self.messages[message].settled => break,
                Item::Message(message)
                    if self.messages[message].fence.is_some_and(|at| at > session.brought) =>
                {
                    break;
                }
                Item::Message(_) => {}
                Item::Candidate(lsn) => session.best = session.best.max(lsn),
            }
            session.done += 1;
        }
        Some(if session.best >= session.confirmed { session.best } else { Lsn::INVALID })
    }

    /// Looks at the engine after anything happened.
    pub(super) fn look(
        &mut self,
        pg: &Postgres,
        watermark: Lsn,
        in_flight: InFlight,
        ledger: usize,
    ) -> Verdict {
        if let Some(allowed) = self.allowed() {
            // Fences that join, or that an earlier session did not reach, hold back more.
            let fenced = self.session.as_ref().is_some_and(|session| self.fences > session.brought);
            let right = watermark == allowed || (fenced && watermark < allowed);
            self.hold(Rule::Watermark, right, || {
                format!("the watermark is {watermark}, the receipts allow {allowed}")
            })?;
            if self.strict {
                self.position(pg, watermark, "the watermark")?;
            }
        }
        self.hold(Rule::Window, in_flight == self.waiting, || {
            format!("{in_flight:?} is reported, it is {:?}", self.waiting)
        })?;
        let fences = if self.fences.is_valid() { 3 * self.messages_max + 3 } else { 0 };
        self.hold(Rule::Window, ledger <= self.messages_max + 1 + fences, || {
            format!("the ledger has {ledger} entries")
        })
    }

    /// A position must not lie past a committed row of the present timeline without a receipt, as far as
    /// the slot's stream brings it; the others must be there in the end.
    fn position(&mut self, pg: &Postgres, position: Lsn, whose: &str) -> Verdict {
        let Some(birth) = pg.slot.as_ref().map(|slot| slot.birth) else { return Ok(()) };
        while let Some(tx) = pg.wal.get(self.safe).filter(|tx| tx.id.commit_lsn < position) {
            let streamed = tx.changes.iter().filter(|c| !c.hidden && tx.id.commit_lsn >= birth);
            for row in streamed.filter_map(|change| change.row) {
                let receipted = self.ever_receipted.get(row).copied().unwrap_or(false);
                self.hold(Rule::Lost, receipted || pg.is_kept(row), || {
                    format!(
                        "{whose} {position} is past row {row} of {:?}, which has no receipt",
                        tx.id
                    )
                })?;
                self.holds_mark(pg, row, || format!("{whose} {position} is past it"))?;
            }
            self.safe += 1;
        }
        Ok(())
    }

    /// The server's confirmed position has moved.
    pub(super) fn confirmed(&mut self, pg: &Postgres) -> Verdict {
        self.position(pg, pg.confirmed(), "the confirmed position")
    }

    /// Transactions are gone: the present timeline has only these.
    pub(super) fn timeline(&mut self, pg: &Postgres) -> Verdict {
        self.safe = self.safe.min(pg.wal.len());
        self.first_sent.iter_mut().for_each(|at| *at = (0, 0));
        self.row_written(pg)
    }

    /// All faults are over and all was given time: what must be true now.
    pub(super) fn end(&mut self, pg: &Postgres, stored: &[bool]) -> Verdict {
        let left = pg.kept.rows.iter().find(|row| !pg.rows[row.serial].unfit);
        self.hold(Rule::Stuck, left.is_none(), || format!("{left:?} is kept at the end"))?;
        self.hold(Rule::Stuck, pg.confirmed() == pg.end(), || {
            format!("{} is confirmed, the WAL ends at {}", pg.confirmed(), pg.end())
        })?;
        self.confirmed(pg)?;
        for row in pg.wal.iter().flat_map(|tx| &tx.changes).filter_map(|change| change.row) {
            let unfit = pg.rows[row].unfit && pg.is_kept(row);
            let gone = unfit || pg.standing(row) == Standing::DeletedByUser;
            self.hold(Rule::Lost, gone || stored.get(row).copied().unwrap_or(false), || {
                format!("the broker never stored row {row}")
            })?;
            self.holds_mark(pg, row, || "all is over".to_owned())?;
        }
        self.hold(Rule::Stuck, self.waiting.messages == 0, || {
            format!("{:?} at the end", self.waiting)
        })
    }

    /// How far the stream was brought.
    pub(super) fn brought(&self) -> Option<Lsn> {
        Some(self.session.as_ref()?.brought)
    }

    /// Those of them that are waited for at the end.
    pub(super) fn to_drain(&self) -> usize {
        self.waiting.messages - self.loaded_now
    }

    /// Messages without a receipt, or whose rows are not marked.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.messages
    }
}
