//! The pump: the one task that owns source, engine and lanes.
//!
//! A row crosses no channel and no thread on its way. Each turn reads one buffer from the slot,
//! lets each lane read receipts and write, and sends the status update that is due; it ends when
//! no socket has more to give.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, Sleep};
use tracing::info;

use super::clock::Clock;
use super::first_start::FirstStart;
use super::intake::Intake;
use super::link::Link;
use super::marking::{Batch, Outcome};
use super::needs::Needs;
use super::pace::Pace;
use super::parking::{Answer, Work};
use super::progress::{Holding, Progress};
use super::published::Published;
use super::recovery_side::Feeding;
use super::report;
use super::settings::Settings;
use super::stop::Stop;
use crate::broker::lane::Lane;
use crate::engine::{Engine, Retry};
use crate::lsn::Lsn;
use crate::net::Logins;
use crate::outbox::{Message, Outbox, SettingsError};
use crate::source::Session;
use crate::telemetry::Telemetry;
use crate::telemetry::status::Phase;
use crate::telemetry::throttle::Throttle;

/// Turns without a pause before other tasks get theirs.
const TURNS: usize = 64;
/// A transaction that was begun is read to its end for so long: a small one is not repeated then.
const FINISH_TRANSACTION: Duration = Duration::from_secs(1);

/// Turns come more often than this unless the process is stopped, or starved.
const STOPPED: Duration = Duration::from_secs(1);
/// After so long without a turn nothing is sent before the slot was seen to be ours still.
const UNSURE: Duration = Duration::from_millis(500);

/// What the pump is told from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// To stop: the first time in good order, the second time at once.
    Stop,
    /// That PostgreSQL shuts down, which would wait for everything it has sent to be confirmed.
    Release,
    /// Who was seen to hold the slot, when asked at that time or later; none: nobody, or nobody can tell.
    Holder(Option<i32>, Instant),
    /// That an operator must act, and that nothing more may be confirmed.
    Halt(Stop),
    /// To begin a new session.
    Reopen,
    /// To begin a new session and publish what is not known to be delivered.
    Recover,
    /// That somebody else has taken the slot.
    Superseded,
    /// What became of a batch of rows to be marked.
    Marked(Outcome),
}

/// The pump's ends of what leads outside.
pub(super) struct Outside {
    /// What it is told.
    pub(super) requests: mpsc::Receiver<Request>,
    /// What it tells.
    pub(super) progress: watch::Sender<Progress>,
    /// Has the holder of the slot be looked up at once.
    pub(super) ask: Arc<Notify>,
    /// Takes rows to be marked.
    pub(super) marker: mpsc::Sender<Batch>,
    /// Takes jobs for what is refused, and what became of them comes back.
    pub(super) parker: mpsc::Sender<Work>,
    pub(super) answers: mpsc::Receiver<Answer>,
}

/// The relay is on its way out.
pub(super) struct Drain {
    /// Outstanding receipts are waited for until then.
    pub(super) deadline: Duration,
    /// Until when a transaction that was begun is read on.
    pub(super) read_until: Duration,
    /// Why, unless it was told to.
    pub(super) stop: Option<Stop>,
    /// It was told again: nothing more is waited for.
    pub(super) at_once: bool,
}

