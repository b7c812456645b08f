//! A slot that may be lost, and settings of the server that would lose it one day: said in time, with
//! what to type.

use std::collections::BTreeSet;

use walpost::net::PostgresTls;
use walpost::store::{ConnectSettings, Store};
use walpost_testkit::{Postgres, ScriptedBroker, Walpost, until};

use crate::rig::{LONG, walpost};
use crate::scene::numbers;

const LEFT: &str = "walpost_slot_seconds_left";
const RETAINED: &str = "walpost_slot_retained_wal_bytes";
const SAFE: &str = "walpost_slot_safe_wal_bytes";

fn relay(server: &Postgres, broker: &ScriptedBroker) -> Walpost {
    let mut walpost = walpost()
        .set("postgres.url", server.url("postgres"))
        .set("broker.hosts", broker.address())
        .set("broker.reconnect.max", "200ms")
        .start();
    walpost.await_ready(LONG);
    walpost
}

fn publish(server: &Postgres, n: u64) {
    let sql = format!("SELECT walpost.publish('/queue/q', jsonb_build_object('n', {n}))");
    server.sql("postgres", &sql);
}

fn wal_status(server: &Postgres) -> String {
    server.sql("postgres", "SELECT wal_status FROM pg_replication_slots")
}

/// Eight megabytes of WAL that are nobody's message.
fn write_wal(server: &Postgres) {
    let sql = "SELECT max(pg_logical_emit_message(false, 'other', repeat('x', 1048576)))
        FROM generate_series(1, 8)";
    server.sql("postgres", sql);
}

/// Writes while nothing is confirmed until walpost says something; the slot must be there still.
#[track_caller]
fn write_until_said(server: &Postgres, walpost: &Walpost, words: &str) {
    for _ in 0..60 {
        assert_ne!(wal_status(server), "lost", "no word of {words:?}: {}", walpost.log());
        if walpost.log().contains(words) {
            return;
        }
        write_wal(server);
        let kept = "SELECT pg_current_wal_insert_lsn() - restart_lsn FROM pg_replication_slots";
        until(LONG, "walpost has looked", || {
            let kept: f64 = server.sql("postgres", kept).parse().unwrap();
            walpost.metric(RETAINED) >= kept - 1e6
        });
    }
    panic!("no word of {words:?}: {}", walpost.log());
}

