//! A consumer's life: reads messages, has them handled, answers the broker.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

use super::End;
use super::answers::Answers;
use super::ask::{Pauses, Stop, stopped};
use super::link::{self, Link, LinkError};
use super::message::Message;
use super::order::Order;
use super::pruning;
use super::settings::{Handler, Patience, Settings};
use super::worker::{Done, Job, Outcome, Worker};
use crate::net::{Address, LOGINS, Logins};
use crate::stomp::session::Event;
use crate::telemetry::consumers::{self, Consumer};
use crate::telemetry::throttle::Throttle;
use crate::telemetry::{Telemetry, clock};

/// Messages that a function is called for in one transaction, at most.
const TOGETHER: usize = 100;
/// A broker that goes by bytes may send more messages ahead than it was asked for; from so many more on
/// nothing is read.
const AHEAD: usize = 100;

/// Consumes until `stop` says so, or until an operator must act.
///
/// # Errors
/// [`End`]: why it ended, unless it was told to.
pub async fn run(settings: Settings, telemetry: Arc<Telemetry>, mut stop: Stop) -> Result<(), End> {
    let settings = Arc::new(settings);
    note(&settings, &telemetry, None, None);
    if !inbox_is_there(&settings, &telemetry, &mut stop).await? {
        return Ok(());
    }
    let mut tasks = JoinSet::new();
    tasks.spawn(pruning::run(Arc::clone(&settings)));
    let (tell, done) = mpsc::channel(settings.concurrency);
    let workers = (0..settings.concurrency)
        .map(|lane| {
            let (give, given) = mpsc::channel(1);
            let worker = Worker::new(Arc::clone(&settings), lane, stop.clone());
            tasks.spawn(worker.run(given, tell.clone()));
            give
        })
        .collect();
    let desk = Desk {
        order: Order::new(settings.concurrency),
        workers,
        done,
        telemetry,
        stop,
        session: 0,
        closed: false,
        throttle: Throttle::default(),
        settings,
    };
    // The tasks end with their set.
    desk.consume().await
}

/// Nothing is taken from the broker before it can be handled. False: told to stop meanwhile.
async fn inbox_is_there(
    settings: &Settings,
    telemetry: &Telemetry,
    stop: &mut Stop,
) -> Result<bool, End> {
    if let Handler::Print = settings.handler {
        return Ok(true);
    }
    let (mut pauses, mut throttle, mut refused) = (Pauses::of_server(), Throttle::default(), 0);
    loop {
        let error = match settings.open_inbox().await {
            Ok(_) => return Ok(true),
            Err(error) => error,
        };
        refused = if error.needs_an_operator() { refused + 1 } else { 0 };
        if refused >= LOGINS && settings.patience == Patience::Some {
            return Err(End(error.to_string()));
        }
        if let Some(more) = throttle.allow("inbox", clock::unix_now()) {
            warn!(queue = settings.queue, "{error}; waiting{more}");
        }
        note(settings, telemetry, None, Some(&error.to_string()));
        if !pauses.wait(stop).await {
            return Ok(false);
        }
    }
}

struct Desk {
    settings: Arc<Settings>,
    order: Order<Job>,
    workers: Vec<mpsc::Sender<Vec<Job>>>,
    done: mpsc::Receiver<Done>,
    telemetry: Arc<Telemetry>,
    stop: Stop,
    /// Number of the connection; an answer belongs to the one that its message came on.
    session: u64,
    /// Nobody reads what is printed any more.
    closed: bool,
    throttle: Throttle,
}

/// How a connection ended.
enum Served {
    /// The consumer was told to stop.
    Stopped,
    /// It was lost; and whether it had brought anything.
    Lost(String, bool),
}

impl Desk {
    async fn consume(mut self) -> Result<(), End> {
        let broker = Arc::clone(&self.settings.broker);
        let pauses = || Pauses::new(broker.reconnect_initial, broker.reconnect_max);
        let (mut waits, mut host) = (pauses(), 0);
        let mut logins = Logins::new(broker.hosts.len());
        let started = Instant::now();
        while !*self.stop.borrow() && !self.closed {
            let address = &broker.hosts[host % broker.hosts.len().max(1)];
            host += 1;
            let settings = Arc::clone(&self.settings);
            let linked = self.meanwhile(link::establish(&settings, address)).await;
            let why = match linked {
                None => break,
                Some(Ok(link)) => {
                    logins.accepted();
                    self.said(&link);
                    note(&self.settings, &self.telemetry, Some(address), None);
                    match self.serve(link).await {
                        Served::Stopped => return Ok(()),
                        Served::Lost(why, brought) => {
                            if brought {
                                waits = pauses();
                            }
                            format!("{address}: {why}")
                        }
                    }
                }
                Some(Err(error)) => {
                    self.give_up(&error, &mut logins, started.elapsed())?;
                    error.to_string()
                }
            };
            note(&self.settings, &self.telemetry, Some(address), Some(&why));
            let wait = waits.next();
            if let Some(more) = self.throttle.allow("broker", clock::unix_now()) {
                let again_in = humantime::format_duration(Duration::from_millis(
                    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                ));
                warn!(queue = self.settings.queue, %again_in, "{why}{more}");
            }
            // A reconnect waits for time alone: there is no condition to await.
            if self.meanwhile(tokio::time::sleep(wait)).await.is_none() {
                break;
            }
        }
        self.finish().await;
        Ok(())
    }

