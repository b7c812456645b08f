//! What becomes of the table while its rows are read.

use walpost_testkit::{ScriptedBroker, until};

use super::hold::{Cut, Hold};
use super::{fill, schema_only, state};
use crate::rig::LONG;
use crate::scene::{numbers, publish_each, relay};

/// The broker is down, and the lock of the reading would make whoever alters the table wait, and behind
/// him every insert.
#[test]
fn the_reading_makes_way_for_whoever_alters_the_table() {
    const ROWS: u64 = 5_000;
    // In the middle of a chunk, and at its end.
    for (window, sent) in [(128, 128), (1024, 999)] {
        let (database, broker) = (schema_only(), ScriptedBroker::start());
        fill(&database, 1, ROWS);
        broker.freeze();
        let relay = relay(&database, &broker.address());
        let mut walpost = relay.set("broker.in_flight.messages", window).start();
        until(LONG, "the window is full", || {
            walpost.metrics().get("walpost_in_flight_messages").copied() == Some(f64::from(sent))
        });
        for column in ["one", "two"] {
            database.sql(&format!(
                "SET lock_timeout = '30s'; ALTER TABLE walpost.outbox ADD COLUMN {column} float DEFAULT random()"
            ));
        }
        assert_eq!(broker.sends(), 0);
        let _ = walpost.wait_for_log("the reading of walpost.outbox makes way", LONG);
        broker.thaw();
        until(LONG, "the end of the recovery", || state(&database) == "streaming");
        publish_each(&database, "/queue/q", ROWS + 1, ROWS + 1);
        broker.wait_for_sends(ROWS + 1, LONG);
        assert_eq!(numbers(&broker.messages()), (1..=ROWS + 1).collect::<Vec<u64>>());
        assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    }
}

/// They came with a dump. At first no transaction has had their ids, and later others have.
#[tokio::test(flavor = "multi_thread")]
async fn rows_with_ids_of_another_database_are_not_taken_for_later_ones() {
    let (database, broker) = (schema_only(), ScriptedBroker::start());
    fill(&database, 1, 3);
    database.sql(
        "UPDATE walpost.outbox SET xid = (pg_current_xact_id()::text::bigint + 200)::text::xid8",
    );
    let settings = relay(&database, &broker.address());
    let hold = Hold::new(&database).await;
    hold.relay().await;
    hold.at("made").await;
    hold.cut(settings.start(), Cut::Committed).await;
    hold.nowhere().await;
    assert_eq!(state(&database), "recovering");
    database.sql(
        "DO $$ BEGIN FOR i IN 1..400 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$",
    );
    let passed = "SELECT bool_and(xid < pg_current_xact_id()) FROM walpost.outbox";
    assert_eq!(database.sql(passed), "t");
    let mut walpost = settings.start();
    until(LONG, "the end of the recovery", || state(&database) == "streaming");
    publish_each(&database, "/queue/q", 4, 4);
    broker.wait_for_sends(4, LONG);
    assert_eq!(numbers(&broker.messages()), [1, 2, 3, 4]);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
}

#[test]
fn rows_that_cannot_be_sorted_are_told_with_what_to_raise() {
    let (database, broker) = (schema_only(), ScriptedBroker::start());
    fill(&database, 1, 20_000);
    let name = database.name();
    database.sql(&format!(
        "ALTER DATABASE {name} SET work_mem = '64kB'; ALTER DATABASE {name} SET temp_file_limit = '64kB'"
    ));
    let run = relay(&database, &broker.address()).output(LONG);
    assert_eq!(run.status.code(), Some(3), "{run:?}");
    let line = run.stderr.lines().last().unwrap();
    assert!(line.contains("(SQLSTATE 53400); raise temp_file_limit for walpost's role"), "{line}");
    assert!(run.stderr.contains("stopped; nothing new was confirmed"), "{run:?}");
}

#[test]
fn times_without_an_end_come_in_their_order() {
    let (database, broker) = (schema_only(), ScriptedBroker::start());
    database.sql(
        "INSERT INTO walpost.outbox (destination, body, created_at) VALUES
            ('/queue/q', '{\"n\": 3}', 'infinity'), ('/queue/q', '{\"n\": 1}', '-infinity'),
            ('/queue/q', '{\"n\": 2}', now())",
    );
    let mut walpost = relay(&database, &broker.address()).start();
    until(LONG, "the end of the recovery", || state(&database) == "streaming");
    assert_eq!(numbers(&broker.messages()), [1, 2, 3]);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
}
