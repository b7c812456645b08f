//! Rows that the slot does not bring are published out of the table, before the slot is read: whatever
//! is killed meanwhile, none is missed, and only the chunk in flight is repeated.

mod hold;
mod layouts;
mod locks;
mod midway;
mod occasions;
mod steps;
mod writers;

use walpost_testkit::ScriptedBroker;
use walpost_testkit::postgres::Database;

use crate::init;
use crate::scene::{database, number};

/// So many rows are published before the position is kept.
const CHUNK: usize = 1_000;

/// A database with the schema, and no slot yet.
fn schema_only() -> Database<'static> {
    let database = database();
    let _ = init::init(&database);
    drop_slot(&database);
    database.sql("DELETE FROM walpost.relay");
    database
}

fn drop_slot(database: &Database<'_>) {
    database.sql(&format!("SELECT pg_drop_replication_slot('{}')", database.name()));
}

/// Rows with the bodies `{"n": from}` to `{"n": to}`, made in this order long ago.
fn fill(database: &Database<'_>, from: u64, to: u64) {
    database.sql(&format!(
        "INSERT INTO walpost.outbox (destination, body, created_at)
         SELECT '/queue/q', jsonb_build_object('n', i), now() - interval '1 hour' + i * interval '1 ms'
         FROM generate_series({from}, {to}) AS i"
    ));
}

/// The `n` of each body, in the order of sending, by connection.
fn numbers_by_connection(broker: &ScriptedBroker) -> Vec<Vec<u64>> {
    let mut all = vec![Vec::new(); broker.connections()];
    for received in broker.frames() {
        if let Some(number) = number(&received.frame.body) {
            all[received.connection].push(number);
        }
    }
    all
}

/// The `n` of the row up to which everything is published, as `walpost.relay` has it; 0: none is.
fn kept(database: &Database<'_>) -> u64 {
    let kept = database.sql(
        "SELECT coalesce((SELECT body->>'n' FROM walpost.outbox, walpost.relay
            WHERE id::text = recovery_cursor->'at'->>'id'), '0')",
    );
    kept.parse().unwrap()
}

fn state(database: &Database<'_>) -> String {
    database.sql("SELECT state FROM walpost.relay")
}

/// Those that came more than once, in order.
fn repeats(numbers: &[u64]) -> Vec<u64> {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    sorted.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect()
}

/// Each number once, where it came first.
fn firsts(numbers: &[u64]) -> Vec<u64> {
    let mut seen = std::collections::HashSet::new();
    numbers.iter().copied().filter(|number| seen.insert(*number)).collect()
}