/// Source, engine and lanes.
pub(super) struct Pump {
    pub(super) clock: Clock,
    pub(super) slot: String,
    pub(super) link: Link,
    pub(super) session: Option<Box<Session>>,
    /// Where the slot stood when the session began.
    pub(super) started_at: Lsn,
    pub(super) intake: Intake,
    /// Rows that are published out of the table before the slot is read.
    pub(super) feeding: Option<Feeding>,
    /// What goes with everything that is written of this session.
    pub(super) holding: Option<Holding>,
    /// How many there were.
    pub(super) sessions: u64,
    /// For the keeper.
    pub(super) progress: watch::Sender<Progress>,
    /// Has the holder of the slot be looked up at once.
    ask: Arc<Notify>,
    /// Takes rows to be marked; none: rows stay as they are.
    pub(super) marker: Option<mpsc::Sender<Batch>>,
    /// Why one of them was refused.
    pub(super) marks_refused: Option<String>,
    /// Takes jobs for what is refused, and what became of them comes back.
    pub(super) parker: mpsc::Sender<Work>,
    pub(super) answers: mpsc::Receiver<Answer>,
    pub(super) retry: Retry,
    /// What is kept was looked at in this session: before that nothing is read.
    pub(super) table_known: bool,
    /// Messages that are kept to be sent again, and dead ones.
    pub(super) undelivered: (u64, u64),
    /// Since when jobs fail, and why.
    pub(super) job_failing: Option<(Duration, String)>,
    /// Receipts when the keeper was last told.
    pub(super) told_receipts: u64,
    /// How often in a row somebody else was seen to hold the slot.
    pub(super) doubts: u32,
    /// The process stood still until then: whether the slot is still ours must be seen first.
    pub(super) unsure_since: Option<Instant>,
    pub(super) engine: Engine<Message>,
    pub(super) lanes: Vec<Lane>,
    /// Which lanes the broker was last seen to hold.
    pub(super) blocked: Vec<bool>,
    pub(super) published: Published,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) throttle: Throttle,
    /// For the lines about status updates.
    pub(super) updates: Throttle,
    /// The next connection to the broker is worth a line: the last loss was, or it is the first.
    pub(super) tell_connected: bool,
    /// The broker's.
    pub(super) logins: Logins,
    pub(super) draining: Option<Drain>,
    pub(super) shutdown_timeout: Duration,
    pub(super) requests: mpsc::Receiver<Request>,
    timer: Pin<Box<Sleep>>,
    next_report: Duration,
    pace: Pace,
    /// The most messages without a receipt.
    window: usize,
}

impl Pump {
    /// Connects to nothing yet.
    pub(super) fn new(
        settings: &Settings,
        first_start: Arc<FirstStart>,
        telemetry: Arc<Telemetry>,
        outside: Outside,
    ) -> Result<Self, SettingsError> {
        let epoch = Instant::now();
        let marks = !first_start.setup.marks.is_empty();
        let needs = Needs::new(first_start, Arc::clone(&telemetry));
        telemetry.update(|status, _| {
            status.phase = Phase::Connecting;
            status.in_flight.max_messages = settings.engine.messages;
            status.in_flight.max_bytes = settings.engine.bytes;
        });
        // One more is for trials of what the broker may refuse.
        let lanes = settings.engine.lanes.max(1) + 1;
        let outbox = Outbox::new(settings.outbox.clone())?;
        Ok(Pump {
            clock: Clock::new(epoch),
            slot: settings.source.slot.clone(),
            link: Link::new(needs),
            session: None,
            started_at: Lsn::INVALID,
            intake: Intake::new(outbox, settings.source.slot.clone(), marks),
            feeding: None,
            holding: None,
            sessions: 0,
            progress: outside.progress,
            ask: outside.ask,
            marker: marks.then_some(outside.marker),
            marks_refused: None,
            parker: outside.parker,
            answers: outside.answers,
            retry: settings.engine.retry,
            table_known: false,
            undelivered: (0, 0),
            job_failing: None,
            told_receipts: 0,
            doubts: 0,
            unsure_since: None,
            engine: Engine::new(settings.engine),
            lanes: (0..lanes).map(|_| Lane::new(Arc::clone(&settings.broker), epoch)).collect(),
            blocked: vec![false; lanes],
            published: Published::default(),
            telemetry,
            throttle: Throttle::new(Duration::from_secs(10)),
            updates: Throttle::new(Duration::from_secs(1)),
            tell_connected: true,
            logins: Logins::new(settings.broker.hosts.len() * (lanes - 1)),
            draining: None,
            shutdown_timeout: settings.shutdown_timeout,
            requests: outside.requests,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            next_report: Duration::ZERO,
            pace: Pace::default(),
            window: settings.engine.messages,
        })
    }

