//! Peers that are slow or want to leave, and a walpost that was itself stopped for a while: nobody
//! is blamed, nothing is repeated, nobody waits in vain.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use walpost_testkit::{Postgres, ScriptedBroker, Signal, Verdict, until};

use crate::rig::{LONG, walpost};
use crate::scene::{await_all_confirmed, database, numbers, publish_each, relay};

const CONNECTS: &str = r#"walpost_connects_total{peer="postgresql"}"#;

/// The walsender decodes a transaction of another table without a word, for many status intervals.
#[test]
fn a_busy_walsender_is_not_taken_for_dead() {
    let (database, broker) = (database(), ScriptedBroker::start());
    let mut walpost =
        relay(&database, &broker.address()).set("replication.status_interval", "100ms").start();
    walpost.await_ready(LONG);
    database.sql("CREATE TABLE other (n integer, t text)");
    publish_each(&database, "/queue/q", 1, 1);
    database.sql("INSERT INTO other SELECT n, 'x' FROM generate_series(1, 1000000) n");
    publish_each(&database, "/queue/q", 2, 2);
    await_all_confirmed(&database);
    assert_eq!(numbers(&broker.messages()), [1, 2]);
    assert_eq!(walpost.metric(CONNECTS), 1.0, "{}", walpost.log());
    assert!(walpost.terminate(LONG).success());
}

/// PostgreSQL would wait for the receipts of all that it has sent.
#[test]
fn postgresql_shuts_down_although_the_broker_answers_nothing() {
    let answering = Arc::new(AtomicBool::new(false));
    let answers = Arc::clone(&answering);
    let broker = ScriptedBroker::builder()
        .on_frame(move |frame, _| match frame.command.as_str() {
            "SEND" if !answers.load(Ordering::Acquire) => Verdict::Taken,
            _ => Verdict::Default,
        })
        .start();
    let server = Postgres::builder().fast().start();
    let mut walpost = walpost()
        .set("postgres.url", server.url("postgres"))
        .set("broker.hosts", broker.address())
        .start();
    walpost.await_ready(LONG);
    // More than the window takes, so that the walsender is blocked.
    server.sql(
        "postgres",
        "DO $$ BEGIN FOR i IN 1..3000 LOOP
           PERFORM walpost.publish('/queue/q', jsonb_build_object('n', i)); COMMIT;
         END LOOP; END $$",
    );
    broker.wait_for_sends(1024, LONG);
    server.stop_fast();
    walpost.wait_for_log("PostgreSQL is shutting down", LONG);
    server.restart();
    answering.store(true, Ordering::Release);
    broker.drop_connections();
    let all = server.sql("postgres", "SELECT pg_current_wal_insert_lsn()");
    let confirmed = format!("SELECT confirmed_flush_lsn >= '{all}' FROM pg_replication_slots");
    until(LONG, "all is confirmed", || server.sql("postgres", &confirmed) == "t");
    // What was on its way to the broker was sent again, in order; nothing was for PostgreSQL's sake.
    let expected: Vec<u64> = (1..=1024).chain(1..=3000).collect();
    assert_eq!(numbers(&broker.messages()), expected);
    assert_eq!(walpost.metric(CONNECTS), 2.0, "{}", walpost.log());
    assert!(walpost.terminate(LONG).success());
}

/// Stopped by the kernel, a debugger, a suspended machine: on waking it reads before it judges.
#[test]
fn a_walpost_that_was_stopped_blames_nobody() {
    let database = database();
    let broker = ScriptedBroker::builder().heartbeat(200, 200).start();
    let mut walpost = relay(&database, &broker.address())
        .set("broker.heartbeat.send", "200ms")
        .set("broker.heartbeat.expect", "200ms")
        .set("broker.receipt_timeout", "500ms")
        .set("replication.status_interval", "100ms")
        .start();
    walpost.await_ready(LONG);
    for round in 0..3 {
        publish_each(&database, "/queue/q", 200 * round + 1, 200 * round + 100);
        walpost.freeze();
        let frozen = Instant::now();
        publish_each(&database, "/queue/q", 200 * round + 101, 200 * round + 200);
        // Past the silence that is allowed to the broker: one second.
        let rest = Duration::from_millis(1500).saturating_sub(frozen.elapsed());
        std::thread::sleep(rest);
        walpost.thaw();
        await_all_confirmed(&database);
    }
    assert_eq!(numbers(&broker.messages()), (1..=600).collect::<Vec<u64>>());
    assert_eq!(broker.connections(), 1, "{}", walpost.log());
    assert_eq!(walpost.metric(CONNECTS), 1.0, "{}", walpost.log());
    assert!(walpost.terminate(LONG).success());
}

