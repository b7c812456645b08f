//! The pump's two sides: the replication connection and the lanes.

use std::rc::Rc;

use crate::engine::{Change, LaneDown, Outgoing, Receipt, StreamError};

use super::Payload;
use super::broker::Answer;
use super::driver::Driver;
use super::postgres::Transaction;
use super::relay::Stage;
use super::rule::{Rule, Verdict, Violation};
use super::slot::Wire;

/// A change that was announced and waits for room in the window.
#[derive(Debug)]
pub(super) struct Pending {
    tx: Rc<Transaction>,
    index: usize,
    serial: usize,
}

impl Driver {
    // --- the source

    pub(super) fn lose_source(&mut self) -> Verdict {
        self.pg.stop();
        self.uplink.clear();
        self.pending = None;
        self.relay.stage = Stage::Look;
        self.relay.checking = None;
        self.relay.checked = false;
        if self.judge.in_session() {
            self.tally.broken_off += u64::from(self.engine.in_transaction());
            self.engine.session_lost();
            self.judge.session_lost();
        }
        self.look()
    }

    /// Reads up to `burst` parts of the stream; true in the end when something was read.
    pub(super) fn read(&mut self, burst: usize, keepalives: u8) -> Verdict {
        if !matches!(self.relay.stage, Stage::Streaming) {
            return Ok(());
        }
        for _ in 0..burst {
            if self.pending.is_some() {
                return self.accept();
            }
            let Some(wire) = self.pg.send(&mut self.rng, keepalives) else { break };
            self.on_wire(wire)?;
        }
        Ok(())
    }

    pub(super) fn on_wire(&mut self, wire: Wire) -> Verdict {
        match wire {
            Wire::Begin(tx) => {
                self.note(format_args!("Begin {:?} #{}", tx.id, tx.uid));
                honest(self.engine.begin(tx.id))?;
                self.judge.begin(&tx);
            }
            Wire::Change(tx, index) => return self.on_change(tx, index),
            Wire::Commit(tx) => {
                self.note(format_args!("Commit #{} end {}", tx.uid, tx.end));
                honest(self.engine.commit(tx.id.commit_lsn, tx.end))?;
                self.judge.commit(&tx);
            }
            Wire::Keepalive(wal_end) => {
                self.note(format_args!("keepalive {wal_end}"));
                self.engine.keepalive(wal_end);
                self.judge.keepalive(wal_end);
            }
        }
        self.look()
    }

    fn on_change(&mut self, tx: Rc<Transaction>, index: usize) -> Verdict {
        let logged = tx.changes[index];
        let said = honest(self.engine.change(logged.lsn))?;
        self.note(format_args!(
            "change {index} of #{} at {}: {:?} {said:?}",
            tx.uid, logged.lsn, logged.row
        ));
        self.judge.change(&tx, index, said)?;
        match (said, logged.row) {
            (Change::New, Some(serial)) => {
                self.pending = Some(Pending { tx, index, serial });
                self.accept()
            }
            (Change::Known, _) => {
                self.tally.known += 1;
                self.look()
            }
            (Change::New, None) => self.look(),
        }
    }

    /// The pending change becomes a message if the window has room.
    fn accept(&mut self) -> Verdict {
        let Some(pending) = self.pending.take() else { return Ok(()) };
        let row = self.pg.rows[pending.serial];
        let fits = self.engine.fits(row.size);
        self.judge.fits(row.size, fits)?;
        if !fits {
            self.tally.full += 1;
            self.pending = Some(pending);
            return Ok(());
        }
        let Pending { tx, index, serial } = pending;
        self.judge.no_seam(&self.pg, serial, &tx)?;
        let key_hash = key_hash(row.key);
        let lane = usize::try_from(key_hash % self.schedule.lanes as u64).unwrap();
        let message = self.judge.accept(&tx, index, serial, &row, lane);
        self.note(format_args!("accept row {serial} as message {message} on lane {lane}"));
        self.tally.accepted += 1;
        let payload = Payload { message, serial, destination: row.destination };
        let marks = self.schedule.marking.is_some();
        let unfit = row.unfit;
        honest(self.engine.accept(Outgoing { key_hash, size: row.size, marks, unfit, payload }))?;
        self.look()
    }

    // --- status updates

    pub(super) fn report(&mut self) {
        if self.pg.connected() {
            self.uplink.push_back(self.engine.watermark());
        }
    }

    pub(super) fn arrive(&mut self) -> Verdict {
        let Some(position) = self.uplink.pop_front() else { return Ok(()) };
        self.note(format_args!("flush {position}"));
        self.pg.flush(position);
        self.judge.confirmed(&self.pg)
    }

    // --- the broker

