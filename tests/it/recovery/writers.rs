//! Applications that write all the time, with savepoints and rollbacks.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use walpost_testkit::postgres::Database;
use walpost_testkit::stomp::Frame;

/// Writers, each with an ordering key of its own.
pub struct Writers {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<u64>>,
}

impl Writers {
    pub async fn start(database: &Database<'_>, count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for writer in 0..count {
            let (client, stop) = (database.client().await, Arc::clone(&stop));
            tasks.push(tokio::spawn(async move {
                let mut turn = 0;
                while !stop.load(Ordering::Relaxed) {
                    client.batch_execute(&transaction(writer, turn)).await.unwrap();
                    turn += 1;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                turn
            }));
        }
        Writers { stop, tasks }
    }

    /// How many transactions there were.
    pub async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let mut turns = 0;
        for task in self.tasks {
            turns += task.await.unwrap();
        }
        turns
    }
}

/// Some commit, some roll back, in all or in part.
fn transaction(writer: usize, turn: u64) -> String {
    let insert = |what: &str| {
        format!(
            "INSERT INTO walpost.outbox (destination, key, body)
             VALUES ('/queue/q', 'writer {writer}', '{{\"turn\": {turn}, \"what\": \"{what}\"}}');"
        )
    };
    let (first, second, third) = (insert("first"), insert("second"), insert("third"));
    let end = if turn % 5 == 4 { "ROLLBACK" } else { "COMMIT" };
    match turn % 4 {
        0 => format!("BEGIN; {first} {end}"),
        1 => format!("BEGIN; SAVEPOINT a; {first} RELEASE a; {second} {end}"),
        2 => format!("BEGIN; {first} SAVEPOINT a; {second} ROLLBACK TO a; {third} {end}"),
        _ => format!(
            "BEGIN; SAVEPOINT a; {first} SAVEPOINT b; {second} ROLLBACK TO a; {third} {end}"
        ),
    }
}

/// What is in the table was committed: each of it arrived, nothing else did, and the rows of each key
/// were first sent in the order in which they were made. Gives what arrived more than once, by id.
#[track_caller]
pub fn judge(database: &Database<'_>, frames: &[Frame]) -> Vec<String> {
    let rows = database.sql(
        "SELECT id || '|' || coalesce(key, 'none') FROM walpost.outbox ORDER BY created_at, id",
    );
    let rows: Vec<(&str, &str)> = rows.lines().map(|row| row.split_once('|').unwrap()).collect();
    let key_of: HashMap<&str, &str> = rows.iter().copied().collect();
    let mut arrived: HashMap<&str, usize> = HashMap::new();
    let mut sent: HashMap<&str, Vec<&str>> = HashMap::new();
    for frame in frames {
        let id = frame.header("msg-id").unwrap();
        let key = key_of.get(id).unwrap_or_else(|| panic!("{id} was never committed"));
        let times = arrived.entry(id).or_default();
        *times += 1;
        if *times == 1 {
            sent.entry(key).or_default().push(id);
        }
    }
    let mut made: HashMap<&str, Vec<&str>> = HashMap::new();
    for (id, key) in &rows {
        assert!(arrived.contains_key(id), "the row {id} of {key} is missing");
        made.entry(key).or_default().push(id);
    }
    for (key, ids) in &made {
        assert_eq!(&sent[key], ids, "the order of {key}");
    }
    println!("{} rows of {} keys, {} messages", rows.len(), made.len(), frames.len());
    arrived.iter().filter(|(_, times)| **times > 1).map(|(id, _)| (*id).to_owned()).collect()
}
