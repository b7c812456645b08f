//! Has messages handled, one after the other, with the inbox that knows which were.

use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::ask::{Pauses, Stop};
use super::http::Client;
use super::message::{Encoding, Message};
use super::settings::{Handler, Settings};
use super::{exec, print};
use crate::store::inbox::{Blame, blame};
use crate::store::{HANDLER_LIMIT, Inbox, StoreError};
use crate::telemetry::clock;
use crate::telemetry::throttle::Throttle;

/// A message to handle, and the connection that it came on.
pub(super) struct Job {
    pub(super) session: u64,
    pub(super) message: Message,
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was handled.
    Handled,
    /// It had been handled before.
    Known,
    /// It can't be handled; why.
    Refused(String),
    /// The consumer was told to stop, or can't go on: it is left to the broker.
    Left,
}

/// What a worker was given, and what became of it.
pub(super) struct Done {
    pub(super) lane: usize,
    pub(super) jobs: Vec<(Job, Outcome)>,
    /// Nobody reads what is printed any more.
    pub(super) closed: bool,
}

/// What a handler says to an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// The message is handled.
    Done,
    /// It can't be; it is not tried again.
    Refused(String),
    /// It may be later; it is tried some times.
    Again(String),
    /// The handler itself is not there; it is waited for.
    Unavailable(String),
}

/// Handles the messages of one queue of [`super::order::Order`].
pub(super) struct Worker {
    settings: Arc<Settings>,
    lane: usize,
    stop: Stop,
    inbox: Option<Inbox>,
    client: Client,
    throttle: Throttle,
    closed: bool,
}

impl Worker {
    pub(super) fn new(settings: Arc<Settings>, lane: usize, stop: Stop) -> Worker {
        let (client, throttle) = (Client::default(), Throttle::default());
        Worker { settings, lane, stop, inbox: None, client, throttle, closed: false }
    }

    /// Until nobody gives it anything any more.
    pub(super) async fn run(
        mut self,
        mut given: mpsc::Receiver<Vec<Job>>,
        done: mpsc::Sender<Done>,
    ) {
        while let Some(mut jobs) = given.recv().await {
            let outcomes = self.handle(&mut jobs).await;
            let jobs = jobs.into_iter().zip(outcomes).collect();
            let done = done.send(Done { lane: self.lane, jobs, closed: self.closed }).await;
            if done.is_err() {
                return;
            }
        }
    }

    async fn handle(&mut self, jobs: &mut [Job]) -> Vec<Outcome> {
        let called = matches!(self.settings.handler, Handler::Call(_));
        if called
            && jobs.len() > 1
            && let Some(outcomes) = self.call_together(jobs).await
        {
            return outcomes;
        }
        let mut outcomes = Vec::with_capacity(jobs.len());
        for job in jobs {
            // Order is kept: what is behind one that was left is left, too.
            let left = outcomes.last() == Some(&Outcome::Left);
            outcomes.push(match (left, called) {
                (true, _) => Outcome::Left,
                (false, true) => self.call(&mut job.message).await,
                (false, false) => self.hand_over(&mut job.message).await,
            });
        }
        outcomes
    }

    /// All of them in one transaction; none: it did not work out, and nothing has happened.
    async fn call_together(&mut self, jobs: &[Job]) -> Option<Vec<Outcome>> {
        let inbox = self.inbox().await?;
        let texts: Vec<_> = jobs.iter().map(|job| job.message.texts()).collect();
        let messages: Vec<_> =
            jobs.iter().zip(&texts).map(|(job, texts)| job.message.received(texts)).collect();
        match inbox.call(&messages).await {
            Ok(new) => Some(new.into_iter().map(outcome).collect()),
            Err(error) => {
                debug!(
                    "of {} messages one could not be handled: {error}; each by itself",
                    jobs.len()
                );
                None
            }
        }
    }

    async fn call(&mut self, message: &mut Message) -> Outcome {
        let (mut pauses, mut server, mut attempts) = (self.pauses(), Pauses::of_server(), 0);
        loop {
            let Some(inbox) = self.inbox().await else { return Outcome::Left };
            let texts = message.texts();
            let error = match inbox.call(&[message.received(&texts)]).await {
                Ok(new) => return new.first().copied().map_or(Outcome::Left, outcome),
                Err(error) => error,
            };
            match self.fault(&error, message).await {
                Fault::Body => message.is_no_jsonb(),
                Fault::Message => return Outcome::Refused(error.to_string()),
                Fault::Moment => {
                    attempts += 1;
                    if attempts >= self.settings.retry.max_attempts {
                        return Outcome::Refused(format!("{error}, {attempts} times"));
                    }
                    if !pauses.wait(&mut self.stop).await {
                        return Outcome::Left;
                    }
                }
                Fault::Server => {
                    self.wait_for_server(&error);
                    if !server.wait(&mut self.stop).await {
                        return Outcome::Left;
                    }
                }
            }
        }
    }

