//! Kills around the mark.

use std::time::Duration;

use walpost_testkit::postgres::Database;
use walpost_testkit::walpost::release_binary;
use walpost_testkit::{Postgres, ScriptedBroker, Walpost, until};

use super::{CUSTOM, Case, DELETED, DJANGO, arrivals};
use crate::rig::LONG;
use crate::scene::{await_all_confirmed, is_confirmed, position};

/// Peak memory with a window of 1024 small messages and a huge transaction.
const MEMORY: u64 = 32 << 20;

/// A relay that has published and marked 300 rows, none of which is confirmed up to the position: whoever
/// stores it stands still.
fn marked_and_not_confirmed(
    case: &Case,
    database: &Database<'_>,
    broker: &ScriptedBroker,
) -> (Walpost, String) {
    let mut walpost = case.relay(database, broker).start();
    walpost.await_ready(LONG);
    let _ = walpost.wait_for_log("the slot is read from now on", LONG);
    broker.freeze();
    case.insert(database, 300);
    until(LONG, "all in flight", || walpost.metric("walpost_in_flight_messages") == 300.0);
    let lsn = position(database);
    database.server().freeze_walsenders();
    broker.thaw();
    case.await_marked(database);
    (walpost, lsn)
}

/// Between the mark and the confirmation: what is marked is sent again, and its mark, which finds nothing
/// to do, holds up nothing.
#[test]
fn a_kill_between_mark_and_confirmation_repeats_and_loses_nothing() {
    for case in [DJANGO, DELETED, CUSTOM] {
        let (server, broker) = (Postgres::builder().fast().start(), ScriptedBroker::start());
        let database = case.on(&server);
        let settings = case.relay(&database, &broker);
        let (mut walpost, lsn) = marked_and_not_confirmed(&case, &database, &broker);
        walpost.kill();
        server.kill();
        server.restart();
        assert_eq!(case.open(&database), 0, "a mark is on disk when it counts");
        assert!(!is_confirmed(&database, &lsn));
        let mut walpost = settings.start();
        await_all_confirmed(&database);
        assert_eq!(arrivals(&broker), (600, 300), "{}", walpost.log());
        case.insert(&database, 10);
        case.await_marked(&database);
        await_all_confirmed(&database);
        assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
        assert_eq!(arrivals(&broker), (610, 310), "{}", walpost.log());
    }
}

/// The same crash of the server alone: a relay that lives on knows what is done.
#[test]
fn a_server_that_dies_between_mark_and_confirmation_repeats_nothing() {
    let (server, broker) = (Postgres::builder().fast().start(), ScriptedBroker::start());
    let database = DJANGO.on(&server);
    let (mut walpost, lsn) = marked_and_not_confirmed(&DJANGO, &database, &broker);
    server.kill();
    server.restart();
    until(LONG, "all is confirmed", || is_confirmed(&database, &lsn));
    DJANGO.insert(&database, 10);
    DJANGO.await_marked(&database);
    await_all_confirmed(&database);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    assert_eq!(arrivals(&broker), (310, 310), "{}", walpost.log());
}

#[test]
fn kills_at_any_moment_leave_no_row_unmarked() {
    for case in [DJANGO, DELETED] {
        let (database, broker) = (case.database(), ScriptedBroker::start());
        let settings = case.relay(&database, &broker);
        let mut walpost = settings.start();
        walpost.await_ready(LONG);
        let _ = walpost.wait_for_log("the slot is read from now on", LONG);
        for round in 1..=10_u64 {
            case.insert(&database, 2000);
            until(LONG, "some of them", || arrivals(&broker).1 as u64 >= round * 2000 - 1000);
            walpost.kill();
            walpost = settings.start();
        }
        walpost.await_ready(LONG);
        case.await_marked(&database);
        await_all_confirmed(&database);
        assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
        assert_eq!(arrivals(&broker).1, 20_000, "{}", walpost.log());
    }
}

#[test]
fn a_huge_transaction_is_marked_in_little_memory_and_a_kill_inside_leaves_none_out() {
    const ROWS: u64 = 300_000;
    for case in [DJANGO, DELETED] {
        let (database, broker) = (case.database(), ScriptedBroker::builder().count_only().start());
        let settings = case.with(
            Walpost::builder(release_binary())
                .set("postgres.url", database.url())
                .set("replication.slot", database.name())
                .set("broker.hosts", broker.address()),
        );
        let mut first = settings.start();
        first.await_ready(LONG);
        let _ = first.wait_for_log("the slot is read from now on", LONG);
        case.insert(&database, ROWS);
        let long = Duration::from_secs(200);
        broker.wait_for_sends(ROWS * 2 / 3, long);
        let peak = first.vm_hwm();
        first.kill();
        let mut second = settings.start();
        until(long, "every row to be marked", || case.open(&database) == 0);
        await_all_confirmed(&database);
        let peak = peak.max(second.vm_hwm());
        let repeated = broker.sends() - ROWS;
        println!("{}: {repeated} repeated; peak memory {} KiB", case.name, peak >> 10);
        assert!(peak < MEMORY, "{peak} bytes");
        // As without marks: what the relay's row did not tell yet, and what was in flight.
        assert!(repeated <= 5_000 + 1_024, "{repeated} repeated: {}", second.log());
        assert!(second.terminate(LONG).success(), "{}", second.log());
    }
}
