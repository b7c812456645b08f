//! The relay's own steps between a start and the stream: the row, the slot, the recovery. One step at a
//! time, so that anything may happen between two.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::engine::{Certifier, Connections, Fault, Outgoing};
use crate::pgoutput::PgTime;

use super::Payload;
use super::driver::Driver;
use super::misstep::Misstep;
use super::pump::{honest, key_hash};
use super::relay_row::{Guard, RelayRow, Snapshot, State, Update};
use super::rule::{Rule, Verdict};
use super::step::Step;
use super::table::Standing;

/// Where the relay stands.
#[derive(Clone, Debug, Default)]
pub(super) enum Stage {
    /// Nothing is known: it looks at row and slot.
    #[default]
    Look,
    /// The row is there; the slot is being made, since what was found of the publication.
    Making(Guard),
    /// The slot is there and stays; what was in progress has to end before the snapshot is taken.
    Older(Guard, u64),
    /// The snapshot up to which rows are to be published out of the table is to be stored.
    Taken(Guard, Rc<Snapshot>),
    /// All is stored: the slot is to be held.
    Ready,
    /// The slot is held, rows are read out of the table.
    Rows,
    /// The slot is held, these rows are published.
    Chunk(VecDeque<usize>, usize),
    /// The slot is held, the stream is read.
    Streaming,
}

/// What one walpost knows.
#[derive(Debug, Default)]
pub(super) struct Relay {
    pub(super) stage: Stage,
    pub(super) epoch: u64,
    /// What the publication must still be.
    pub(super) guard: Option<Guard>,
    pub(super) certifier: Certifier<Rc<Snapshot>>,
    /// The guard's check before the snapshot has found what it must.
    pub(super) checked: bool,
    /// The guard's check after the watermark has passed: what it found.
    pub(super) checking: Option<Guard>,
    /// The latest snapshot that this process has certified.
    pub(super) certified: Option<Rc<Snapshot>>,
    resumed: bool,
    /// The timeline that the latest session was on.
    pub(super) timeline: Option<u64>,
}

impl Relay {
    pub(super) fn new(fault: Option<Fault>) -> Self {
        let certifier = fault.map_or_else(Certifier::default, Certifier::with_fault);
        Relay { certifier, ..Relay::default() }
    }
}

impl Driver {
    /// The relay does its next step, unless it streams already.
    pub(super) fn open_source(&mut self) -> Verdict {
        match self.relay.stage.clone() {
            Stage::Look => self.look_at_row(),
            Stage::Making(guard) => self.make_slot(guard),
            Stage::Older(guard, barrier) => {
                let ended = self.pg.older_ended(barrier);
                if ended || self.slips(Misstep::OlderNotAwaited) {
                    self.relay.stage = Stage::Taken(guard, Rc::new(self.pg.snapshot()));
                } else {
                    self.tally.awaited += 1;
                }
                Ok(())
            }
            Stage::Taken(guard, upper) => self.store_upper(guard, upper),
            Stage::Ready => self.hold_slot(),
            Stage::Rows => self.read_rows(),
            Stage::Chunk(rows, last) => self.publish_rows(rows, last),
            Stage::Streaming => Ok(()),
        }
    }

    pub(super) fn slips(&self, misstep: Misstep) -> bool {
        self.misstep == Some(misstep)
    }

    fn look_at_row(&mut self) -> Verdict {
        let row = self.pg.relay.clone();
        let slot = self.pg.slot.clone();
        self.note(format_args!("look: {row:?}, {slot:?}"));
        let usable = slot.is_some_and(|slot| {
            let ahead = slot.confirmed > self.pg.end() && !self.slips(Misstep::SlotAheadKept);
            !slot.invalid && !ahead
        });
        let Some(row) = row else {
            if usable {
                return self.recover_here(); // made by hand, as far as anybody knows
            }
            let slot_first = self.slips(Misstep::SlotBeforeRow);
            return if slot_first { self.making() } else { self.create() };
        };
        match row.state {
            State::Creating if usable && self.slips(Misstep::UnfinishedSlotKept) => {
                self.recover_here()
            }
            // The slot that is there is our own unfinished one.
            State::Creating => self.making(),
            _ if !usable => {
                self.tally.slots_lost += 1;
                self.create()
            }
            _ if row.timeline != self.pg.timeline && !self.slips(Misstep::TimelineIgnored) => {
                self.recover_here()
            }
            _ if row.guard != self.pg.publication && !self.slips(Misstep::GuardOfSession) => {
                self.tally.guarded += 1;
                self.recover_here()
            }
            _ => {
                self.relay.stage = Stage::Ready;
                Ok(())
            }
        }
    }

    /// An operator sees to it that the publication is as it must be; what is found then.
    fn mended_publication(&mut self) -> Guard {
        if !self.pg.publication.good {
            self.pg.alter_publication(true);
        }
        self.pg.publication
    }

