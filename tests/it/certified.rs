//! The certified snapshot: what is known to be delivered, and what is published again when the slot is
//! lost.

use walpost_testkit::postgres::Database;
use walpost_testkit::{ScriptedBroker, until};

use crate::rig::LONG;
use crate::scene::{database, numbers, publish_each, relay};

/// Waits until everything committed so far is certified.
#[track_caller]
pub fn await_certified(database: &Database<'_>) {
    // Of the last row: nothing is certified because of what is nobody's message, as a new transaction is.
    let last = database.sql(
        "SELECT string_agg(format('SELECT max(xmin::text::bigint) FROM %I.%I', schemaname, tablename),
            ' UNION ALL ') FROM pg_publication_tables WHERE pubname = 'walpost'",
    );
    let xid = database.sql(&format!("SELECT max(xid) FROM ({last}) AS row (xid)"));
    until(LONG, "a certified snapshot", || {
        database.sql(&format!(
            "SELECT coalesce(pg_visible_in_snapshot('{xid}', certified_snapshot), false) FROM walpost.relay"
        )) == "t"
    });
}

fn lose_slot(database: &Database<'_>) {
    database.sql(&format!("SELECT pg_drop_replication_slot('{}')", database.name()));
}

#[test]
fn a_lost_slot_is_made_again_and_only_what_is_not_certified_is_published() {
    for by_operator in [false, true] {
        let (database, broker) = (database(), ScriptedBroker::start());
        let mut settings = relay(&database, &broker.address());
        let mut walpost = settings.start();
        walpost.await_ready(LONG);
        publish_each(&database, "/queue/q", 1, 3);
        broker.wait_for_sends(3, LONG);
        await_certified(&database);
        assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
        publish_each(&database, "/queue/q", 4, 6);
        lose_slot(&database);
        if by_operator {
            settings = settings.arguments(["run", "--recover"]);
        } else {
            settings = settings.set("replication.on_slot_lost", "recover");
        }
        let mut walpost = settings.start();
        broker.wait_for_sends(6, LONG);
        publish_each(&database, "/queue/q", 7, 7);
        broker.wait_for_sends(7, LONG);
        assert_eq!(numbers(&broker.messages()), [1, 2, 3, 4, 5, 6, 7]);
        assert!(walpost.log().contains("is lost: it is made again"), "{}", walpost.log());
        assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    }
}

#[test]
fn old_rows_are_deleted_only_once_they_are_delivered() {
    let (database, broker) = (database(), ScriptedBroker::start());
    let mut walpost = relay(&database, &broker.address()).set("outbox.retention", "1s").start();
    walpost.await_ready(LONG);
    publish_each(&database, "/queue/q", 1, 3);
    broker.wait_for_sends(3, LONG);
    until(LONG, "the rows to be deleted", || {
        database.sql("SELECT count(*) FROM walpost.outbox") == "0"
    });
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
}

/// A new slot passes over what was committed before it was made.
#[test]
fn a_slot_that_somebody_made_again_under_the_same_name_hides_nothing() {
    for running in [true, false] {
        let (database, broker) = (database(), ScriptedBroker::start());
        let settings = relay(&database, &broker.address());
        let mut walpost = settings.start();
        walpost.await_ready(LONG);
        publish_each(&database, "/queue/q", 1, 3);
        broker.wait_for_sends(3, LONG);
        await_certified(&database);
        if running {
            walpost.freeze();
            database.sql(&format!(
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
                 WHERE slot_name = '{}'",
                database.name()
            ));
            until(LONG, "the slot is free", || {
                database.sql(&format!(
                    "SELECT active FROM pg_replication_slots WHERE slot_name = '{}'",
                    database.name()
                )) == "f"
            });
        } else {
            assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
        }
        publish_each(&database, "/queue/q", 4, 6);
        lose_slot(&database);
        database.sql(&format!(
            "SELECT pg_create_logical_replication_slot('{}', 'pgoutput')",
            database.name()
        ));
        if running {
            walpost.thaw();
        } else {
            walpost = settings.start();
        }
        broker.wait_for_sends(6, LONG);
        assert_eq!(numbers(&broker.messages()), [1, 2, 3, 4, 5, 6], "{}", walpost.log());
        assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    }
}

/// A row of walpost.relay that is gone knew what waits.
#[test]
fn a_relay_row_that_is_deleted_during_a_recovery_loses_nothing() {
    let (database, broker) = (database(), ScriptedBroker::start());
    let settings = relay(&database, &broker.address());
    let init = settings.clone().arguments(["init"]).output(LONG);
    assert!(init.status.success(), "{init:?}");
    database.sql(&format!("SELECT pg_drop_replication_slot('{}')", database.name()));
    database.sql("DELETE FROM walpost.relay");
    database.sql(
        "INSERT INTO walpost.outbox (destination, body)
         SELECT '/queue/q', jsonb_build_object('n', n) FROM generate_series(1, 5000) n",
    );
    broker.freeze();
    let mut walpost = settings.start();
    until(LONG, "the recovery to be under way", || {
        walpost.metrics().get("walpost_in_flight_messages").copied() > Some(100.0)
    });
    database.sql("DELETE FROM walpost.relay");
    broker.thaw();
    until(LONG, "every row", || {
        let mut arrived = numbers(&broker.messages());
        arrived.sort_unstable();
        arrived.dedup();
        arrived.len() == 5000
    });
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
}

/// The position of a recovery is text: no setting of the database may change what it means.
#[test]
fn the_settings_of_a_database_change_nothing_of_a_recovery() {
    let (database, broker) = (database(), ScriptedBroker::start());
    database.sql(&format!(
        "ALTER DATABASE {0} SET datestyle = 'German'; ALTER DATABASE {0} SET timezone = 'Asia/Kolkata';
         ALTER DATABASE {0} SET bytea_output = 'escape'",
        database.name()
    ));
    let settings = relay(&database, &broker.address());
    let init = settings.clone().arguments(["init"]).output(LONG);
    assert!(init.status.success(), "{init:?}");
    database.sql(&format!("SELECT pg_drop_replication_slot('{}')", database.name()));
    database.sql("DELETE FROM walpost.relay");
    publish_each(&database, "/queue/q", 1, 4000);
    database.sql("SELECT walpost.publish_bytes('/queue/q', '\\x00ff')");
    let mut first = settings.start();
    broker.wait_for_sends(1500, LONG);
    first.kill();
    let mut second = settings.start();
    until(LONG, "every row", || {
        let mut arrived = numbers(&broker.messages());
        arrived.sort_unstable();
        arrived.dedup();
        arrived.len() == 4000 && broker.messages().iter().any(|frame| frame.body == b"\0\xff")
    });
    assert!(second.terminate(LONG).success(), "{}", second.log());
}
