//! When rows are published out of the table: told to, after a lost slot, after `init`; and when not.

use walpost_testkit::{ScriptedBroker, until};

use super::{drop_slot, fill, schema_only, state};
use crate::rig::LONG;
use crate::scene::{await_all_confirmed, numbers, publish_each, relay};

#[test]
fn told_to_recover_it_publishes_what_is_not_known_to_be_delivered() {
    let (database, broker) = (schema_only(), ScriptedBroker::start());
    let settings = relay(&database, &broker.address());
    // Those that waited for the first start are known to be delivered.
    fill(&database, 1, 3);
    let init = settings.clone().arguments(["init"]).output(LONG);
    assert!(init.status.success(), "{init:?}");
    publish_each(&database, "/queue/q", 4, 5);
    let mut walpost = settings.start();
    broker.wait_for_sends(5, LONG);
    await_all_confirmed(&database);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    assert_eq!(numbers(&broker.messages()), [1, 2, 3, 4, 5]);

    // The slot is healthy, and what it brings is not certified.
    let recover = settings.clone().arguments(["run", "--recover"]);
    let mut walpost = recover.start();
    until(LONG, "the end of the recovery", || {
        broker.sends() == 7 && state(&database) == "streaming"
    });
    publish_each(&database, "/queue/q", 6, 6);
    await_all_confirmed(&database);
    assert_eq!(numbers(&broker.messages())[5..], [4, 5, 6]);
    // Once is enough: a lost session does not begin it again.
    let ended =
        "SELECT count(pg_terminate_backend(active_pid)) FROM pg_replication_slots WHERE slot_name";
    assert_eq!(database.sql(&format!("{ended} = '{}'", database.name())), "1");
    publish_each(&database, "/queue/q", 7, 7);
    await_all_confirmed(&database);
    assert_eq!(numbers(&broker.messages())[5..], [4, 5, 6, 7]);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
}

#[test]
fn a_lost_slot_is_made_again_and_its_rows_are_published() {
    for by_setting in [false, true] {
        let (database, broker) = (schema_only(), ScriptedBroker::start());
        let settings = relay(&database, &broker.address());
        fill(&database, 1, 3);
        let mut walpost = settings.start();
        broker.wait_for_sends(3, LONG);
        until(LONG, "the end of the recovery", || state(&database) == "streaming");
        assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
        publish_each(&database, "/queue/q", 4, 4);
        drop_slot(&database);
        publish_each(&database, "/queue/q", 5, 6);
        let settings = match by_setting {
            true => settings.set("replication.on_slot_lost", "recover"),
            false => settings.arguments(["run", "--recover"]),
        };
        let mut walpost = settings.start();
        until(LONG, "the rows of the gap", || {
            broker.sends() == 6 && state(&database) == "streaming"
        });
        publish_each(&database, "/queue/q", 7, 7);
        await_all_confirmed(&database);
        assert_eq!(numbers(&broker.messages()), (1..=7).collect::<Vec<u64>>());
        assert!(walpost.log().contains("is lost: it is made again"), "{}", walpost.log());
        assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    }
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
    let said = "those committed before the slot was made are not published, since outbox.backfill is false";
    assert!(walpost.log().contains(said), "{}", walpost.log());
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    // Nor later, when the slot is lost: they count as delivered.
    drop_slot(&database);
    let mut walpost = settings.arguments(["run", "--recover"]).start();
    until(LONG, "the end of the recovery", || {
        broker.sends() == 2 && state(&database) == "streaming"
    });
    assert_eq!(numbers(&broker.messages()), [4, 4]);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
}

#[test]
fn a_row_that_cannot_be_sent_is_named_and_once_deleted_the_next_start_goes_on() {
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
    for id in [1, 2] {
        let run = settings.output(LONG);
        assert_eq!(run.status.code(), Some(3), "{run:?}");
        let id = format!("00000000-0000-4000-8000-00000000000{id}");
        let line = run.stderr.lines().last().unwrap();
        assert!(line.contains(&format!("the row '{id}' in walpost.outbox")), "{line}");
        assert!(line.contains("(a row that waits in the table); raise broker.max_frame"), "{line}");
        assert!(line.contains("correct or delete the row"), "{line}");
        database.sql(&format!("DELETE FROM walpost.outbox WHERE id = '{id}'"));
    }
    let mut walpost = settings.start();
    until(LONG, "the end of the recovery", || state(&database) == "streaming");
    publish_each(&database, "/queue/q", 4, 4);
    await_all_confirmed(&database);
    let mut sent = numbers(&broker.messages());
    sent.dedup();
    assert!(sent.ends_with(&[1, 2, 3, 4]), "{sent:?}");
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
}