    /// Trying again is no use, and nobody else depends on this process.
    fn give_up(&self, error: &LinkError, logins: &mut Logins, now: Duration) -> Result<(), End> {
        // A durable subscription's client id may be in use: this one takes over when it is free.
        let waits = self.settings.patience == Patience::Forever
            || self.settings.wanted().client_id().is_some();
        if waits || !error.needs_an_operator() {
            logins.other();
        } else if logins.refused(now) {
            return Err(End(error.to_string()));
        }
        Ok(())
    }

    fn said(&self, link: &Link) {
        let Settings { destination, queue, .. } = &*self.settings;
        let wire = &link.wire;
        let (host, kind, cipher) = (&wire.address, wire.kind.name(), wire.cipher());
        let (server, cipher) = (wire.server.as_deref(), cipher.as_deref());
        info!(queue, destination, %host, kind, server, cipher, "consuming");
    }

    /// Waits for something without a connection. None: told to stop meanwhile.
    async fn meanwhile<T>(&mut self, waited_for: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(waited_for);
        loop {
            tokio::select! {
                output = &mut waited_for => return Some(output),
                Some(done) = self.done.recv() => self.take(done, None),
                () = stopped(&mut self.stop) => return None,
            }
        }
    }

    /// Reads, hands out and answers until the connection or the consumer ends.
    async fn serve(&mut self, link: Link) -> Served {
        let Link { mut wire, profile, early } = link;
        self.session += 1;
        let mut answers = Answers::new(profile, &self.settings);
        let mut brought = !early.is_empty();
        early.into_iter().for_each(|frame| self.push(frame));
        let held = self.settings.prefetch as usize + AHEAD;
        let mut ends: Option<Instant> = None;
        let lost = loop {
            if (*self.stop.borrow() || self.closed) && ends.is_none() {
                ends = Some(Instant::now() + self.settings.shutdown_timeout);
                self.order.clear();
            }
            if ends.is_some() && self.order.is_idle() && answers.are_done() {
                link::goodbye(&mut wire, &self.settings).await;
                return Served::Stopped;
            }
            if ends.is_none() && answers.let_more() {
                self.hand_out();
            }
            let reading = self.order.waiting() < held;
            tokio::select! {
                event = wire.turn(reading) => match event {
                    Ok(Event::Message(frame)) if ends.is_none() => {
                        brought = true;
                        self.push(frame);
                    }
                    Ok(Event::Receipt(number)) => answers.receipt(&mut wire, number),
                    Ok(Event::Error(error)) => break format!("the broker says: {error}"),
                    Ok(_) => {}
                    Err(error) => break error.to_string(),
                },
                Some(done) = self.done.recv() => self.take(done, Some((&mut answers, &mut wire))),
                () = stopped(&mut self.stop), if ends.is_none() => {}
                () = until(ends) => break "shutdown_timeout has passed".to_owned(),
            }
        };
        // They come again.
        self.order.clear();
        match ends {
            Some(_) => Served::Stopped,
            None => Served::Lost(lost, brought),
        }
    }

    fn push(&mut self, frame: crate::stomp::Frame) {
        // A MESSAGE without an id can't be answered, and no broker sends one.
        let Some(message) = Message::of(frame) else { return };
        let key = message.key().to_owned();
        self.order.push(&key, Job { session: self.session, message });
    }

    fn hand_out(&mut self) {
        let most = match self.settings.handler {
            Handler::Call(_) => TOGETHER,
            _ => 1,
        };
        while let Some((lane, jobs)) = self.order.next(most) {
            // A worker that is free has room for it.
            if self.workers[lane].try_send(jobs).is_err() {
                self.order.done(lane);
            }
        }
    }

    /// What a worker has done is counted, and the broker told.
    fn take(&mut self, done: Done, mut link: Option<(&mut Answers, &mut crate::broker::Wire)>) {
        self.order.done(done.lane);
        self.closed |= done.closed;
        for (job, outcome) in done.jobs {
            let counted = match &outcome {
                Outcome::Handled => Some("handled"),
                Outcome::Known => Some("duplicate"),
                Outcome::Refused(_) => Some("refused"),
                Outcome::Left => None,
            };
            if let Some(name) = counted {
                self.telemetry.metrics.consumed(&self.settings.queue, name);
            }
            if let Outcome::Refused(why) = &outcome
                && let Some(more) = self.throttle.allow("refused", clock::unix_now())
            {
                let (queue, id) = (&self.settings.queue, &job.message.id);
                warn!(queue, id, "refused: {why}{more}");
            }
            if job.session == self.session
                && let Some((answers, wire)) = &mut link
            {
                answers.outcome(wire, job.message, outcome);
            }
        }
        if let Some((answers, wire)) = link {
            answers.flush(wire);
        }
    }

    /// Without a connection: what is being handled is finished; it will be known when it comes again.
    async fn finish(&mut self) {
        self.order.clear();
        let longest = self.settings.shutdown_timeout;
        let finished = async {
            while !self.order.is_idle() {
                match self.done.recv().await {
                    Some(done) => self.take(done, None),
                    None => return,
                }
            }
        };
        // What takes longer comes again.
        let _ = tokio::time::timeout(longest, finished).await;
    }
}

/// Shows in the status how it fares; connected where there is no error.
fn note(settings: &Settings, telemetry: &Telemetry, host: Option<&Address>, error: Option<&str>) {
    let now = Consumer {
        queue: settings.queue.clone(),
        destination: settings.destination.clone(),
        connected: host.is_some() && error.is_none(),
        host: host.map(ToString::to_string),
        last_error: error.map(str::to_owned),
    };
    telemetry.update(|status, _| consumers::note(&mut status.consumers, now));
}

/// Until that moment; for ever if there is none.
async fn until(ends: Option<Instant>) {
    match ends {
        Some(ends) => tokio::time::sleep_until(ends).await,
        None => std::future::pending().await,
    }
}