/// The broker is back: everything arrives, and the danger is over.
#[track_caller]
fn recovers(server: &Postgres, broker: &ScriptedBroker, walpost: &mut Walpost) {
    broker.refuse_connections(false);
    broker.wait_for_sends(2, LONG);
    assert_eq!(numbers(&broker.messages()), [1, 2]);
    // The server lets go of WAL at its own checkpoints only.
    until(LONG, "the slot has moved on", || {
        server.sql("postgres", "CHECKPOINT");
        walpost.metric(RETAINED) < 16e6
    });
    walpost.wait_for_log("is out of danger", LONG);
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn time_that_runs_out_is_said_before_the_slot_is_lost() {
    let server = Postgres::builder()
        .fast()
        .setting("max_wal_size", "32MB")
        .setting("min_wal_size", "32MB")
        .setting("max_slot_wal_keep_size", "160MB")
        .start();
    let broker = ScriptedBroker::start();
    let mut walpost = relay(&server, &broker);
    publish(&server, 1);
    broker.wait_for_sends(1, LONG);
    // All is well: nothing is said, whatever is written.
    for _ in 0..4 {
        write_wal(&server);
        until(LONG, "it is read", || walpost.status()["source"]["lag_seconds"] == 0.0);
        server.sql("postgres", "CHECKPOINT");
    }
    assert!(walpost.metric(SAFE) > 100e6 && walpost.metric(LEFT) > 0.0);
    assert!(!walpost.log().contains("WARN"), "{}", walpost.log());

    broker.refuse_connections(true);
    broker.drop_connections();
    publish(&server, 2);
    write_until_said(&server, &walpost, "more than max_wal_size; ");
    write_until_said(&server, &walpost, "is lost in about ");
    let (left, retained, safe) =
        (walpost.metric(LEFT), walpost.metric(RETAINED), walpost.metric(SAFE));
    assert!(left < 600.0 && retained >= safe && safe > 0.0, "{left} {retained} {safe}");
    assert_eq!(walpost.metric("walpost_slot_wal_status{status=\"extended\"}"), 1.0);
    assert!(walpost.status()["source"]["slot_seconds_left"].is_number());
    let line = walpost.wait_for_log("is lost in about ", LONG);
    assert!(line.contains("the broker at ") && line.contains(" is not connected"), "{line}");
    assert!(line.contains("ALTER SYSTEM SET max_slot_wal_keep_size = '"), "{line}");
    recovers(&server, &broker, &mut walpost);
}

/// Before the next checkpoint there is still time: the advice is typed, and nothing is lost.
#[test]
fn an_unreserved_slot_is_saved_by_the_advice() {
    let server = Postgres::builder()
        .fast()
        .setting("max_wal_size", "4GB")
        .setting("checkpoint_timeout", "1h")
        .setting("max_slot_wal_keep_size", "32MB")
        .start();
    let broker = ScriptedBroker::start();
    let mut walpost = relay(&server, &broker);
    publish(&server, 1);
    broker.wait_for_sends(1, LONG);
    broker.refuse_connections(true);
    broker.drop_connections();
    publish(&server, 2);
    write_until_said(&server, &walpost, "may be lost at any checkpoint");
    assert_eq!(wal_status(&server), "unreserved");
    assert_eq!(walpost.metric("walpost_slot_wal_status{status=\"unreserved\"}"), 1.0);
    let line = walpost.wait_for_log("may be lost at any checkpoint", LONG);
    let advice = &line[line.find("ALTER SYSTEM").unwrap()..];
    for statement in advice.split("; ").take(2) {
        server.sql("postgres", statement);
    }
    until(LONG, "it is reserved again", || wal_status(&server) == "reserved");
    server.sql("postgres", "CHECKPOINT");
    assert_eq!(wal_status(&server), "reserved");
    recovers(&server, &broker, &mut walpost);
}

/// Said at the start, and while it runs when the setting changes; not where there is no such setting.
#[test]
fn settings_that_end_the_slot_or_make_commits_wait_are_said() {
    let (server, broker) = (Postgres::builder().fast().start(), ScriptedBroker::start());
    let mut first = relay(&server, &broker);
    let set = |name: &str, value: &str| {
        server.sql("postgres", &format!("ALTER SYSTEM SET {name} = '{value}'"));
        server.sql("postgres", "SELECT pg_reload_conf()");
    };
    let timeout = "idle_replication_slot_timeout";
    let known = format!("SELECT count(*) FROM pg_settings WHERE name = '{timeout}'");
    let has_timeout = server.sql("postgres", &known) == "1";
    let (synchronous, idle) = ("walpost counts as a synchronous standby", format!("{timeout} is "));
    assert!(!first.log().contains(synchronous) && !first.log().contains(&idle), "{}", first.log());
    if has_timeout {
        set(timeout, "36h");
    }
    set("synchronous_standby_names", "*");
    first.wait_for_log(synchronous, LONG);
    // Both are read at once.
    assert_eq!(first.log().contains(&idle), has_timeout, "{}", first.log());
    assert!(first.terminate(LONG).success());

    let mut second = relay(&server, &broker);
    let line = second.wait_for_log(synchronous, LONG);
    assert!(line.contains("synchronous_standby_names is '*'"), "{line}");
    assert!(line.contains("ALTER SYSTEM SET synchronous_standby_names = ''"), "{line}");
    assert_eq!(second.log().contains(&idle), has_timeout, "{}", second.log());
    if has_timeout {
        let line = second.wait_for_log(&idle, LONG);
        assert!(line.contains("is '36h'") && line.contains(" = 0; SELECT pg_reload"), "{line}");
    }
    // It is as the warning says: the commit is answered because the broker has taken its message.
    publish(&server, 1);
    assert_eq!(broker.sends(), 1);
    assert!(second.terminate(LONG).success());
}

/// The judgement of the names is the server's own.
#[test]
fn a_synchronous_standby_is_what_postgresql_takes_for_one() {
    let (server, broker) = (Postgres::builder().fast().start(), ScriptedBroker::start());
    let mut walpost = relay(&server, &broker);
    let client = ConnectSettings {
        client: server.url("postgres").parse().unwrap(),
        connect_timeout: LONG,
        tls: PostgresTls::never(),
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = runtime.block_on(Store::connect(&client)).unwrap();
    let yes = ["*", "\"a\", WALPOST", "ANY 1 (a, walpost)", "FIRST 2 (b,\"*\")", "1 (walpost)"];
    let no = ["", "walpost_1, b", "\"a, walpost\"", "first 1 (\"walpost\"\"\")", "any 2 (x, y)"];
    for (names, expected) in
        yes.into_iter().zip(no).flat_map(|(yes, no)| [(yes, true), (no, false)])
    {
        let literal = names.replace('\'', "''");
        server
            .sql("postgres", &format!("ALTER SYSTEM SET synchronous_standby_names = '{literal}'"));
        server.sql("postgres", "SELECT pg_reload_conf()");
        // Each follows one of the other kind, so that no old answer passes.
        let is = "SELECT sync_state <> 'async' FROM pg_stat_replication";
        let expected_text = if expected { "t" } else { "f" };
        until(LONG, names, || server.sql("postgres", is) == expected_text);
        let settings = runtime.block_on(store.slot_settings()).unwrap();
        assert_eq!(settings.is_synchronous(), expected, "{settings:?}");
    }
    assert!(walpost.terminate(LONG).success());
}

/// PostgreSQL 18 does so at a checkpoint, to a slot that nobody reads from for long enough.
#[test]
fn a_slot_that_was_idle_for_too_long_is_lost_and_both_ways_on_help() {
    let (server, broker) = (Postgres::builder().fast().start(), ScriptedBroker::start());
    let mut first = relay(&server, &broker);
    publish(&server, 1);
    broker.wait_for_sends(1, LONG);
    assert!(first.terminate(LONG).success(), "{}", first.log());
    publish(&server, 2);

    let timeout = "idle_replication_slot_timeout";
    let known = format!("SELECT count(*) FROM pg_settings WHERE name = '{timeout}'");
    if server.sql("postgres", &known) == "0" {
        // Nothing like it there: the slot waits.
        server.sql("postgres", "CHECKPOINT");
        assert_eq!(wal_status(&server), "reserved");
        let mut second = relay(&server, &broker);
        broker.wait_for_sends(2, LONG);
        assert!(second.terminate(LONG).success(), "{}", second.log());
        assert_eq!(numbers(&broker.messages()), [1, 2]);
        return;
    }
    let set = |value: &str| {
        server.sql("postgres", &format!("ALTER SYSTEM SET {timeout} = '{value}'"));
        server.sql("postgres", "SELECT pg_reload_conf()");
    };
    let lose = || {
        set("1s");
        until(LONG, "the slot is invalidated", || {
            server.sql("postgres", "CHECKPOINT");
            let reason =
                server.sql("postgres", "SELECT invalidation_reason FROM pg_replication_slots");
            reason == "idle_timeout"
        });
        set("0");
    };
    lose();
    let configured = |arguments: &[&str]| {
        walpost()
            .arguments(arguments.iter().copied())
            .set("postgres.url", server.url("postgres"))
            .set("broker.hosts", broker.address())
    };
    let by_hand = "SELECT pg_drop_replication_slot('walpost'); DELETE FROM walpost.relay WHERE slot = 'walpost'";
    let refused = || {
        let finished = configured(&["run"]).output(LONG);
        assert_eq!(finished.status.code(), Some(3), "{finished:?}");
        let mut errors = finished.stderr.lines().filter(|line| line.starts_with("error: "));
        let error = errors.next().unwrap_or_default().to_owned();
        for part in [
            "slot walpost is lost (idle_timeout): it was confirmed up to ",
            "Either publish those rows out of the table: 'walpost run --recover'",
            "or accept the gap: ",
            &format!("{by_hand}, then walpost init with outbox.backfill: false"),
        ] {
            assert!(error.contains(part), "{part} is not in {error}");
        }
    };
    refused();
    assert_eq!(broker.sends(), 1);
    // The first one comes again where no snapshot was certified before the end.
    let arrived = || numbers(&broker.messages()).into_iter().collect::<BTreeSet<_>>();
    let mut second = configured(&["run", "--recover"]).start();
    until(LONG, "what was committed meanwhile", || arrived().contains(&2));
    assert!(second.terminate(LONG).success(), "{}", second.log());

    // The other way on: what was committed meanwhile is given up.
    publish(&server, 3);
    lose();
    refused();
    by_hand.split("; ").for_each(|statement| drop(server.sql("postgres", statement)));
    let made = configured(&["init"]).set("outbox.backfill", "false").output(LONG);
    assert!(made.status.success(), "{made:?}");
    let mut third = relay(&server, &broker);
    publish(&server, 4);
    until(LONG, "what was committed after it", || arrived().contains(&4));
    assert!(third.terminate(LONG).success(), "{}", third.log());
    assert_eq!(arrived(), BTreeSet::from([1, 2, 4]));
}
