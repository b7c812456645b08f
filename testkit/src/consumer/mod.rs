//! A reader of messages over STOMP, independent of walpost.

mod message;
mod reader;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use message::Message;

const READ_TIMEOUT: Duration = Duration::from_millis(50);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How messages are acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// By the broker when it sends them.
    Auto,
    /// All up to the last one read.
    Client,
    /// Each by itself.
    ClientIndividual,
}

impl Ack {
    fn mode(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Client => "client",
            Self::ClientIndividual => "client-individual",
        }
    }
}

type Each = Box<dyn FnMut(Message) + Send>;

/// What to read.
pub struct Builder {
    port: u16,
    vhost: String,
    login: (String, String),
    destinations: Vec<String>,
    headers: Vec<(String, String)>,
    ack: Ack,
    reconnect: bool,
    each: Option<Each>,
}

impl Builder {
    /// The virtual host; default `/`.
    #[must_use]
    pub fn vhost(mut self, vhost: &str) -> Self {
        self.vhost = vhost.to_owned();
        self
    }

    /// User and passcode; default `guest` and `guest`.
    #[must_use]
    pub fn login(mut self, user: &str, passcode: &str) -> Self {
        self.login = (user.to_owned(), passcode.to_owned());
        self
    }

    /// A destination to subscribe to; several allowed.
    #[must_use]
    pub fn subscribe(mut self, destination: &str) -> Self {
        self.destinations.push(destination.to_owned());
        self
    }

    /// A header of every SUBSCRIBE: `durable`, `auto-delete`, `x-queue-name`, ….
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// From queues of ActiveMQ Artemis, which takes a SUBSCRIBE for one to a topic, and `prefetch-count` for nothing. Its window
    /// has no bound: with `ack:auto` the broker never gives credit for more (seen on 2.40).
    #[must_use]
    pub fn anycast(self) -> Self {
        self.header("subscription-type", "ANYCAST").header("consumer-window-size", "-1")
    }

    /// How messages are acknowledged; default [`Ack::Auto`].
    #[must_use]
    pub fn ack(mut self, ack: Ack) -> Self {
        self.ack = ack;
        self
    }

    /// Connects again when the broker goes away. Messages that come a second time only for that have `redelivered:true`.
    #[must_use]
    pub fn reconnect(mut self) -> Self {
        self.reconnect = true;
        self
    }

    /// Hands each message to `each` in place of keeping it; for more messages than fit into memory.
    #[must_use]
    pub fn each(mut self, each: impl FnMut(Message) + Send + 'static) -> Self {
        self.each = Some(Box::new(each));
        self
    }

    /// Connects, and returns once the broker has confirmed the subscriptions.
    #[must_use]
    #[track_caller]
    pub fn start(self) -> Consumer {
        let shared = Arc::new(Shared::default());
        let reader = Arc::clone(&shared);
        let thread = std::thread::spawn(move || self.read_on(&reader));
        let consumer = Consumer { shared, thread: Some(thread) };
        consumer.wait_until(CONNECT_TIMEOUT, "subscribed", |state| state.subscribed);
        consumer
    }
}

/// What a consumer has so far.
#[derive(Debug, Default)]
pub struct State {
    /// The messages, unless they are handed to [`Builder::each`] or were taken.
    pub messages: Vec<Message>,
    /// How many there were in all.
    pub count: u64,
    subscribed: bool,
    failure: Option<String>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    ended: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

/// A subscribed reader in a thread of its own. Disconnects on drop.
#[derive(Debug)]
pub struct Consumer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Consumer {
    /// A reader of 127.0.0.1:`port`.
    #[must_use]
    pub fn builder(port: u16) -> Builder {
        Builder {
            port,
            vhost: "/".to_owned(),
            login: ("guest".to_owned(), "guest".to_owned()),
            destinations: Vec::new(),
            headers: Vec::new(),
            ack: Ack::Auto,
            reconnect: false,
            each: None,
        }
    }

    /// A reader of a durable queue that is already declared in `vhost`; acknowledges each message.
    #[must_use]
    #[track_caller]
    pub fn of_queue(vhost: &crate::Vhost<'_>, queue: &str) -> Self {
        Self::builder(vhost.broker().stomp_port())
            .vhost(vhost.name())
            .subscribe(&format!("/amq/queue/{queue}"))
            .ack(Ack::Client)
            .start()
    }

    /// How many messages were read so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.shared.lock().count
    }

    /// The messages kept so far.
    #[must_use]
    pub fn messages(&self) -> Vec<Message> {
        self.shared.lock().messages.clone()
    }

    /// Takes the messages kept so far out of the reader.
    #[must_use]
    pub fn take(&self) -> Vec<Message> {
        std::mem::take(&mut self.shared.lock().messages)
    }

    /// Waits until `count` messages were read in all; gives those kept. Panics after `timeout`, or if the connection failed.
    #[track_caller]
    pub fn wait_for(&self, count: u64, timeout: Duration) -> Vec<Message> {
        self.wait_until(timeout, &format!("{count} messages"), |state| state.count >= count);
        self.messages()
    }

    /// Waits until `condition` holds; panics after `timeout`, or if the connection failed.
    #[track_caller]
    pub fn wait_until(&self, timeout: Duration, what: &str, condition: impl Fn(&State) -> bool) {
        let deadline = Instant::now() + timeout;
        let mut state = self.shared.lock();
        while !condition(&state) {
            let count = state.count;
            if let Some(failure) = &state.failure {
                panic!("the consumer failed after {count} messages: {failure}");
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "not within {timeout:?}: {what}; {count} messages came");
            state = match self.shared.changed.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    /// Waits until nothing has come for `quiet`; gives what was kept.
    #[must_use]
    pub fn drain(&self, quiet: Duration) -> Vec<Message> {
        let mut count = self.count();
        let mut since = Instant::now();
        while since.elapsed() < quiet {
            let state = self.shared.lock();
            let left = quiet.saturating_sub(since.elapsed());
            drop(self.shared.changed.wait_timeout(state, left));
            if self.count() != count {
                count = self.count();
                since = Instant::now();
            }
        }
        self.messages()
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
