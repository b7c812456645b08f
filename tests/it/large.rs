//! A kill inside a transaction that is larger than the window.

use std::time::Duration;

use walpost_testkit::walpost::release_binary;
use walpost_testkit::{ScriptedBroker, Walpost, until};

use crate::rig::LONG;
use crate::scene::database;

/// In `broker.in_flight.messages`, and the most that is repeated beside.
const WINDOW: u64 = 1024;
const REPEATED: u64 = 5_000;

#[test]
fn a_kill_at_row_900_000_of_a_million_repeats_what_was_in_flight_and_5_000_at_most() {
    const ROWS: u64 = 1_000_000;
    let (database, broker) = (database(), ScriptedBroker::builder().count_only().start());
    let relay = Walpost::builder(release_binary())
        .set("postgres.url", database.url())
        .set("replication.slot", database.name())
        .set("broker.hosts", broker.address());
    let mut first = relay.start();
    first.await_ready(LONG);
    database.sql(&format!(
        "INSERT INTO walpost.outbox (destination, body)
         SELECT '/queue/q', to_jsonb(n) FROM generate_series(1, {ROWS}) n"
    ));
    let long = Duration::from_secs(300);
    broker.wait_for_sends(900_000, long);
    first.kill();
    let at_kill = broker.sends();
    let mut second = relay.start();
    second.await_ready(LONG);
    broker.wait_for_sends(ROWS, long);
    until(long, "every receipt", || {
        let metrics = second.metrics();
        let of = |name: &str| metrics.get(name).copied().unwrap_or_default();
        of("walpost_in_flight_messages") == 0.0
            && of("walpost_receipts_total") as u64 + 1 >= ROWS.saturating_sub(at_kill)
            && of("walpost_replication_lag_bytes") < 100_000.0
    });
    let repeated = broker.sends() - ROWS;
    println!("killed at {at_kill}, {repeated} repeated");
    assert!(at_kill < ROWS, "it was killed too late: {at_kill}");
    assert!(repeated <= REPEATED + WINDOW, "{repeated} repeated; {}", second.log());
    assert!(second.terminate(LONG).success(), "{}", second.log());
}
