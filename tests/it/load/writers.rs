//! The writers of the load: several connections at once, at a steady rate.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::{Client, NoTls};

use super::model::{Journal, Outcome, Transaction};
use super::shape::Shape;

const WRITERS: u64 = 4;
/// How long a writer waits before it tries a server that is down again.
const RECONNECT: Duration = Duration::from_millis(50);

/// What is to be written.
#[derive(Clone)]
pub struct Plan {
    pub url: String,
    pub seed: u64,
    pub destinations: usize,
    pub rows_per_second: u32,
}

struct Shared {
    plan: Plan,
    stop: AtomicBool,
    serials: AtomicU64,
    transactions: Mutex<Vec<Transaction>>,
}

/// A running load.
pub struct Load {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    pub fn start(plan: Plan) -> Self {
        let shared = Arc::new(Shared {
            plan,
            stop: AtomicBool::new(false),
            serials: AtomicU64::new(1),
            transactions: Mutex::default(),
        });
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let tasks = (0..WRITERS).map(|no| tokio::spawn(write(Arc::clone(&of_thread), no)));
                for task in tasks.collect::<Vec<_>>() {
                    task.await.unwrap();
                }
            });
        });
        Load { shared, thread: Some(thread) }
    }

    /// Rows given to transactions so far.
    pub fn serials(&self) -> u64 {
        self.shared.serials.load(Ordering::Relaxed)
    }

    /// Ends the load; gives what it did.
    pub fn finish(mut self) -> Journal {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Err(panic) = self.thread.take().expect("finished once").join() {
            std::panic::resume_unwind(panic);
        }
        Journal {
            transactions: std::mem::take(&mut self.shared.transactions.lock().unwrap()),
            destinations: self.shared.plan.destinations,
            next_serial: self.serials(),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn write(shared: Arc<Shared>, number: u64) {
    let plan = &shared.plan;
    let mut rng = fastrand::Rng::with_seed(plan.seed ^ ((number + 1) << 40));
    let mut client = None;
    let mut due = Instant::now();
    while !shared.stop.load(Ordering::Relaxed) {
        let shape = Shape::random(&mut rng, plan.destinations);
        let connected = match &client {
            Some(client) => client,
            None => match connect(&plan.url).await {
                Some(connected) => client.insert(connected),
                None => {
                    tokio::time::sleep(RECONNECT).await;
                    continue;
                }
            },
        };
        if !transact(&shared, connected, &shape, &mut rng).await {
            client = None;
        }
        let pause = shape.len() as f64 * WRITERS as f64 / f64::from(plan.rows_per_second);
        // What a slow moment of the machine held up is not made good in one burst.
        due = due.max(Instant::now() - Duration::from_millis(200)) + Duration::from_secs_f64(pause);
        tokio::time::sleep_until(due).await;
    }
}

async fn connect(url: &str) -> Option<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.ok()?;
    tokio::spawn(connection);
    Some(client)
}

/// `false`: the connection is lost.
async fn transact(
    shared: &Shared,
    client: &Client,
    shape: &Shape,
    rng: &mut fastrand::Rng,
) -> bool {
    let locks = shape.destinations.iter().map(|no| format!("SELECT pg_advisory_xact_lock({no})"));
    let begin = format!("BEGIN; {}", locks.collect::<Vec<_>>().join("; "));
    if let Err(error) = client.batch_execute(&begin).await {
        assert_lost(&error);
        return false;
    }
    let (sql, rows) = shape.render(rng, || shared.serials.fetch_add(1, Ordering::Relaxed));
    let done = client.batch_execute(&sql).await;
    if let Err(error) = &done {
        assert_lost(error);
    }
    let outcome = match (&done, shape.commits) {
        (_, false) => Outcome::RolledBack,
        (Ok(()), true) => Outcome::Committed,
        (Err(_), true) => Outcome::Unknown,
    };
    shared.transactions.lock().unwrap().push(Transaction { rows, outcome });
    done.is_ok()
}

/// Only a server that goes down may refuse anything.
fn assert_lost(error: &tokio_postgres::Error) {
    let going = error.code().is_none_or(|code| code.code().starts_with("57P"));
    assert!(going, "the load: {error:?}");
}
