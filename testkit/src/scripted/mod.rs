//! A STOMP broker that does what a test tells it to, at any speed.

mod connection;
mod queues;
mod reply;

use std::collections::HashMap;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, RwLock};
use std::time::{Duration, Instant};

pub use reply::{Reply, Verdict};

use crate::stomp::Frame;
use crate::wait::until;

/// When a SEND's receipt comes. Receipts of other frames always come at once.
#[derive(Clone, Copy, Debug)]
pub enum Receipts {
    /// At once, in order.
    InOrder,
    /// In groups of up to `window`, each shuffled. A group is answered when it is full or nothing more comes for 5 ms.
    Shuffled {
        /// The largest group.
        window: usize,
        /// Seed of the order.
        seed: u64,
    },
    /// Each this long after its SEND.
    After(Duration),
    /// So many a second and connection, in order.
    PerSecond(u32),
    /// Never.
    Never,
}

/// A frame and where it came from.
#[derive(Clone, Debug)]
pub struct Received {
    /// Number of the connection, from 0.
    pub connection: usize,
    /// When it was read.
    pub at: Instant,
    /// The frame.
    pub frame: Frame,
}

type Hook = Box<dyn FnMut(&Frame, &mut Reply) -> Verdict + Send>;

/// What the broker is to do.
pub struct Builder {
    server: String,
    version: String,
    heartbeat: (u32, u32),
    mute: bool,
    receipts: Receipts,
    keep: bool,
    hook: Option<Hook>,
}

impl Builder {
    /// The `server` header of CONNECTED; empty: none.
    #[must_use]
    pub fn server(mut self, server: &str) -> Self {
        self.server = server.to_owned();
        self
    }

    /// The `version` header of CONNECTED.
    #[must_use]
    pub fn version(mut self, version: &str) -> Self {
        self.version = version.to_owned();
        self
    }

    /// The `heart-beat` header of CONNECTED, in milliseconds; heart-beats are then sent as agreed.
    #[must_use]
    pub fn heartbeat(mut self, send: u32, expect: u32) -> Self {
        self.heartbeat = (send, expect);
        self
    }

    /// Heart-beats are promised and never sent.
    #[must_use]
    pub fn mute(mut self) -> Self {
        self.mute = true;
        self
    }

    /// When receipts come.
    #[must_use]
    pub fn receipts(mut self, receipts: Receipts) -> Self {
        self.receipts = receipts;
        self
    }

    /// SENDs are counted, not kept: for speed and memory.
    #[must_use]
    pub fn count_only(mut self) -> Self {
        self.keep = false;
        self
    }

    /// Called with every frame before the broker does anything; what it returns says whether the broker still does.
    #[must_use]
    pub fn on_frame(
        mut self,
        hook: impl FnMut(&Frame, &mut Reply) -> Verdict + Send + 'static,
    ) -> Self {
        self.hook = Some(Box::new(hook));
        self
    }

    /// Listens on a free port.
    #[must_use]
    pub fn start(self) -> ScriptedBroker {
        self.start_on(0)
    }

    /// Listens on `port` of 127.0.0.1; 0 is a free one.
    #[must_use]
    pub fn start_on(self, port: u16) -> ScriptedBroker {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
        let port = listener.local_addr().expect("bound").port();
        let shared = Arc::new(Shared {
            server: self.server,
            version: self.version,
            heartbeat: self.heartbeat,
            mute: self.mute,
            receipts: self.receipts,
            keep: self.keep,
            hook: self.hook.map(Mutex::new),
            ..Shared::default()
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || accept(&listener, &accepting));
        ScriptedBroker { port, shared }
    }
}

/// The running broker. Its connections are closed on drop.
pub struct ScriptedBroker {
    port: u16,
    shared: Arc<Shared>,
}

impl ScriptedBroker {
    /// A broker that answers receipts in order and keeps what it gets.
    #[must_use]
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// A broker with other manners.
    #[must_use]
    pub fn builder() -> Builder {
        Builder {
            server: "RabbitMQ/3.10.8".to_owned(),
            version: "1.2".to_owned(),
            heartbeat: (10_000, 10_000),
            mute: false,
            receipts: Receipts::InOrder,
            keep: true,
            hook: None,
        }
    }

    /// Where it listens on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:PORT`, as `broker.hosts` takes it.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Connections accepted so far, refused ones not among them.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.lock().connections
    }

    /// SENDs read so far, on all connections.
    #[must_use]
    pub fn sends(&self) -> u64 {
        self.shared.sends.load(Ordering::Acquire)
    }