    /// The slot is to be made, or made anew: the row says so first.
    fn create(&mut self) -> Verdict {
        let row = self.pg.relay.as_deref().cloned();
        let row = RelayRow {
            state: State::Creating,
            upper: None,
            cursor: row
                .as_ref()
                .and_then(|row| row.cursor)
                .filter(|_| self.slips(Misstep::CursorKept)),
            ..row.map_or_else(|| self.first_row(), |row| self.raised(row))
        };
        self.pg.write_relay(row);
        self.judge.row_written(&self.pg)?;
        self.making()
    }

    /// Whatever an earlier relay was about to write was about another recovery.
    fn raised(&self, row: RelayRow) -> RelayRow {
        let raise = u64::from(!self.slips(Misstep::EpochOfSession));
        RelayRow { epoch: row.epoch + raise, ..row }
    }

    fn first_row(&self) -> RelayRow {
        RelayRow {
            epoch: 0,
            timeline: self.pg.timeline,
            state: State::Creating,
            certified: Rc::default(),
            upper: None,
            cursor: None,
            guard: self.pg.publication,
            large: None,
        }
    }

    fn making(&mut self) -> Verdict {
        self.pg.drop_slot();
        self.pg.making = None;
        let guard = self.mended_publication();
        self.early = self.slips(Misstep::SnapshotBeforeSlot).then(|| Rc::new(self.pg.snapshot()));
        self.relay.stage = Stage::Making(guard);
        Ok(())
    }

    fn make_slot(&mut self, guard: Guard) -> Verdict {
        let Some(exported) = self.pg.make_slot() else {
            self.tally.awaited += 1;
            return Ok(());
        };
        self.note(format_args!("the slot is made, and exports {exported:?}"));
        self.judge.slot_made(&self.pg, &exported)?;
        if self.slips(Misstep::StreamingBeforeSnapshot)
            && let Some(row) = self.pg.relay.as_deref().cloned()
        {
            self.pg.write_relay(RelayRow { state: State::Streaming, ..row });
        }
        let upper = self.early.take().unwrap_or_else(|| Rc::new(exported));
        self.relay.stage = Stage::Taken(guard, upper);
        Ok(())
    }

    /// The slot is there, and yet its stream may not have brought everything: what the certified snapshot
    /// does not cover is published out of the table, up to now.
    fn recover_here(&mut self) -> Verdict {
        let guard = self.mended_publication();
        // What is in progress may have written rows that are in no stream; or it has committed at a
        // position that the slot is past, and is not visible yet.
        self.relay.stage = Stage::Older(guard, self.pg.xid + 1);
        Ok(())
    }

    fn store_upper(&mut self, guard: Guard, upper: Rc<Snapshot>) -> Verdict {
        let before = self.pg.relay.as_deref().cloned();
        let creating = before.as_ref().is_some_and(|row| row.state == State::Creating);
        let cursor =
            before.as_ref().and_then(|row| row.cursor).filter(|_| self.slips(Misstep::CursorKept));
        let row = before.unwrap_or_else(|| self.first_row());
        let late = self.slips(Misstep::GuardAfterSnapshot);
        let certified = match &self.relay.certified {
            Some(old) if self.slips(Misstep::OldPrimarysSnapshot) => Rc::clone(old),
            _ => Rc::clone(&row.certified),
        };
        self.note(format_args!("recovery of what {upper:?} sees and {certified:?} does not"));
        self.pg.write_relay(RelayRow {
            timeline: self.pg.timeline,
            state: State::Recovering,
            certified,
            upper: Some(upper),
            cursor,
            guard: if late { self.pg.publication } else { guard },
            ..self.raised(row)
        });
        self.relay.stage = Stage::Ready;
        self.judge.upper_stored(&self.pg, creating)?;
        self.judge.row_written(&self.pg)
    }

    /// The slot is ours.
    fn hold_slot(&mut self) -> Verdict {
        let Some(row) = self.pg.relay.as_deref().cloned() else { return Ok(()) };
        let Some(confirmed) = self.pg.start() else { return self.lose_source() };
        self.note(format_args!("session, confirmed {confirmed}"));
        self.connections.session += 1;
        self.connections.sql += 1;
        self.relay.epoch = row.epoch + 1;
        self.relay.guard =
            Some(if self.slips(Misstep::GuardOfSession) { self.pg.publication } else { row.guard });
        if !self.relay.resumed
            && let Some((id, up_to)) = row.large
        {
            self.note(format_args!("resume {id:?} after {up_to:?}"));
            self.tally.resumed += 1;
            self.engine.resume(id, up_to, self.pg.end());
            self.judge.resumed(&self.pg, id, up_to);
        }
        self.relay.resumed = true;
        self.relay.stage = match row.state {
            State::Streaming => Stage::Streaming,
            _ => Stage::Rows,
        };
        self.pg.write_relay(RelayRow { epoch: self.relay.epoch, ..row });
        self.forget_marks();
        self.engine.session_started(confirmed);
        self.judge.session_started(confirmed);
        let found = self.in_table();
        self.judge.looked_by_name(&found, self.now);
        self.engine.looked(found, self.now);
        self.look()
    }