    /// Relays until told to stop, or until an operator must act.
    ///
    /// # Errors
    /// [`Stop`]: why it ended, unless it was told to.
    pub(super) async fn run(mut self) -> Result<(), Stop> {
        let ended = poll_fn(|cx| self.poll(cx)).await;
        if let Err(stop) = ended {
            self.draining.get_or_insert(Drain {
                deadline: self.clock.now,
                read_until: Duration::ZERO,
                stop: Some(stop),
                at_once: false,
            });
        }
        self.finish().await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        self.poll_requests(cx)?;
        for _ in 0..TURNS {
            let before = self.clock.now;
            self.clock.read();
            if self.clock.now > before + UNSURE && self.session.is_some() {
                // Another one may have taken the slot meanwhile.
                self.unsure_since = Some(Instant::now());
                self.ask.notify_one();
            }
            if self.clock.now > before + STOPPED {
                // What came meanwhile shows only once the runtime has looked at the sockets, or was
                // read just now by the old time: the peers are not to be blamed for our own silence.
                self.excuse_lanes();
                break;
            }
            let read = self.poll_source(cx)?;
            let moved = self.poll_jobs(cx) | self.poll_lanes(cx);
            self.poll_marks();
            self.poll_feedback(cx)?;
            if self.clock.now >= self.next_report {
                self.next_report = self.clock.now + report::EACH;
                self.report();
            }
            if self.is_finished() {
                return Poll::Ready(Ok(()));
            }
            if !read && !moved {
                self.rest();
                if self.poll_timer(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Blocks the thread on purpose: an asynchronous wait would be woken by every packet. Page and
    /// metrics wait some milliseconds at most.
    fn rest(&mut self) {
        let (now, sent) = (self.clock.now, self.engine.sent());
        let in_flight = self.engine.in_flight().messages;
        if let Some(rest) = self.pace.rest(now, sent, in_flight, self.window) {
            std::thread::sleep(rest);
        }
    }

    fn poll_requests(&mut self, cx: &mut Context<'_>) -> Result<(), Stop> {
        while let Poll::Ready(Some(request)) = self.requests.poll_recv(cx) {
            match (request, &mut self.draining) {
                (Request::Stop, None) => {
                    if self.telemetry.snapshot().phase == Phase::Standby {
                        info!("stopping: this is a standby, another one holds the slot");
                    } else {
                        info!("stopping: waiting for outstanding receipts");
                    }
                    self.drain(None, self.shutdown_timeout);
                }
                (Request::Stop, Some(drain)) => {
                    drain.deadline = Duration::ZERO;
                    drain.at_once = true;
                }
                (Request::Release, _) => self.release(cx)?,
                (Request::Holder(pid, asked), _) => self.slot_seen(pid, asked),
                (Request::Halt(stop), _) => self.halt(stop)?,
                (Request::Reopen, _) => self.reopen("the outbox tables have changed")?,
                (Request::Recover, _) => {
                    self.link.recover();
                    self.reopen("what was open when the publication changed has ended")?;
                }
                (Request::Marked(outcome), _) => self.marks_done(outcome),
                (Request::Superseded, _) => self.reopen("another walpost has taken the slot")?,
            }
        }
        Ok(())
    }

    /// Reads no further and goes when every receipt is in, after `wait` at the latest.
    pub(super) fn drain(&mut self, stop: Option<Stop>, wait: Duration) {
        if self.draining.is_some() {
            return;
        }
        self.telemetry.update(|status, _| status.phase = Phase::Draining);
        let now = self.clock.now;
        let read_until = if stop.is_none() { now + FINISH_TRANSACTION } else { Duration::ZERO };
        self.draining = Some(Drain { deadline: now + wait, read_until, stop, at_once: false });
    }

    fn is_finished(&self) -> bool {
        let Some(drain) = &self.draining else { return false };
        let busy = self.is_reading() || self.is_recovering_busily();
        let nothing_to_wait_for = self.session.is_none() || (self.engine.is_drained() && !busy);
        nothing_to_wait_for || self.clock.now >= drain.deadline
    }

    /// Waits for the next thing that is due. `Ready`: it is due now.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (now, watermark) = (self.clock.now, self.engine.watermark());
        let session = self.session.as_mut().map(|session| session.deadline(watermark, now));
        let (marks, jobs) = (self.marks_due(), self.job_due());
        let lanes = self.lanes.iter_mut().filter_map(|lane| lane.connection()?.deadline());
        let next = lanes
            .chain(session)
            .chain(self.engine.deadline())
            .chain(marks)
            .chain(jobs)
            .chain(self.engine.next_trial().filter(|at| *at > now))
            .chain(self.draining.as_ref().map(|drain| drain.deadline))
            .chain(self.draining.as_ref().map(|drain| drain.read_until).filter(|at| *at > now))
            .fold(self.next_report, Duration::min);
        self.timer.as_mut().reset(self.clock.instant(next));
        self.timer.as_mut().poll(cx)
    }
}
