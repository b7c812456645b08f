//! The certified snapshot: what is known to be delivered, and what is published again when the slot is
//! lost.

use walpost_testkit::postgres::Database;
use walpost_testkit::{ScriptedBroker, until};

use crate::rig::LONG;
use crate::scene::{database, numbers, publish_each, relay};

/// Waits until everything committed so far is certified.
#[track_caller]
pub fn await_certified(database: &Database<'_>) {
    let xid = database.sql("SELECT pg_current_xact_id()");
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