    fn read_rows(&mut self) -> Verdict {
        let Some(row) = self.pg.relay.clone() else { return self.lose_source() };
        let Some(upper) = row.upper.clone() else { return self.lose_source() };
        // What the slot exports is told by commit records: some of it nobody can read yet, and would be
        // passed over.
        if !self.pg.sees_all_of(&upper) && !self.slips(Misstep::UnseenPassedOver) {
            self.tally.awaited += 1;
            return Ok(());
        }
        let limit = if self.rng.bool() { 1 } else { self.rng.usize(2..=4) };
        let by_status = self.schedule.by_status;
        let due = |serial| {
            row.cursor.is_none_or(|cursor| self.pg.order(serial) > cursor)
                && !(by_status && self.pg.standing(serial) == Standing::Marked)
        };
        let wanted = |xid| upper.sees(xid) && !row.certified.sees(xid);
        let chunk = VecDeque::from(self.pg.table(limit, wanted, due));
        self.note(format_args!("chunk {chunk:?}"));
        match chunk.back().copied() {
            Some(last) => {
                self.relay.stage = Stage::Chunk(chunk, last);
                if self.slips(Misstep::CursorBeforeReceipts) {
                    return self.store(&Update::Cursor(self.pg.order(last)));
                }
                if self.slips(Misstep::RecoveredTooEarly) {
                    self.pg.update_relay(None, &Update::Certified(upper));
                }
                Ok(())
            }
            None => {
                self.tally.recoveries += 1;
                self.relay.stage = Stage::Streaming;
                self.store(&Update::Recovered)
            }
        }
    }

    fn publish_rows(&mut self, mut rows: VecDeque<usize>, last: usize) -> Verdict {
        while let Some(&serial) = rows.front() {
            let row = self.pg.rows[serial];
            let fits = self.engine.fits(row.size);
            self.judge.fits(row.size, fits)?;
            if !fits {
                self.tally.full += 1;
                break;
            }
            rows.pop_front();
            let key_hash = key_hash(row.key);
            let lane = usize::try_from(key_hash % self.schedule.lanes as u64).unwrap();
            let created = PgTime(i64::try_from(row.created).unwrap());
            let message = self.judge.recovered(&self.pg, serial, lane, created)?;
            self.note(format_args!("recover row {serial} as message {message} on lane {lane}"));
            self.tally.recovered += 1;
            let payload = Payload { message, serial, destination: row.destination };
            let marks = self.schedule.marking.is_some();
            let unfit = row.unfit;
            let outgoing = Outgoing { key_hash, size: row.size, marks, unfit, payload };
            honest(self.engine.recover(created, outgoing))?;
        }
        let done = rows.is_empty() && self.engine.is_drained();
        self.judge.hold(
            Rule::Window,
            self.engine.is_drained() == (self.judge.to_drain() == 0),
            || format!("drained with {} messages in flight", self.judge.to_drain()),
        )?;
        self.relay.stage = Stage::Chunk(rows, last);
        if done {
            self.relay.stage = Stage::Rows;
            self.store(&Update::Cursor(self.pg.order(last)))?;
        }
        self.look()
    }

    /// The relay writes to its row; or it is frozen just before, and another is started in its place.
    pub(super) fn store(&mut self, update: &Update) -> Verdict {
        let worth = matches!(update, Update::Cursor(_) | Update::Recovered);
        if self.doomed && (worth || self.rng.bool()) {
            self.note(format_args!("frozen before {update:?}"));
            self.doomed = false;
            self.frozen = Some((self.relay.epoch, update.clone()));
            return self.restart();
        }
        self.note(format_args!("store {update:?}"));
        self.pg.update_relay(Some(self.relay.epoch), update);
        self.judge.row_written(&self.pg)?;
        let worth = matches!(update, Update::Cursor(_)) && self.rng.u8(..3) == 0;
        if self.slot_doomed && worth {
            self.slot_doomed = false;
            return self.server(Step::LoseSlot);
        }
        Ok(())
    }

    /// The relay that was frozen writes what it was about to.
    pub(super) fn thaw(&mut self) -> Verdict {
        let Some((epoch, update)) = self.frozen.take() else { return Ok(()) };
        self.note(format_args!("thawed: {update:?}"));
        let epoch = Some(epoch).filter(|_| !self.slips(Misstep::EpochIgnored));
        self.tally.thawed += 1;
        self.tally.refused_writes += u64::from(!self.pg.update_relay(epoch, &update));
        self.judge.row_written(&self.pg)
    }

    /// Which connections are open.
    pub(super) fn on(&self) -> Connections {
        if self.slips(Misstep::ConnectionsAlike) {
            return Connections { session: 0, sql: 0 };
        }
        self.connections
    }
}
