//! Plays the pump: between the engine on one side and the two models on the other, and tells the
//! judge of everything.

use std::collections::VecDeque;
use std::fmt::Arguments;
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;

use crate::engine::{Action, Connections, Engine, Fault, LaneDown, Notice};
use crate::lsn::Lsn;

use super::Payload;
use super::broker::Broker;
use super::judge::Judge;
use super::marker::Marker;
use super::misstep::{Defect, Misstep};
use super::parker::Parker;
use super::postgres::{Fate, Postgres};
use super::pump::Pending;
use super::relay::{Relay, Stage};
use super::relay_row::{Snapshot, Update};
use super::rule::{Rule, Verdict, Violation};
use super::schedule::{Schedule, Shape};
use super::step::Step;
use super::tally::Tally;

/// One schedule as it runs.
pub(super) struct Driver {
    pub(super) rng: Rng,
    pub(super) schedule: Schedule,
    pub(super) fault: Option<Fault>,
    pub(super) misstep: Option<Misstep>,
    pub(super) now: Duration,
    pub(super) pg: Postgres,
    pub(super) broker: Broker,
    pub(super) engine: Engine<Payload>,
    pub(super) judge: Judge,
    pub(super) relay: Relay,
    /// The numbers of the latest connections to PostgreSQL.
    pub(super) connections: Connections,
    /// What a relay that was frozen wants to write, and its epoch.
    pub(super) frozen: Option<(u64, Update)>,
    /// The slot is lost while rows are recovered.
    pub(super) slot_doomed: bool,
    /// The relay is frozen before its next write.
    pub(super) doomed: bool,
    /// A misstep's: taken before the slot is made.
    pub(super) early: Option<Rc<Snapshot>>,
    pub(super) pending: Option<Pending>,
    pub(super) marker: Marker,
    pub(super) parker: Parker,
    /// Status updates on their way.
    pub(super) uplink: VecDeque<Lsn>,
    /// All faults have ended, and the applications with them.
    pub(super) calm: bool,
    /// The engine has halted.
    pub(super) halted: bool,
    pub(super) tally: Tally,
    /// What happened, kept when asked for.
    pub(super) trace: Option<Vec<String>>,
}

impl Driver {
    pub(super) fn new(seed: u64, defect: Option<Defect>, strict: bool, traced: bool) -> Self {
        let fault = defect.and_then(Defect::engine);
        let mut rng = Rng::with_seed(seed);
        let schedule = Schedule::draw(&mut rng, Shape::of(seed));
        let mut driver = Driver {
            now: Duration::from_secs(1_000),
            fault,
            misstep: defect.and_then(Defect::protocol),
            pg: Postgres::new(&schedule),
            broker: Broker::new(&schedule),
            engine: engine(&schedule, fault),
            judge: Judge::new(&schedule, strict),
            relay: Relay::new(fault),
            connections: Connections { session: 0, sql: 0 },
            frozen: None,
            slot_doomed: false,
            doomed: false,
            early: None,
            pending: None,
            marker: Marker::Idle,
            parker: Parker::default(),
            uplink: VecDeque::new(),
            calm: false,
            halted: false,
            tally: Tally::default(),
            trace: traced.then(Vec::new),
            rng,
            schedule,
        };
        let drawn = if traced { format!("{:?}", driver.schedule) } else { String::new() };
        driver.note(format_args!("{drawn}"));
        driver
    }

    /// Runs the schedule, then the calm, then has the judge look at the end.
    pub(super) fn run(&mut self) -> Verdict {
        while self.schedule.started && !matches!(self.relay.stage, Stage::Streaming) {
            self.open_source()?;
        }
        for _ in 0..self.schedule.steps {
            let step = self.schedule.next(&mut self.rng);
            self.step(step)?;
            if self.halted {
                self.mend_and_restart()?;
            }
        }
        self.calm()?;
        self.judge.end(&self.pg, &self.broker.stored)
    }

