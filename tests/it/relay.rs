//! Rows that reach the broker.

use std::collections::BTreeMap;

use walpost_testkit::{Consumer, ScriptedBroker, ports, until};

use crate::rig::{LONG, Rig, walpost};
use crate::scene::{database, relay};

#[test]
fn a_committed_row_arrives_and_is_confirmed() {
    let rig = Rig::new();
    rig.vhost.declare_queue("orders.v1");
    let mut walpost = rig.start();
    rig.database.sql(
        r#"SELECT walpost.publish('/queue/orders', '{"id": 1}', key => 'k', headers => '{"a": "b:c"}')"#,
    );
    let consumer = Consumer::of_queue(&rig.vhost, "orders.v1");
    let messages = consumer.wait_for(1, LONG);
    assert_eq!(messages[0].text(), r#"{"id": 1}"#);
    assert_eq!(messages[0].header("a"), Some("b:c"));
    assert_eq!(messages[0].header("content-type"), Some("application/json"));
    assert_eq!(messages[0].header("msg-destination"), Some("/queue/orders.v1"));
    let lsn = rig.database.sql("SELECT pg_current_wal_lsn()");
    until(LONG, "the position to be confirmed", || {
        rig.database.sql(&format!(
            "SELECT confirmed_flush_lsn >= '{lsn}' FROM pg_replication_slots WHERE slot_name = '{}'",
            rig.database.name()
        )) == "t"
    });
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
}

/// A message is counted as sent before its receipt is, at whatever moment somebody looks.
#[test]
fn no_scrape_shows_more_receipts_than_messages() {
    let (database, broker) = (database(), ScriptedBroker::start());
    let mut walpost = relay(&database, &broker.address()).start();
    walpost.await_ready(LONG);
    database.sql("INSERT INTO walpost.outbox (destination, body) SELECT '/queue/q', to_jsonb(n) FROM generate_series(1, 20000) n");
    let total = |metrics: &BTreeMap<String, f64>, name: &str| metrics.get(name).copied();
    until(LONG, "every receipt", || {
        let metrics = walpost.metrics();
        let sent = total(&metrics, "walpost_messages_sent_total").unwrap_or(0.0);
        let receipts = total(&metrics, "walpost_receipts_total").unwrap_or(0.0);
        assert!(receipts <= sent, "{receipts} receipts of {sent}");
        receipts >= 20_000.0
    });
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn a_standby_that_stops_says_that_it_was_one() {
    let (database, broker) = (database(), ScriptedBroker::start());
    let settings = relay(&database, &broker.address());
    let mut first = settings.start();
    first.await_ready(LONG);
    let mut second = settings.start();
    until(LONG, "a standby", || second.status()["phase"] == "standby");
    assert!(second.terminate(LONG).success());
    assert!(second.log().contains("stopping: this is a standby"), "{}", second.log());
    assert!(first.terminate(LONG).success());
    assert!(!first.log().contains("standby"), "{}", first.log());
}

#[test]
fn a_refused_connection_comes_with_what_to_look_at() {
    let url = format!("postgresql://app@127.0.0.1:{}/shop", ports::free());
    let mut walpost = walpost().set("postgres.url", url).start();
    let line = walpost.wait_for_log("Connection refused", LONG);
    assert!(line.contains("; is PostgreSQL up there, and does postgres.url name"), "{line}");
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn told_to_say_more_it_says_what_was_agreed_and_done() {
    let rig = Rig::new();
    rig.vhost.declare_queue("orders.v1");
    let mut walpost = rig.walpost().arguments(["run", "-v"]).start();
    walpost.await_ready(LONG);
    rig.database.sql(r#"SELECT walpost.publish('/queue/orders', '{"private": 1}')"#);
    for line in
        ["connected to PostgreSQL", " CONNECT", " CONNECTED", "told PostgreSQL what is done"]
    {
        let _ = walpost.wait_for_log(line, LONG);
    }
    let _ = Consumer::of_queue(&rig.vhost, "orders.v1").wait_for(1, LONG);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    let log = walpost.log();
    assert!(!log.contains("passcode") && !log.contains("private"), "{log}");
}
