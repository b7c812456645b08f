//! PostgreSQL shuts down with the broker down and the window full. It waits for its walsender, which waits
//! until everything it has sent is confirmed: walpost must let go.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use walpost_testkit::walpost::Builder;
use walpost_testkit::{Postgres, ScriptedBroker, Walpost, until};

use crate::door;
use crate::rig::{LONG, walpost};
use crate::scene::numbers;

/// More rows of this size than the window and the sockets hold.
const ROWS: u64 = 5000;
const SIZE: usize = 2000;
const CONNECTS: &str = r#"walpost_connects_total{peer="postgresql"}"#;

fn relay(server: &Postgres, broker: &ScriptedBroker) -> Builder {
    walpost()
        .set("postgres.url", server.url("postgres"))
        .set("broker.hosts", broker.address())
        .set("broker.reconnect.max", "200ms")
}

/// A relay whose broker is down, with rows waiting and its window full of them.
fn held(
    relay: &Builder,
    server: &Postgres,
    broker: &ScriptedBroker,
    rows: u64,
    size: usize,
) -> Walpost {
    let mut walpost = relay.start();
    walpost.await_ready(LONG);
    broker.refuse_connections(true);
    broker.drop_connections();
    server.sql(
        "postgres",
        &format!(
            "DO $$ BEGIN FOR i IN 1..{rows} LOOP
               PERFORM walpost.publish('/queue/q', jsonb_build_object('n', i, 'pad', repeat('x', {size})));
               COMMIT;
             END LOOP; END $$"
        ),
    );
    until(LONG, "the window is full", || {
        walpost.metrics().get("walpost_in_flight_messages") == Some(&1024.0)
    });
    walpost
}

/// `pg_ctl stop -m fast`.
#[track_caller]
fn stops_in_time(server: &Postgres, walpost: &Walpost) {
    let told = Instant::now();
    server.stop_fast();
    assert!(told.elapsed() < Duration::from_secs(5), "{:?}\n{}", told.elapsed(), walpost.log());
}

/// The server comes back, then the broker: each row arrives once, in order, and is confirmed.
#[track_caller]
fn nothing_is_lost(server: &Postgres, broker: &ScriptedBroker, walpost: &Walpost, rows: u64) {
    let before = walpost.metric(CONNECTS);
    server.restart();
    until(LONG, "walpost is back", || walpost.metric(CONNECTS) > before);
    broker.refuse_connections(false);
    let all = server.sql("postgres", "SELECT pg_current_wal_insert_lsn()");
    let confirmed = format!("SELECT confirmed_flush_lsn >= '{all}' FROM pg_replication_slots");
    until(LONG, "all is confirmed", || server.sql("postgres", &confirmed) == "t");
    assert_eq!(numbers(&broker.messages()), (1..=rows).collect::<Vec<u64>>());
}

#[test]
fn a_fast_shutdown_does_not_wait_for_the_broker() {
    let (server, broker) = (Postgres::builder().fast().start(), ScriptedBroker::start());
    let mut walpost = held(&relay(&server, &broker), &server, &broker, ROWS, SIZE);
    stops_in_time(&server, &walpost);
    walpost.wait_for_log("PostgreSQL is shutting down", LONG);
    nothing_is_lost(&server, &broker, &walpost, ROWS);
    assert!(walpost.terminate(LONG).success());
}

/// A relay whose new SQL connections hang while the gate is locked.
fn gated(server: &Postgres, broker: &ScriptedBroker) -> (Builder, Arc<Mutex<()>>) {
    let gate = Arc::new(Mutex::new(()));
    let shared = Arc::clone(&gate);
    let port = door::open(server.port(), move |first| {
        if memchr::memmem::find(&first, b"replication\0database\0").is_none() {
            drop(shared.lock());
        }
        first
    });
    let url = format!("postgresql://postgres@127.0.0.1:{port}/postgres");
    let relay = relay(server, broker).set("postgres.tls.mode", "disable");
    (relay.set("postgres.url", url), gate)
}

/// The connection that is open hears of it; a new one may be as long in coming as it likes.
#[test]
fn nor_for_a_new_connection_that_hangs() {
    let (server, broker) = (Postgres::builder().fast().start(), ScriptedBroker::start());
    let (relay, gate) = gated(&server, &broker);
    let mut walpost = held(&relay, &server, &broker, ROWS, SIZE);
    let shut = gate.lock().unwrap();
    stops_in_time(&server, &walpost);
    drop(shut);
    nothing_is_lost(&server, &broker, &walpost, ROWS);
    assert!(walpost.terminate(LONG).success());
}

/// The slot is already its own again, and the statement that asks where it stands waits for a lock.
#[test]
fn nor_does_it_while_a_statement_of_walpost_waits() {
    let (server, broker) = (Postgres::builder().fast().start(), ScriptedBroker::start());
    // So few that the walsender is not blocked: one that is hangs at its last word when it is ended.
    let mut walpost = held(&relay(&server, &broker), &server, &broker, 2000, 1);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let locker = runtime.block_on(async {
        let client = server.client().await;
        client.batch_execute("BEGIN; LOCK TABLE walpost.relay").await.unwrap();
        client
    });
    server.end_walsenders();
    let waiting = "SELECT count(*) FROM pg_locks, pg_replication_slots
        WHERE NOT granted AND relation = 'walpost.relay'::regclass AND active";
    until(LONG, "a statement waits, and the slot is taken", || {
        server.sql("postgres", waiting) == "1"
    });
    stops_in_time(&server, &walpost);
    drop(locker);
    nothing_is_lost(&server, &broker, &walpost, 2000);
    assert!(walpost.terminate(LONG).success());
}

/// The same before it is known where the slot stands: what asks for that has no connection yet.
#[test]
fn nor_for_a_session_that_is_just_being_opened() {
    let (server, broker) = (Postgres::builder().fast().start(), ScriptedBroker::start());
    let (relay, gate) = gated(&server, &broker);
    let mut walpost = held(&relay, &server, &broker, 2000, 1);
    let holder = "SELECT active_pid FROM pg_replication_slots WHERE active";
    let first = server.sql("postgres", holder);
    let shut = gate.lock().unwrap();
    server.end_walsenders();
    until(LONG, "the slot is taken again", || {
        let now = server.sql("postgres", holder);
        !now.is_empty() && now != first
    });
    stops_in_time(&server, &walpost);
    drop(shut);
    nothing_is_lost(&server, &broker, &walpost, 2000);
    assert!(walpost.terminate(LONG).success());
}

/// A standby has a walsender, too, and so has a relay that was told to stop and waits for receipts.
#[test]
fn nor_for_a_standby_nor_for_a_relay_on_its_way_out() {
    let (server, broker) = (Postgres::builder().fast().start(), ScriptedBroker::start());
    let mut leaving = held(&relay(&server, &broker), &server, &broker, ROWS, SIZE);
    let mut standby = relay(&server, &broker).start();
    standby.wait_for_log("standby until the slot is free", LONG);
    leaving.signal(walpost_testkit::Signal::TERM);
    leaving.wait_for_log("waiting for outstanding receipts", LONG);
    stops_in_time(&server, &leaving);
    assert!(leaving.wait(LONG).success(), "{}", leaving.log());
    nothing_is_lost(&server, &broker, &standby, ROWS);
    assert!(standby.terminate(LONG).success());
}
