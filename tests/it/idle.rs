//! The confirmed position and the lag, when nothing happens, when a neighbour writes, and when one side is gone.

use std::time::Duration;

use walpost_testkit::{Postgres, ScriptedBroker, Walpost, until};

use crate::door;
use crate::rig::LONG;
use crate::scene::{
    await_all_confirmed, confirmed, database, is_confirmed, numbers, position, publish_each, relay,
};

const SECONDS: &str = "walpost_replication_lag_seconds";
const BYTES: &str = "walpost_replication_lag_bytes";

fn lag(walpost: &Walpost, series: &str) -> f64 {
    walpost.metrics().get(series).copied().unwrap_or(f64::NAN)
}

#[track_caller]
fn await_lag(walpost: &Walpost, what: &str, is: impl Fn(f64, f64) -> bool) {
    until(LONG, what, || is(lag(walpost, SECONDS), lag(walpost, BYTES)));
}

#[test]
fn an_idle_database_does_not_hold_its_neighbours_wal() {
    let server = Postgres::builder().fast().start();
    let (quiet, busy) = (server.fresh_database(), server.fresh_database());
    let broker = ScriptedBroker::start();
    let mut walpost =
        relay(&quiet, &broker.address()).set("replication.status_interval", "2s").start();
    walpost.await_ready(LONG);
    busy.sql("CREATE TABLE t (a text)");
    for round in 1..=5 {
        // Half a segment each time.
        busy.sql("INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 8000)");
        let written = position(&busy);
        until(Duration::from_secs(2), &format!("round {round} is confirmed"), || {
            is_confirmed(&quiet, &written)
        });
    }
    await_lag(&walpost, "no lag", |seconds, bytes| seconds == 0.0 && bytes < 1024.0);
    busy.sql("CHECKPOINT");
    await_all_confirmed(&quiet);
    let held = quiet.sql(
        "SELECT pg_current_wal_lsn() - restart_lsn < 8 * 1024 * 1024 FROM pg_replication_slots",
    );
    assert_eq!(held, "t");
    assert_eq!(broker.sends(), 0);
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn the_lag_is_true_when_idle_behind_and_alone() {
    let server = Postgres::builder().fast().start();
    let database = server.fresh_database();
    let broker = ScriptedBroker::start();
    let mut walpost =
        relay(&database, &broker.address()).set("broker.reconnect.max", "200ms").start();
    walpost.await_ready(LONG);
    publish_each(&database, "/queue/q", 1, 5);
    await_all_confirmed(&database);
    await_lag(&walpost, "no lag", |seconds, bytes| seconds == 0.0 && bytes < 1024.0);

    // The broker is down: the lag is the age of what waits.
    broker.refuse_connections(true);
    broker.drop_connections();
    publish_each(&database, "/queue/q", 6, 10);
    let age = || -> f64 {
        let oldest = "SELECT extract(epoch FROM clock_timestamp() - min(created_at)) FROM walpost.outbox WHERE (body->>'n')::int > 5";
        database.sql(oldest).parse().unwrap()
    };
    await_lag(&walpost, "behind for 1.5 s", |seconds, bytes| seconds > 1.5 && bytes > 0.0);
    let (least, shown, most) = (age(), lag(&walpost, SECONDS), age());
    // Some milliseconds lie between the insert and its commit.
    assert!(least - 0.5 < shown && shown < most, "{shown} is not within {least} and {most}");
    broker.refuse_connections(false);
    await_all_confirmed(&database);
    await_lag(&walpost, "no lag again", |seconds, bytes| seconds == 0.0 && bytes < 1024.0);

    // PostgreSQL is gone: nobody knows, so it grows from when all was known to be confirmed.
    server.stop_immediate();
    await_lag(&walpost, "alone for 1.5 s", |seconds, _| seconds > 1.5 && seconds < 30.0);
    server.restart();
    walpost.await_ready(LONG);
    await_lag(&walpost, "no lag at the end", |seconds, _| seconds == 0.0);
    publish_each(&database, "/queue/q", 11, 11);
    await_all_confirmed(&database);
    // What the broker had not answered came once more at most; nothing for PostgreSQL's sake.
    let mut sent = numbers(&broker.messages());
    sent.dedup();
    assert_eq!(sent, (1..=11).collect::<Vec<u64>>());
    assert!(walpost.terminate(LONG).success());
}

/// The server's patience with a walpost that is silent, in place of the 60 s that walpost asks for.
const IMPATIENT: &[u8] = b"wal_sender_timeout\0 2000ms\0";

#[test]
fn a_broker_that_takes_nothing_never_costs_the_replication_connection() {
    let (database, broker) = (database(), ScriptedBroker::start());
    let port = door::open(database.server().port(), |first| {
        door::replaced(&first, b"wal_sender_timeout\x0060000ms\0", IMPATIENT)
    });
    let url = format!("postgresql://postgres@127.0.0.1:{port}/{}", database.name());
    let mut walpost = relay(&database, &broker.address())
        .set("postgres.url", url)
        .set("postgres.tls.mode", "disable")
        .set("replication.status_interval", "500ms")
        .set("broker.heartbeat.expect", "0s")
        .set("broker.receipt_timeout", "1m")
        .start();
    walpost.await_ready(LONG);
    let walsender = || {
        database.sql(&format!(
            "SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{}'",
            database.name()
        ))
    };
    let pid = walsender();
    broker.freeze();
    // Far more than the window and the sockets hold, so that nothing is read.
    database.sql(
        r#"INSERT INTO walpost.outbox (destination, body) SELECT '/queue/q',
           jsonb_build_object('n', n, 'pad', repeat('x', 2000)) FROM generate_series(1, 20000) n"#,
    );
    until(LONG, "the window is full", || walpost.metric("walpost_in_flight_messages") == 1024.0);
    let slot = confirmed(&database);
    let since = database.sql("SELECT clock_timestamp()");
    until(LONG, "three timeouts pass", || {
        assert_eq!(walsender(), pid, "{}", walpost.log());
        database.sql(&format!("SELECT clock_timestamp() > '{since}'::timestamptz + interval '6 s'"))
            == "t"
    });
    let fresh = format!(
        "SELECT reply_time > clock_timestamp() - interval '2 s' FROM pg_stat_replication WHERE pid = {pid}"
    );
    assert_eq!(database.sql(&fresh), "t");
    assert_eq!(confirmed(&database), slot);
    broker.thaw();
    await_all_confirmed(&database);
    assert_eq!(numbers(&broker.messages()), (1..=20_000).collect::<Vec<u64>>());
    assert_eq!(walsender(), pid);

    // The timeout was in force: a walpost that really is silent loses its walsender.
    walpost.freeze();
    until(LONG, "the walsender gives up", || walsender().is_empty());
    walpost.thaw();
    publish_each(&database, "/queue/q", 20_001, 20_001);
    await_all_confirmed(&database);
    assert_eq!(broker.sends(), 20_001);
    assert!(walpost.terminate(LONG).success());
}
