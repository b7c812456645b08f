//! What was committed, what was rolled back, and what arrived.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use walpost_testkit::Message;

/// Lines of each kind that the screen shows.
pub const RECENT: usize = 8;
/// Latencies that the percentiles are taken of.
const SAMPLES: usize = 1_000;

/// A row that the application wrote.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its id, which the message carries as `msg-id`.
    pub id: String,
    /// Its destination.
    pub destination: String,
    /// Its body; `n` is its number within the destination, in commit order.
    pub body: String,
}

/// Both sides of the books.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Books>);

#[derive(Debug, Default)]
struct Books {
    committed: HashMap<String, Instant>,
    rolled_back: HashSet<String>,
    first_arrival: HashMap<String, Instant>,
    messages: u64,
    last_number: HashMap<String, u64>,
    out_of_order: u64,
    rows: VecDeque<String>,
    arrivals: VecDeque<String>,
    latencies: VecDeque<Duration>,
}

/// What the screen shows.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Rows committed.
    pub committed: u64,
    /// Distinct messages that arrived.
    pub arrived: u64,
    /// Messages that came again.
    pub repeated: u64,
    /// The latest rows.
    pub rows: Vec<String>,
    /// The latest messages.
    pub arrivals: Vec<String>,
    /// Commit to arrival of the latest messages: median and 99 percent.
    pub latency: Option<(Duration, Duration)>,
}

/// How the books stand.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    /// Rows committed.
    pub committed: u64,
    /// Rows rolled back.
    pub rolled_back: u64,
    /// Messages that arrived, repeats among them.
    pub messages: u64,
    /// Distinct messages that arrived.
    pub arrived: u64,
    /// Committed rows that have not arrived.
    pub lost: u64,
    /// Messages of rows that were never committed.
    pub invented: u64,
    /// First arrivals after one that was committed later, of the same destination.
    pub out_of_order: u64,
}

impl Verdict {
    /// Whether walpost kept its promise.
    pub fn balances(&self) -> bool {
        self.lost == 0 && self.invented == 0 && self.out_of_order == 0 && self.committed > 0
    }
}

impl Ledger {
    /// These rows are committed.
    pub fn committed(&self, rows: &[Row]) {
        let now = Instant::now();
        let mut books = self.lock();
        for row in rows {
            books.committed.insert(row.id.clone(), now);
            push(&mut books.rows, format!("{:<16} {}", row.destination, row.body), RECENT);
            // It may have arrived before the writer heard of its own commit.
            if let Some(arrived) = books.first_arrival.get(&row.id) {
                let latency = arrived.saturating_duration_since(now);
                push(&mut books.latencies, latency, SAMPLES);
            }
        }
    }

    /// These rows are rolled back.
    pub fn rolled_back(&self, rows: &[Row]) {
        self.lock().rolled_back.extend(rows.iter().map(|row| row.id.clone()));
    }

    /// A message was read.
    pub fn arrived(&self, message: &Message) {
        let id = message.header("msg-id").unwrap_or_default().to_owned();
        let mut books = self.lock();
        books.messages += 1;
        let again = if books.first_arrival.contains_key(&id) { "  again" } else { "" };
        let text = format!("{:<19} {}{again}", message.destination, message.text());
        push(&mut books.arrivals, text, RECENT);
        if !again.is_empty() {
            return;
        }
        if let Some(committed) = books.committed.get(&id) {
            let latency = message.at.saturating_duration_since(*committed);
            push(&mut books.latencies, latency, SAMPLES);
        }
        books.first_arrival.insert(id, message.at);
        let number = message.json()["n"].as_u64().unwrap_or(0);
        let last = books.last_number.entry(message.destination.clone()).or_default();
        let late = number <= *last;
        *last = number.max(*last);
        books.out_of_order += u64::from(late);
    }

    /// For the screen.
    pub fn view(&self) -> View {
        let books = self.lock();
        let mut latencies: Vec<Duration> = books.latencies.iter().copied().collect();
        latencies.sort_unstable();
        let at = |percent: usize| latencies.get(latencies.len() * percent / 100).copied();
        View {
            committed: books.committed.len() as u64,
            arrived: books.first_arrival.len() as u64,
            repeated: books.messages - books.first_arrival.len() as u64,
            rows: books.rows.iter().cloned().collect(),
            arrivals: books.arrivals.iter().cloned().collect(),
            latency: at(50).zip(at(99)),
        }
    }

    /// For the end.
    pub fn verdict(&self) -> Verdict {
        let books = self.lock();
        let count = |number: usize| number as u64;
        let lost = books.committed.keys().filter(|id| !books.first_arrival.contains_key(*id));
        let invented = books.first_arrival.keys().filter(|id| !books.committed.contains_key(*id));
        Verdict {
            committed: count(books.committed.len()),
            rolled_back: count(books.rolled_back.len()),
            messages: books.messages,
            arrived: count(books.first_arrival.len()),
            lost: count(lost.count()),
            invented: count(invented.count()),
            out_of_order: books.out_of_order,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn push<T>(queue: &mut VecDeque<T>, value: T, most: usize) {
    if queue.len() == most {
        queue.pop_front();
    }
    queue.push_back(value);
}