    /// Heart-beats read so far, on all connections.
    #[must_use]
    pub fn heartbeats(&self) -> u64 {
        self.shared.heartbeats.load(Ordering::Acquire)
    }

    /// The frames read so far, in the order of reading.
    #[must_use]
    pub fn frames(&self) -> Vec<Received> {
        self.shared.lock().received.clone()
    }

    /// The SENDs among [`ScriptedBroker::frames`].
    #[must_use]
    pub fn messages(&self) -> Vec<Frame> {
        let state = self.shared.lock();
        let frames = state.received.iter().map(|received| &received.frame);
        frames.filter(|frame| frame.command == "SEND").cloned().collect()
    }

    /// What a parser or a peer did wrong; a good client leaves this empty.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        self.shared.lock().complaints.clone()
    }

    /// Waits until `count` SENDs were read; panics after `timeout`.
    #[track_caller]
    pub fn wait_for_sends(&self, count: u64, timeout: Duration) {
        until(timeout, &format!("{count} SENDs"), || self.sends() >= count);
    }

    /// Waits until a frame like this was read; gives the first.
    #[track_caller]
    pub fn wait_for_frame(
        &self,
        timeout: Duration,
        mut like: impl FnMut(&Frame) -> bool,
    ) -> Received {
        let deadline = Instant::now() + timeout;
        let mut state = self.shared.lock();
        let mut seen = 0;
        loop {
            if let Some(found) = state.received[seen..].iter().find(|got| like(&got.frame)) {
                return found.clone();
            }
            seen = state.received.len();
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no such frame within {timeout:?}");
            state = match self.shared.changed.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    /// Nothing is read, nothing is written, connections stay open, new ones are accepted by the kernel only.
    pub fn freeze(&self) {
        self.shared.frozen.store(true, Ordering::Release);
    }

    /// Ends [`ScriptedBroker::freeze`].
    pub fn thaw(&self) {
        self.shared.frozen.store(false, Ordering::Release);
    }

    /// RabbitMQ's memory alarm: a connection is not read after its next SEND, heart-beats go on.
    pub fn raise_alarm(&self) {
        self.shared.alarm.store(true, Ordering::Release);
    }

    /// Ends the alarm: everything that was held comes at once.
    pub fn end_alarm(&self) {
        self.shared.alarm.store(false, Ordering::Release);
    }

    /// New connections are closed at once, or no longer are.
    pub fn refuse_connections(&self, refuse: bool) {
        self.shared.refusing.store(refuse, Ordering::Release);
    }

    /// Closes all connections, without a word.
    pub fn drop_connections(&self) {
        for (_, stream) in self.shared.lock().streams.drain() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for ScriptedBroker {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        // Wakes the accepting thread, which then closes the listener.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        self.drop_connections();
    }
}

#[derive(Default)]
struct State {
    received: Vec<Received>,
    complaints: Vec<String>,
    streams: HashMap<usize, TcpStream>,
    connections: usize,
}

struct Shared {
    server: String,
    version: String,
    heartbeat: (u32, u32),
    mute: bool,
    receipts: Receipts,
    keep: bool,
    hook: Option<Mutex<Hook>>,
    frozen: AtomicBool,
    alarm: AtomicBool,
    refusing: AtomicBool,
    ended: AtomicBool,
    sends: AtomicU64,
    heartbeats: AtomicU64,
    // Shared by connections that read and count, alone to who waits until they have.
    turn: RwLock<()>,
    state: Mutex<State>,
    changed: Condvar,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            server: String::new(),
            version: String::new(),
            heartbeat: (0, 0),
            mute: false,
            receipts: Receipts::InOrder,
            keep: true,
            hook: None,
            frozen: AtomicBool::new(false),
            alarm: AtomicBool::new(false),
            refusing: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            sends: AtomicU64::new(0),
            heartbeats: AtomicU64::new(0),
            turn: RwLock::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn is(&self, flag: &AtomicBool) -> bool {
        flag.load(Ordering::Acquire)
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.is(&shared.ended) {
            return;
        }
        let Ok(stream) = stream else { continue };
        if shared.is(&shared.refusing) {
            continue;
        }
        let number = {
            let mut state = shared.lock();
            let number = state.connections;
            state.connections += 1;
            if let Ok(copy) = stream.try_clone() {
                state.streams.insert(number, copy);
            }
            number
        };
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            let end = connection::serve(stream, number, &shared);
            let mut state = shared.lock();
            // The copy would keep the connection open.
            if let Some(stream) = state.streams.remove(&number) {
                let _ = stream.shutdown(Shutdown::Both);
            }
            state.complaints.extend(end.err());
        });
    }
}

#[cfg(test)]
mod tests;
