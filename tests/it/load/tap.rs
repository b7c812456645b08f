//! A link between walpost and the broker with a latency of its own, which notes every SEND and every
//! RECEIPT that passes: what was unreceipted at any moment is known without asking walpost.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use walpost_testkit::stomp::{Frame, Parser};

use super::model::serial_of;

/// A SEND that passed.
#[derive(Clone, Copy, Debug)]
pub struct Send {
    pub serial: u64,
    pub at: Instant,
    /// When its RECEIPT passed; the receipt may have been lost on its way.
    pub receipted: Option<Instant>,
}

/// What passed on one connection.
#[derive(Clone, Debug)]
pub struct Connection {
    pub opened: Instant,
    /// When the broker's side of it ended.
    pub closed: Option<Instant>,
    /// In order.
    pub sends: Vec<Send>,
    /// What a receipt proves: a SEND, or all those of a transaction.
    by_receipt: HashMap<String, Vec<usize>>,
    /// Those of transactions that are not committed.
    open: HashMap<String, Vec<usize>>,
}

impl Connection {
    /// Notes a SEND or a COMMIT.
    fn note(&mut self, frame: &Frame, at: Instant) {
        let header = |name| frame.header(name).map(str::to_owned);
        let mut proves = Vec::new();
        if frame.command == "SEND" {
            proves.push(self.sends.len());
            let serial = serial_of(&header("msg-id").unwrap());
            self.sends.push(Send { serial, at, receipted: None });
        }
        if let Some(transaction) = header("transaction") {
            let open = self.open.entry(transaction).or_default();
            open.append(&mut proves);
            if frame.command == "COMMIT" {
                proves = std::mem::take(open);
            }
        }
        let receipt = header("receipt");
        assert!(receipt.is_some() || proves.is_empty(), "nothing will prove {frame:?}");
        if let Some(receipt) = receipt {
            let before = self.by_receipt.insert(receipt, proves);
            assert!(before.is_none(), "a receipt id was used twice on one connection");
        }
    }

    pub fn unreceipted(&self) -> usize {
        self.sends.iter().filter(|send| send.receipted.is_none()).count()
    }
}

struct Shared {
    broker: u16,
    delay: AtomicU64,
    ended: AtomicBool,
    connections: Mutex<Vec<Connection>>,
}

/// The link. Its connections end with those of either side.
pub struct Tap {
    shared: Arc<Shared>,
    port: u16,
}

impl Tap {
    /// A link to 127.0.0.1:`broker`.
    pub fn to(broker: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            broker,
            delay: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            connections: Mutex::default(),
        });
        let of_thread = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if of_thread.ended.load(Ordering::Relaxed) {
                    return;
                }
                if let Ok(client) = client {
                    serve(&of_thread, client);
                }
            }
        });
        Tap { shared, port }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// How long what the broker says is under way, from now on.
    pub fn delay(&self, delay: Duration) {
        self.shared.delay.store(delay.as_micros() as u64, Ordering::Relaxed);
    }

    /// What has passed so far, connection by connection.
    pub fn connections(&self) -> Vec<Connection> {
        self.shared.connections.lock().unwrap().clone()
    }

    /// SENDs so far.
    pub fn sent(&self) -> usize {
        self.shared.connections.lock().unwrap().iter().map(|one| one.sends.len()).sum()
    }

    /// SENDs since `opened` on connections opened since then, and those of them whose receipt has not
    /// passed.
    pub fn since(&self, opened: Instant) -> (usize, usize) {
        let connections = self.shared.connections.lock().unwrap();
        let recent = connections.iter().rev().take_while(|connection| connection.opened >= opened);
        recent.fold((0, 0), |(sent, unreceipted), connection| {
            (sent + connection.sends.len(), unreceipted + connection.unreceipted())
        })
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(shared: &Arc<Shared>, client: TcpStream) {
    let Ok(broker) = TcpStream::connect(("127.0.0.1", shared.broker)) else { return };
    let _ = (client.set_nodelay(true), broker.set_nodelay(true));
    let number = {
        let mut connections = shared.connections.lock().unwrap();
        connections.push(Connection {
            opened: Instant::now(),
            closed: None,
            sends: Vec::new(),
            by_receipt: HashMap::new(),
            open: HashMap::new(),
        });
        connections.len() - 1
    };
    let clone = |stream: &TcpStream| stream.try_clone().unwrap();
    let (tell, told) = mpsc::channel();
    let (of_up, of_down) = (Arc::clone(shared), Arc::clone(shared));
    let (up_from, up_to) = (clone(&client), clone(&broker));
    let down_from = clone(&broker);
    std::thread::spawn(move || up(&of_up, number, up_from, up_to));
    let of_delay = Arc::clone(shared);
    std::thread::spawn(move || delay(&of_delay, down_from, &tell));
    std::thread::spawn(move || down(&of_down, number, &told, client, &broker));
}

/// walpost's frames to the broker.
fn up(shared: &Shared, number: usize, mut from: TcpStream, mut to: TcpStream) {
    let (mut parser, mut chunk) = (Parser::default(), vec![0; 64 * 1024]);
    while let Ok(count) = from.read(&mut chunk)
        && count > 0
    {
        let at = Instant::now();
        parser.push(&chunk[..count]);
        let mut frames = Vec::new();
        while let Some(raw) = parser.next().unwrap() {
            if matches!(raw.command, b"SEND" | b"COMMIT") {
                frames.push(raw.decode().unwrap());
            }
        }
        {
            let connection = &mut shared.connections.lock().unwrap()[number];
            frames.iter().for_each(|frame| connection.note(frame, at));
        }
        if to.write_all(&chunk[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// The broker's bytes on their way.
fn delay(shared: &Shared, mut from: TcpStream, tell: &mpsc::Sender<(Instant, Vec<u8>)>) {
    let mut chunk = vec![0; 64 * 1024];
    while let Ok(count) = from.read(&mut chunk)
        && count > 0
    {
        let delay = Duration::from_micros(shared.delay.load(Ordering::Relaxed));
        if tell.send((Instant::now() + delay, chunk[..count].to_vec())).is_err() {
            return;
        }
    }
}

/// The broker's frames to walpost.
fn down(
    shared: &Shared,
    number: usize,
    told: &mpsc::Receiver<(Instant, Vec<u8>)>,
    mut to: TcpStream,
    broker: &TcpStream,
) {
    let mut parser = Parser::default();
    while let Ok((due, bytes)) = told.recv() {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        parser.push(&bytes);
        let mut receipts = Vec::new();
        while let Some(raw) = parser.next().unwrap() {
            if raw.command == b"RECEIPT" {
                let frame = raw.decode().unwrap();
                receipts.push(frame.header("receipt-id").unwrap().to_owned());
            }
        }
        {
            // Noted before they pass: what is noted as unreceipted certainly is.
            let at = Instant::now();
            let connection = &mut shared.connections.lock().unwrap()[number];
            for receipt in receipts {
                for place in connection.by_receipt.get(&receipt).into_iter().flatten() {
                    connection.sends[*place].receipted.get_or_insert(at);
                }
            }
        }
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    shared.connections.lock().unwrap()[number].closed = Some(Instant::now());
    let _ = to.shutdown(Shutdown::Both);
    let _ = broker.shutdown(Shutdown::Both);
}