    pub(super) fn note(&mut self, what: Arguments<'_>) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>9.3} {what}", self.now.as_secs_f64()));
        }
    }

    fn step(&mut self, step: Step) -> Verdict {
        let trial = usize::from(self.engine.needs_lane(self.schedule.lanes, self.now));
        let lane = match self.rng.u8(..4) {
            0 if trial == 1 => self.schedule.lanes,
            _ => self.rng.usize(..self.schedule.lanes + trial),
        };
        let burst = self.rng.usize(1..=4);
        match step {
            Step::Write => self.pg.write(&mut self.rng, &self.schedule),
            Step::Read => return self.read(burst, 12),
            Step::Pump => return self.pump(lane),
            Step::Take => return self.take(lane, burst),
            Step::Answer => return self.answers(lane, burst),
            Step::Report => self.report(),
            Step::Arrive => return self.arrive(),
            Step::Checkpoint => self.pg.checkpoint(),
            Step::Wait => {
                let millis = self.rng.u64(1..=900);
                return self.wait(Duration::from_millis(millis));
            }
            Step::WaitLong => {
                let millis = self.rng.u64(1_000..=60_000);
                return self.wait(Duration::from_millis(millis));
            }
            Step::Connect => return self.connect(lane),
            Step::OpenSource => return self.open_source(),
            Step::LoseLane => return self.lose_lane(lane, LaneDown::Lost),
            Step::Unreachable => return self.unreachable(),
            Step::Freeze => self.broker.frozen = !self.broker.frozen,
            Step::Garbage => return self.garbage(lane),
            Step::Certify => return self.certify(),
            Step::Large => return self.note_large(),
            Step::Retain => self.retain(),
            Step::Mark => return self.mark(),
            Step::Lock => self.pg.lock(&mut self.rng),
            Step::UserDeletes => self.user_deletes(),
            Step::Park => return self.park(),
            Step::Operator => self.operator(false),
            Step::Alter => self.alter_publication(),
            // Mostly when it can do the most harm.
            Step::Thaw if matches!(self.relay.stage, Stage::Ready) || burst == 1 => {
                return self.thaw();
            }
            Step::Thaw => {}
            Step::LoseSlot if burst > 2 => self.slot_doomed = true,
            _ => return self.server(step),
        }
        Ok(())
    }

    /// Trouble that ends the replication connection.
    pub(super) fn server(&mut self, step: Step) -> Verdict {
        self.note(format_args!("{step:?}"));
        match step {
            Step::Restart => self.pg.restart(),
            Step::Crash => self.pg.crash(&mut self.rng),
            Step::Failover => {
                self.tally.failovers += 1;
                self.pg.failover(&mut self.rng, &self.schedule);
                self.judge.failed_over();
                // It may have been in use for long when walpost finds it.
                for _ in 0..self.rng.usize(..12) {
                    self.pg.write(&mut self.rng, &self.schedule);
                }
            }
            Step::LoseSlot => self.pg.lose_slot(&mut self.rng),
            Step::Kill => {
                // Some are not killed but frozen, when they are about to write.
                self.doomed = self.schedule.freezes && self.rng.bool();
                if !self.doomed {
                    self.restart()?;
                }
                return Ok(());
            }
            _ => self.pg.stop(),
        }
        if matches!(step, Step::Restart | Step::Crash | Step::Failover) {
            self.frozen = None;
        }
        self.judge.timeline(&self.pg)?;
        self.lose_source()
    }

    // --- time and looking

    /// Time passes; the pump wakes when the engine asked to be woken, or late.
    fn wait(&mut self, span: Duration) -> Verdict {
        let until = self.now + span;
        let late = self.rng.u8(..4) == 0;
        let mut turns = 0;
        while let Some(deadline) = self.engine.deadline().filter(|&at| at <= until) {
            self.now = if late { until } else { self.now.max(deadline) };
            turns += 1;
            self.judge.hold(Rule::Silence, turns < 100, || {
                format!("the deadline {deadline:?} never passes")
            })?;
            if turns >= 100 {
                break;
            }
            self.engine.tick(self.now);
            self.look()?;
            self.judge.silence(self.now)?;
        }
        self.now = until;
        self.judge.silence(self.now)
    }

    /// Does what the engine asks for, then has the judge look at it.
    pub(super) fn look(&mut self) -> Verdict {
        while let Some(action) = self.engine.next_action() {
            self.note(format_args!("{action:?}"));
            match action {
                Action::Probe { lane } => {
                    self.tally.probes += 1;
                    self.judge.probe(lane, self.now)?;
                    self.broker.write_probe(lane);
                }
                Action::Close { lane, why } => {
                    self.tally.closes += 1;
                    self.judge.close(lane, why, self.now)?;
                    self.lose_lane(lane, LaneDown::Lost)?;
                }
                Action::Halt(halt) => {
                    self.tally.halts += 1;
                    self.judge.halt(&halt)?;
                    self.halted = true;
                }
                Action::Notice(notice) => {
                    self.tally.opened += u64::from(matches!(notice, Notice::Opened { .. }));
                    self.tally.parked += u64::from(matches!(notice, Notice::Parked { .. }));
                    self.tally.full_up += u64::from(notice == Notice::Full);
                    self.judge.noticed(&self.pg, &notice)?;
                }
            }
        }
        self.judge.all_noticed()?;
        for lane in 0..=self.schedule.lanes {
            self.judge.blocked(lane, self.engine.blocked(lane))?;
        }
        self.judge.owed(self.engine.owed(), self.marker.messages())?;
        self.judge.look(
            &self.pg,
            self.engine.watermark(),
            self.engine.in_flight(),
            self.engine.ledger_len(),
        )
    }

    // --- the calm

    /// All faults end. What is refused for ever must halt the relay; once that is mended,
    /// everything must arrive, and the positions must reach the end of the WAL.
    fn calm(&mut self) -> Verdict {
        self.note(format_args!("calm"));
        self.broker.frozen = false;
        self.broker.unreachable = false;
        self.broker.swallowed = 0;
        self.broker.holding = false;
        if self.schedule.last_slot {
            self.server(Step::LoseSlot)?; // what only its stream would bring is gone
        }
        self.calm = true;
        self.pg.rows.iter_mut().for_each(|row| row.fate = Fate::Taken);
        self.slot_doomed = false;
        self.doomed = false;
        self.pg.quiesce(&mut self.rng);
        self.pg.locked.clear();
        self.thaw()?;
        self.judge.timeline(&self.pg)?;
        let rows = u32::try_from(self.pg.rows.len()).unwrap();
        let limit = self.now
            + (super::PROBE_AFTER + super::RECEIPT_TIMEOUT) * 6
            + super::PAUSE * 6
            + Duration::from_millis(200) * rows; // a small window takes them one by one
        let mut span = Duration::from_millis(100);
        for _ in 0..10_000 {
            let before = self.progress();
            if self.round()? {
                return Ok(());
            }
            let moved = before != self.progress();
            span = if moved {
                Duration::from_millis(100)
            } else {
                (span * 2).min(Duration::from_secs(8))
            };
            self.wait(span)?;
            if self.halted {
                self.mend_and_restart()?;
            }
            let stuck = self.now > limit;
            self.judge.hold(Rule::Stuck, !stuck, || {
                format!("{} messages wait for ever", self.judge.waiting())
            })?;
            if stuck {
                break;
            }
        }
        self.judge.hold(Rule::Stuck, false, || "the calm never ends".to_owned())
    }

    /// One turn of everything; true once there is nothing left to do.
    fn round(&mut self) -> Result<bool, Violation> {
        for _ in 0..3 {
            self.open_source()?;
        }
        for lane in 0..=self.schedule.lanes {
            self.connect(lane)?;
            self.pump(lane)?;
            self.take(lane, 8)?;
            self.answers(lane, 8)?;
            if self.halted {
                return Ok(false);
            }
        }
        self.read(8, 0)?;
        if self.pending.is_none()
            && matches!(self.relay.stage, Stage::Streaming)
            && let Some(wire) = self.pg.idle()
        {
            self.on_wire(wire)?;
        }
        self.report();
        while !self.uplink.is_empty() {
            self.arrive()?;
        }
        for _ in 0..3 {
            self.mark()?;
        }
        self.operator(true);
        for _ in 0..6 {
            self.park()?;
        }
        if !self.all_certified() {
            self.certify()?;
        }
        let done = self.judge.waiting() == 0 && self.pg.confirmed() == self.pg.end();
        let kept = self.pg.kept.rows.iter().any(|row| !self.pg.rows[row.serial].unfit);
        Ok(done && !kept && self.all_certified())
    }

    /// What goes on while anything does.
    fn progress(&self) -> (u64, Lsn, usize, usize, usize) {
        let kept = self.pg.kept.rows.len();
        let waiting = self.judge.waiting();
        (self.tally.receipts, self.pg.confirmed(), self.pg.reading(), kept, waiting)
    }
}

pub(super) fn engine(schedule: &Schedule, fault: Option<Fault>) -> Engine<Payload> {
    match fault {
        Some(fault) => Engine::with_fault(schedule.settings(), fault),
        None => Engine::new(schedule.settings()),
    }
}