    pub(super) fn connect(&mut self, lane: usize) -> Verdict {
        if self.broker.up(lane) || !self.engine.needs_lane(lane, self.now) {
            return Ok(());
        }
        if self.broker.unreachable {
            return self.lose_lane(lane, LaneDown::ConnectFailed);
        }
        self.note(format_args!("lane {lane} up"));
        self.broker.connect(lane);
        self.engine.lane_up(lane, self.now);
        if !self.schedule.heartbeats {
            self.engine.no_heartbeats(lane);
        }
        self.judge.lane_up(lane, self.now);
        self.look()
    }

    pub(super) fn lose_lane(&mut self, lane: usize, why: LaneDown<'_>) -> Verdict {
        if !self.broker.up(lane) && why != LaneDown::ConnectFailed {
            return Ok(());
        }
        self.note(format_args!("lane {lane} down: {why:?}"));
        self.broker.lose(lane);
        self.judge.lane_down(lane, why, self.now);
        self.engine.lane_down(lane, why, self.now);
        self.look()
    }

    pub(super) fn unreachable(&mut self) -> Verdict {
        self.broker.unreachable = !self.broker.unreachable;
        if self.broker.unreachable {
            for lane in 0..=self.schedule.lanes {
                // It may say a last word.
                let words = "shutting down";
                let why = match self.rng.bool() {
                    true => LaneDown::Refused { receipt: None, words },
                    false => LaneDown::Lost,
                };
                self.lose_lane(lane, why)?;
            }
        }
        Ok(())
    }

    /// Writes what the engine gives into the lane's buffer.
    pub(super) fn pump(&mut self, lane: usize) -> Verdict {
        while !self.halted && (self.broker.has_room(lane) || !self.broker.up(lane)) {
            let announced = self.engine.has_unsent(lane);
            let given = self.engine.next_send(lane, self.now);
            self.judge.hold(Rule::Sending, announced == given.is_some(), || {
                format!("lane {lane} announces {announced} and gives {given:?}")
            })?;
            self.judge.sent(&self.pg, lane, given, self.now)?;
            let Some((Receipt(number), &payload)) = given else { break };
            self.judge.origin(self.engine.transaction(Receipt(number)).is_some(), payload)?;
            self.note(format_args!("SEND {payload:?} as {number} on lane {lane}"));
            self.tally.tried += u64::from(lane == self.schedule.lanes);
            if !self.broker.up(lane) {
                break; // a faulty engine: there is no connection to write to
            }
            self.broker.write(lane, number, payload.serial);
        }
        self.look()
    }

    pub(super) fn take(&mut self, lane: usize, burst: usize) -> Verdict {
        for _ in 0..burst {
            self.broker.take(lane, &mut self.pg.rows, &mut self.rng);
        }
        Ok(())
    }

    pub(super) fn answers(&mut self, lane: usize, burst: usize) -> Verdict {
        for _ in 0..burst {
            let Some(answer) = self.broker.answer(lane, &mut self.rng) else { break };
            self.note(format_args!("lane {lane} reads {answer:?}"));
            match answer {
                Answer::Receipt(number) => self.receipt(lane, number)?,
                Answer::Probe => {
                    self.engine.probe_answered(lane, self.now);
                    self.judge.probe_answered(lane, self.now);
                    self.look()?;
                }
                Answer::Closed => {
                    self.tally.closed += 1;
                    return self.lose_lane(lane, LaneDown::Lost);
                }
                Answer::Error { named, words } => {
                    self.tally.refusals += 1;
                    let receipt = named.map(Receipt);
                    return self.lose_lane(lane, LaneDown::Refused { receipt, words: &words });
                }
            }
        }
        Ok(())
    }

    fn receipt(&mut self, lane: usize, number: u64) -> Verdict {
        let said = self.engine.receipt(lane, Receipt(number), self.now);
        self.tally.receipts += u64::from(said.is_some());
        self.judge.receipt(lane, number, said, self.now)?;
        self.look()
    }

    /// A receipt that answers nothing outstanding on the lane.
    pub(super) fn garbage(&mut self, lane: usize) -> Verdict {
        let Some(number) = self.judge.some_number(lane, &mut self.rng) else { return Ok(()) };
        if !self.broker.up(lane) {
            return Ok(());
        }
        self.note(format_args!("lane {lane} reads a stray receipt {number}"));
        self.tally.garbage += 1;
        self.receipt(lane, number)
    }
}

/// Decides the lane of a key.
pub(super) fn key_hash(key: u64) -> u64 {
    key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 8
}

/// The model's stream is never malformed.
pub(super) fn honest<T>(said: Result<T, StreamError>) -> Result<T, Violation> {
    said.map_err(|error| Violation { rule: Rule::Stream, what: error.to_string() })
}
