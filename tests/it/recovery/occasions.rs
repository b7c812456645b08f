//! When rows are published out of the table: told to, after `init`; and when not.

use walpost_testkit::{ScriptedBroker, until};

use super::{drop_slot, fill, schema_only, state};
use crate::certified::await_certified;
use crate::rig::LONG;
use crate::scene::{await_all_confirmed, numbers, publish_each, relay};

#[test]
fn told_to_recover_it_publishes_what_is_not_known_to_be_delivered() {
    let (database, broker) = (schema_only(), ScriptedBroker::start());
    let settings = relay(&database, &broker.address());
    fill(&database, 1, 3);
    let init = settings.clone().arguments(["init"]).output(LONG);
    assert!(init.status.success(), "{init:?}");
    publish_each(&database, "/queue/q", 4, 5);
    let mut walpost = settings.start();
    broker.wait_for_sends(5, LONG);
    await_certified(&database);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    assert_eq!(numbers(&broker.messages()), [1, 2, 3, 4, 5]);

    // The slot is healthy and brings these, too.
    publish_each(&database, "/queue/q", 6, 7);
    let mut walpost = settings.clone().arguments(["run", "--recover"]).start();
    broker.wait_for_sends(9, LONG);
    publish_each(&database, "/queue/q", 8, 8);
    await_all_confirmed(&database);
    assert_eq!(numbers(&broker.messages())[5..], [6, 7, 6, 7, 8]);
    // Once is enough: a lost session does not begin it again.
    let ended =
        "SELECT count(pg_terminate_backend(active_pid)) FROM pg_replication_slots WHERE slot_name";
    assert_eq!(database.sql(&format!("{ended} = '{}'", database.name())), "1");
    publish_each(&database, "/queue/q", 9, 9);
    await_all_confirmed(&database);
    assert_eq!(numbers(&broker.messages())[5..], [6, 7, 6, 7, 8, 9]);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
}

#[test]
fn without_backfill_nothing_old_is_published_and_that_is_said() {
    let (database, broker) = (schema_only(), ScriptedBroker::start());
    let settings = relay(&database, &broker.address()).set("outbox.backfill", false);
    fill(&database, 1, 3);
    let mut walpost = settings.start();
    walpost.await_ready(LONG);
    publish_each(&database, "/queue/q", 4, 4);
    await_all_confirmed(&database);
    assert_eq!(numbers(&broker.messages()), [4]);
    let said =
        "those committed before the slot was made are not published (outbox.backfill is false)";
    assert!(walpost.log().contains(said), "{}", walpost.log());
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    // Nor later, when the slot is lost: they count as delivered.
    drop_slot(&database);
    let mut walpost = settings.arguments(["run", "--recover"]).start();
    until(LONG, "the slot", || state(&database) == "streaming");
    publish_each(&database, "/queue/q", 5, 5);
    until(LONG, "the row of the stream", || numbers(&broker.messages()).contains(&5));
    assert!(!numbers(&broker.messages()).iter().any(|number| *number <= 3));
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
}

#[test]
fn a_row_that_cannot_be_sent_is_named_and_kept_and_the_others_come() {
    let (database, broker) = (schema_only(), ScriptedBroker::start());
    let settings = relay(&database, &broker.address()).set("broker.max_frame_size", "64KiB");
    fill(&database, 1, 3);
    // One longer than the frame, and one longer than is read at all.
    for (id, size) in [(1, 100_000), (2, 3_000_000)] {
        database.sql(&format!(
            "INSERT INTO walpost.outbox (id, destination, body) SELECT
                '00000000-0000-4000-8000-00000000000{id}', '/queue/q', to_jsonb(string_agg(md5(n::text), ''))
             FROM generate_series(1, {size} / 32) AS n"
        ));
    }
    let mut walpost = settings.start();
    until(LONG, "the end of the recovery", || state(&database) == "streaming");
    publish_each(&database, "/queue/q", 4, 4);
    await_all_confirmed(&database);
    assert_eq!(numbers(&broker.messages()), [1, 2, 3, 4]);
    for id in [1, 2] {
        let row = format!("the row '00000000-0000-4000-8000-00000000000{id}' in walpost.outbox");
        let line = walpost.wait_for_log(&row, LONG);
        assert!(line.contains("(a row that waits in the table); raise broker.max_frame"), "{line}");
        assert!(line.contains("it is kept as a dead letter"), "{line}");
    }
    let kept = "SELECT right(message_id, 1), state, length(body) FROM walpost.undelivered ORDER BY message_id";
    assert_eq!(database.sql(kept), "1|dead|100002\n2|dead|");
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
}
