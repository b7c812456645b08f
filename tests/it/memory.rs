//! What the release build occupies: idle, and with a transaction far larger than memory allows.

use std::path::PathBuf;

use walpost_testkit::{Postgres, ScriptedBroker, Walpost, until};

use crate::rig::LONG;

const ROWS: u64 = 1_000_000;
const IDLE: u64 = 16 << 20;
const BUSY: u64 = 32 << 20;
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