/// A connection that is lost again and again is told now and then, with the one that follows.
#[test]
fn a_storm_of_reconnects_is_not_poured_into_the_log() {
    let database = database();
    let broker = ScriptedBroker::builder()
        .on_frame(|frame, reply| {
            if frame.command == "SEND" && reply.connection() < 30 && reply.sends() == 2 {
                reply.close();
                return Verdict::Taken;
            }
            Verdict::Default
        })
        .start();
    let mut walpost = relay(&database, &broker.address())
        .set("broker.reconnect.initial", "10ms")
        .set("broker.reconnect.max", "10ms")
        .start();
    walpost.await_ready(LONG);
    publish_each(&database, "/queue/q", 1, 100);
    await_all_confirmed(&database);
    assert!(broker.connections() > 30);
    let (lost, connected) = ("closed the connection", "connected to the broker");
    let log = walpost.log();
    let count = |words: &str| log.matches(words).count();
    assert_eq!(count(connected), count(lost) + 1, "{log}");
    assert!(count(connected) < 10, "{log}");
    assert!(walpost.terminate(LONG).success());
}

/// Emitted outside of any transaction, it is nobody's message, whatever its prefix and size.
#[test]
fn a_long_message_outside_of_a_transaction_is_skipped() {
    let (database, broker) = (database(), ScriptedBroker::start());
    let mut walpost =
        relay(&database, &broker.address()).set("broker.max_frame_size", "64KiB").start();
    walpost.await_ready(LONG);
    database.sql("SELECT pg_logical_emit_message(false, 'walpost', repeat('x', 4000000))");
    publish_each(&database, "/queue/q", 1, 1);
    await_all_confirmed(&database);
    assert_eq!(numbers(&broker.messages()), [1]);
    let skipped = r#"walpost_rows_skipped_total{reason="non_transactional"}"#;
    assert_eq!(walpost.metric(skipped), 1.0);
    assert!(walpost.terminate(LONG).success());
}

/// A broker that answers no SEND, and no goodbye.
fn mute_broker() -> ScriptedBroker {
    let mute = |command: &str| matches!(command, "SEND" | "DISCONNECT");
    ScriptedBroker::builder()
        .on_frame(move |frame, _| match mute(&frame.command) {
            true => Verdict::Taken,
            false => Verdict::Default,
        })
        .start()
}

/// With a full window nothing is read, so that the end of the connection does not show by itself;
/// the status updates that would meet it are an hour apart.
#[test]
fn a_lost_session_is_noticed_although_the_window_is_full() {
    let (database, broker) = (database(), mute_broker());
    let walpost = relay(&database, &broker.address())
        .set("replication.status_interval", "1h")
        .set("broker.in_flight.messages", 8);
    let mut walpost = walpost.start();
    walpost.await_ready(LONG);
    publish_each(&database, "/queue/q", 1, 2000);
    broker.wait_for_sends(8, LONG);
    database.sql(&format!(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{}'",
        database.name()
    ));
    until(LONG, "a new session", || walpost.metric(CONNECTS) >= 2.0);
    assert_eq!(numbers(&broker.messages()), Vec::from_iter(1..=8), "none again");
}

#[test]
fn told_twice_it_waits_for_nobody() {
    let (database, broker) = (database(), mute_broker());
    let mut walpost = relay(&database, &broker.address()).set("shutdown_timeout", "1h").start();
    walpost.await_ready(LONG);
    publish_each(&database, "/queue/q", 1, 3);
    broker.wait_for_sends(3, LONG);
    walpost.signal(Signal::TERM);
    walpost.wait_for_log("waiting for outstanding receipts", LONG);
    walpost.signal(Signal::TERM);
    let told = Instant::now();
    assert!(walpost.wait(LONG).success(), "{}", walpost.log());
    // The goodbye that the broker does not answer would take three.
    assert!(told.elapsed() < Duration::from_secs(2), "{:?}", told.elapsed());
    assert!(walpost.log().contains("messages without a receipt"), "{}", walpost.log());
}

/// Commits then wait for ever; a relay that waited for its own would not stream.
#[test]
fn a_missing_synchronous_standby_does_not_keep_it_from_streaming() {
    let (server, broker) = (Postgres::builder().fast().start(), ScriptedBroker::start());
    let relay =
        walpost().set("postgres.url", server.url("postgres")).set("broker.hosts", broker.address());
    let mut first = relay.start();
    first.await_ready(LONG);
    assert!(first.terminate(LONG).success());
    server.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'missing'");
    server.sql("postgres", "SELECT pg_reload_conf()");
    until(LONG, "commits wait", || {
        server.sql("postgres", "SHOW synchronous_standby_names") == "missing"
    });
    let started = Instant::now();
    let mut second = relay.start();
    second.await_ready(LONG);
    // A statement is given up after thirty.
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    let publish = "SET synchronous_commit = local; SELECT walpost.publish('/queue/q', '1')";
    server.sql("postgres", publish);
    broker.wait_for_sends(1, LONG);
    assert!(second.terminate(LONG).success());
}
