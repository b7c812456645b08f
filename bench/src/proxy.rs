//! Stands between a STOMP client and its broker and notes when each SEND's receipt passes.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use walpost_testkit::stomp::{Parser, Raw};

/// What has passed.
#[derive(Debug, Default)]
struct Passed {
    /// The place of each SEND by its receipt id.
    sends: HashMap<Vec<u8>, usize>,
    /// When the receipt of each SEND passed.
    receipts: Vec<Option<Instant>>,
    receipted: usize,
}

type State = (Mutex<Passed>, Condvar);

/// The proxy. It takes one connection, and ends with it.
pub struct Proxy {
    /// Where it listens.
    pub address: String,
    passed: Arc<State>,
}

impl Proxy {
    /// Listens for one connection to 127.0.0.1:`port`.
    ///
    /// # Errors
    /// No port to listen on.
    pub fn start(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?.to_string();
        let passed = Arc::<State>::default();
        let noted = Arc::clone(&passed);
        std::thread::spawn(move || -> io::Result<()> {
            let (client, _) = listener.accept()?;
            let broker = TcpStream::connect(("127.0.0.1", port))?;
            client.set_nodelay(true)?;
            broker.set_nodelay(true)?;
            let (from, to, back) = (client.try_clone()?, broker.try_clone()?, Arc::clone(&noted));
            std::thread::spawn(move || forward(from, to, |frame, _| note_send(&back, frame)));
            forward(broker, client, |frame, at| note_receipt(&noted, frame, at))
        });
        Ok(Proxy { address, passed })
    }

    /// Waits for the receipts of the first `count` SENDs; gives when they passed.
    #[must_use]
    pub fn receipts(&self, count: usize) -> Vec<Instant> {
        let (state, changed) = (lock(&self.passed), &self.passed.1);
        let timeout = Duration::from_secs(60);
        let waited = changed.wait_timeout_while(state, timeout, |state| state.receipted < count);
        let (state, _) = waited.unwrap_or_else(|poisoned| poisoned.into_inner());
        assert!(state.receipted >= count, "{} of {count} receipts passed", state.receipted);
        state.receipts.iter().take(count).flatten().copied().collect()
    }
}

/// Passes bytes on as they come, after `note` has looked at the frames that end in them.
fn forward(
    mut from: TcpStream,
    mut to: TcpStream,
    mut note: impl FnMut(Raw<'_>, Instant),
) -> io::Result<()> {
    let mut parser = Parser::default();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let count = from.read(&mut chunk)?;
        let at = Instant::now();
        if count == 0 {
            return to.shutdown(std::net::Shutdown::Write);
        }
        parser.push(&chunk[..count]);
        while let Some(raw) = parser.next().map_err(io::Error::other)? {
            note(raw, at);
        }
        to.write_all(&chunk[..count])?;
    }
}

fn note_send(passed: &State, frame: Raw<'_>) {
    if let (b"SEND", Some(receipt)) = (frame.command, frame.receipt) {
        let mut passed = lock(passed);
        let place = passed.receipts.len();
        passed.receipts.push(None);
        passed.sends.insert(receipt.to_vec(), place);
    }
}

fn note_receipt(passed: &State, frame: Raw<'_>, at: Instant) {
    if frame.command != b"RECEIPT" {
        return;
    }
    let frame = frame.decode().expect("a broker sends STOMP");
    let id = frame.header("receipt-id").unwrap_or_default();
    let mut state = lock(passed);
    if let Some(place) = state.sends.remove(id.as_bytes()) {
        state.receipts[place] = Some(at);
        state.receipted += 1;
        passed.1.notify_all();
    }
}

fn lock(passed: &State) -> MutexGuard<'_, Passed> {
    passed.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