    /// Whose fault an error of the inbox is; a closer look than its code.
    async fn fault(&mut self, error: &StoreError, message: &Message) -> Fault {
        let Some(inbox) = &self.inbox else { return Fault::Server };
        let class = error.code().and_then(|code| code.get(..2)).unwrap_or_default();
        match blame(error) {
            // Data, or something too long or too deep: the body, or what the function makes of it?
            Blame::Message
                if matches!(class, "22" | "54") && message.encoding() == Encoding::Json =>
            {
                match inbox.takes_json(&String::from_utf8_lossy(&message.body)).await {
                    Ok(true) => Fault::Message,
                    Ok(false) => Fault::Body,
                    Err(_) => Fault::Server,
                }
            }
            // Missing, or not allowed: the function and the inbox, or something within?
            Blame::Message if class == "42" => match inbox.check().await {
                Ok(()) => Fault::Message,
                Err(error) => {
                    self.say("inbox", format_args!("{error}; waiting"));
                    self.inbox = None;
                    Fault::Server
                }
            },
            Blame::Message => Fault::Message,
            Blame::Moment => Fault::Moment,
            Blame::Server => {
                // Another host may accept writes by now.
                self.inbox = None;
                Fault::Server
            }
        }
    }

    /// Has it handled by something that is not the inbox itself.
    async fn hand_over(&mut self, message: &mut Message) -> Outcome {
        if let Handler::Print = self.settings.handler {
            return match print::print(message).await {
                Ok(()) => Outcome::Handled,
                Err(_) => {
                    self.closed = true;
                    Outcome::Left
                }
            };
        }
        match self.knows(message).await {
            Some(true) => return Outcome::Known,
            Some(false) => {}
            None => return Outcome::Left,
        }
        let (mut pauses, mut absent, mut attempts) = (self.pauses(), Pauses::of_server(), 0);
        loop {
            match self.attempt(message).await {
                Attempt::Done => break,
                Attempt::Refused(why) => return Outcome::Refused(why),
                Attempt::Again(why) => {
                    attempts += 1;
                    if attempts >= self.settings.retry.max_attempts {
                        return Outcome::Refused(format!("{why}, {attempts} times"));
                    }
                    self.say("again", format_args!("message {}: {why}; again", message.id));
                    if !pauses.wait(&mut self.stop).await {
                        return Outcome::Left;
                    }
                }
                Attempt::Unavailable(why) => {
                    self.say("unavailable", format_args!("{why}; waiting"));
                    if !absent.wait(&mut self.stop).await {
                        return Outcome::Left;
                    }
                }
            }
        }
        self.remember(message).await;
        Outcome::Handled
    }

    async fn attempt(&mut self, message: &Message) -> Attempt {
        let Settings { handler, queue, .. } = &*self.settings;
        match handler {
            Handler::Exec(command) => exec::run(command, message, queue, HANDLER_LIMIT).await,
            Handler::Http(target) => self.client.post(target, message, queue, HANDLER_LIMIT).await,
            Handler::Call(_) | Handler::Print => Attempt::Done,
        }
    }

    /// Whether it was handled before; none: told to stop meanwhile.
    async fn knows(&mut self, message: &Message) -> Option<bool> {
        let mut pauses = Pauses::of_server();
        while !message.is_forced() {
            match self.inbox().await?.knows(&message.id).await {
                Ok(known) => return Some(known),
                Err(error) => {
                    self.wait_for_server(&error);
                    self.inbox = None;
                    if !pauses.wait(&mut self.stop).await {
                        return None;
                    }
                }
            }
        }
        Some(false)
    }

    /// It was handled, and is answered so whatever comes of this.
    async fn remember(&mut self, message: &mut Message) {
        let mut pauses = Pauses::of_server();
        loop {
            let Some(inbox) = self.inbox().await else { return };
            let texts = message.texts();
            let Err(error) = inbox.remember(&message.received(&texts)).await else { return };
            match self.fault(&error, message).await {
                Fault::Body => message.is_no_jsonb(),
                Fault::Message => {
                    self.say(
                        "remember",
                        format_args!("message {} is handled: {error}", message.id),
                    );
                    return;
                }
                Fault::Moment | Fault::Server => {
                    self.wait_for_server(&error);
                    if !pauses.wait(&mut self.stop).await {
                        return;
                    }
                }
            }
        }
    }

    /// The inbox, as soon as there is one; none: told to stop meanwhile.
    async fn inbox(&mut self) -> Option<&Inbox> {
        let mut pauses = Pauses::of_server();
        while self.inbox.as_ref().is_none_or(Inbox::is_closed) {
            match self.settings.open_inbox().await {
                Ok(inbox) => self.inbox = Some(inbox),
                Err(error) => {
                    self.say("inbox", format_args!("{error}; waiting"));
                    if !pauses.wait(&mut self.stop).await {
                        return None;
                    }
                }
            }
        }
        self.inbox.as_ref()
    }

    fn wait_for_server(&mut self, error: &StoreError) {
        self.say("inbox", format_args!("{error}; waiting"));
    }

    fn say(&mut self, kind: &str, what: std::fmt::Arguments<'_>) {
        if let Some(more) = self.throttle.allow(kind, clock::unix_now()) {
            warn!(queue = self.settings.queue, "{what}{more}");
        }
    }

    fn pauses(&self) -> Pauses {
        Pauses::new(self.settings.retry.first_wait, self.settings.retry.longest_wait)
    }
}

/// Whose fault it is.
enum Fault {
    /// The body is JSON, and `jsonb` does not take it.
    Body,
    Message,
    Moment,
    Server,
}

fn outcome(is_new: bool) -> Outcome {
    if is_new { Outcome::Handled } else { Outcome::Known }
}
