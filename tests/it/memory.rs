//! What the release build occupies: idle, with a transaction far larger than memory allows, and with rows
//! that wait.

use std::path::PathBuf;
use std::time::Instant;

use walpost_testkit::walpost::Builder;
use walpost_testkit::{Postgres, ScriptedBroker, Walpost, until};

use crate::rig::LONG;

const ROWS: u64 = 1_000_000;
const IDLE: u64 = 16 << 20;
const BUSY: u64 = 32 << 20;
/// A window of 16 MiB, and about a dozen rows on their way to it, of 6 MB as PostgreSQL prints them.
const LARGE: u64 = 128 << 20;
/// How often the broker stops until the window is full.
const STOPS: u64 = 20;

fn release() -> PathBuf {
    let path = std::env::var_os("WALPOST_BIN_RELEASE")
        .expect("WALPOST_BIN_RELEASE names the release binary: run `make test`");
    PathBuf::from(path)
}

#[test]
fn a_transaction_of_a_million_rows_in_little_memory() {
    let server = Postgres::builder().fast().setting("max_wal_size", "4GB").start();
    server.sql("postgres", "CREATE TABLE big (id bigint, body text)");
    let broker = ScriptedBroker::builder().count_only().start();
    let mut walpost = Walpost::builder(release())
        .set("postgres.url", server.url("postgres"))
        .set("broker.hosts", broker.address())
        .set("outbox.layout", "custom")
        .set("outbox.tables", r#"["public.big"]"#)
        .set("outbox.columns", r#"{"id": "id", "body": "body"}"#)
        .set("outbox.destination", "/queue/big")
        .set("outbox.key", "")
        .start();
    walpost.await_ready(LONG);
    let idle = walpost.vm_hwm();

    broker.freeze();
    let insert =
        format!("INSERT INTO big SELECT n, repeat('x', 200) FROM generate_series(1, {ROWS}) n");
    server.sql("postgres", &insert);
    // Slower than the source: each time the window must have filled up before it goes on.
    for stop in 1..=STOPS {
        until(LONG, "the window is full", || {
            walpost.metric("walpost_in_flight_messages") == 1024.0
        });
        broker.thaw();
        broker.wait_for_sends(ROWS / STOPS * stop - 10_000, LONG);
        if stop < STOPS {
            broker.freeze();
        }
    }
    until(LONG, "all receipts are in", || walpost.metric("walpost_receipts_total") == ROWS as f64);
    let busy = walpost.vm_hwm();
    println!("peak memory: idle {} KiB, busy {} KiB", idle >> 10, busy >> 10);
    assert!(idle < IDLE, "{idle} bytes idle");
    assert!(busy < BUSY, "{busy} bytes");
    assert_eq!(broker.sends(), ROWS);
    assert_eq!(walpost.metric("walpost_messages_resent_total"), 0.0);
    let lsn = server.sql("postgres", "SELECT pg_current_wal_insert_lsn()");
    until(LONG, "the position to be confirmed", || {
        let sql = format!("SELECT confirmed_flush_lsn >= '{lsn}' FROM pg_replication_slots");
        server.sql("postgres", &sql) == "t"
    });
    assert!(walpost.terminate(LONG).success());
}

/// The schema of `walpost.outbox`, and no slot yet.
fn without_a_slot(server: &Postgres, settings: &Builder) {
    let init = settings.clone().arguments(["init"]).output(LONG);
    assert!(init.status.success(), "{init:?}");
    server.sql("postgres", "SELECT pg_drop_replication_slot('walpost')");
    server.sql("postgres", "DELETE FROM walpost.relay");
}

fn streams(server: &Postgres) -> bool {
    server.sql("postgres", "SELECT state FROM walpost.relay") == "streaming"
}

#[test]
fn a_million_rows_that_wait_in_little_memory() {
    let server = Postgres::builder().fast().setting("max_wal_size", "4GB").start();
    let broker = ScriptedBroker::builder().count_only().start();
    let settings = Walpost::builder(release())
        .set("postgres.url", server.url("postgres"))
        .set("broker.hosts", broker.address());
    without_a_slot(&server, &settings);
    let insert = format!(
        "INSERT INTO walpost.outbox (destination, key, body)
         SELECT '/queue/big', n % 100, to_jsonb(repeat('x', 200)) FROM generate_series(1, {ROWS}) n"
    );
    server.sql("postgres", &insert);
    let started = Instant::now();
    let mut walpost = settings.start();
    broker.wait_for_sends(1, LONG);
    let sorted = started.elapsed();
    until(10 * LONG, "all rows", || broker.sends() >= ROWS);
    let rate = ROWS as f64 / (started.elapsed() - sorted).as_secs_f64();
    until(LONG, "the end of the recovery", || streams(&server));
    let peak = walpost.vm_hwm();
    println!("first row after {sorted:?}, then {rate:.0} rows/s; peak memory {} KiB", peak >> 10);
    assert!(peak < BUSY, "{peak} bytes");
    assert_eq!(broker.sends(), ROWS);
    assert_eq!(walpost.metric("walpost_messages_resent_total"), 0.0);
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn large_rows_that_wait_do_not_add_up() {
    const MANY: u64 = 100;
    let server = Postgres::builder().fast().start();
    let broker = ScriptedBroker::builder().count_only().start();
    let settings = Walpost::builder(release())
        .set("postgres.url", server.url("postgres"))
        .set("broker.hosts", broker.address());
    without_a_slot(&server, &settings);
    let insert = format!(
        "INSERT INTO walpost.outbox (destination, body_bytes)
         SELECT '/queue/big', convert_to(repeat('x', 3000000), 'UTF8') FROM generate_series(1, {MANY})"
    );
    server.sql("postgres", &insert);
    broker.freeze();
    let mut walpost = settings.start();
    until(LONG, "the window is full", || walpost.metric("walpost_in_flight_messages") >= 5.0);
    broker.thaw();
    until(LONG, "the end of the recovery", || broker.sends() == MANY && streams(&server));
    let peak = walpost.vm_hwm();
    println!("peak memory {} KiB, with {MANY} rows of 3 MB", peak >> 10);
    assert!(peak < LARGE, "{peak} bytes");
    assert!(walpost.terminate(LONG).success());
}
