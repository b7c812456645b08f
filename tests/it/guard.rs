//! The guard: no change of the publication or the tables costs a row unseen. Each ends with status 3 and
//! its remedy, and `--recover` then brings every row.

mod rewritten;

use walpost_testkit::postgres::Database;
use walpost_testkit::walpost::Builder;
use walpost_testkit::{ScriptedBroker, Walpost, until};

use crate::certified::await_certified;
use crate::rig::LONG;
use crate::scene::{await_all_confirmed, database, numbers, publish_each, relay};

/// A relay that has delivered rows 1 to 3 and has certified that.
fn delivered(database: &Database<'_>, broker: &ScriptedBroker, relay: &Builder) -> Walpost {
    let mut walpost = relay.start();
    walpost.await_ready(LONG);
    publish_each(database, "/queue/q", 1, 3);
    broker.wait_for_sends(3, LONG);
    await_certified(database);
    walpost
}

fn recovering(relay: &Builder) -> Walpost {
    relay.clone().arguments(["run", "--recover"]).start()
}

/// The relay ends with 3 and a line that holds each of `parts`.
#[track_caller]
fn stops(walpost: Walpost, parts: &[&str]) {
    let finished = walpost.finish(LONG);
    assert_eq!(finished.status.code(), Some(3), "{finished:?}");
    let error = finished.stderr.lines().find(|line| line.starts_with("error: "));
    let error = error.unwrap_or_else(|| panic!("{finished:?}"));
    for part in parts {
        assert!(error.contains(part), "{part} is not in {error}");
    }
}

/// Each number from 1 to `last` has arrived, and the relay goes on.
#[track_caller]
fn brings_every_row(
    database: &Database<'_>,
    broker: &ScriptedBroker,
    walpost: &mut Walpost,
    last: u64,
) {
    until(LONG, "every row", || {
        let mut arrived = numbers(&broker.messages());
        arrived.sort_unstable();
        arrived.dedup();
        arrived == (1..=last).collect::<Vec<_>>()
    });
    let before = broker.sends();
    publish_each(database, "/queue/q", last + 1, last + 1);
    broker.wait_for_sends(before + 1, LONG);
    await_all_confirmed(database);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
}

#[test]
fn a_change_of_the_publication_that_was_undone_before_anybody_looked() {
    let table = (
        "DROP TABLE walpost.outbox",
        "ADD TABLE walpost.outbox",
        "table walpost.outbox was taken out of publication walpost and added again",
    );
    let inserts = (
        "SET (publish = 'update')",
        "SET (publish = 'insert')",
        "publication walpost was altered or made anew",
    );
    for (running, (change, back, words)) in [(true, table), (false, table), (false, inserts)] {
        let (database, broker) = (database(), ScriptedBroker::start());
        let relay = relay(&database, &broker.address());
        let mut walpost = delivered(&database, &broker, &relay);
        if !running {
            assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
        }
        database.sql(&format!("ALTER PUBLICATION walpost {change}"));
        publish_each(&database, "/queue/q", 4, 6);
        database.sql(&format!("ALTER PUBLICATION walpost {back}"));
        publish_each(&database, "/queue/q", 7, 8);
        if !running {
            walpost = relay.start();
        }
        stops(walpost, &[words, "'walpost run --recover' publishes"]);
        // And again, for as long as nobody acts.
        stops(relay.start(), &[words]);
        brings_every_row(&database, &broker, &mut recovering(&relay), 8);
        let mut again = relay.start();
        again.await_ready(LONG);
        assert!(again.terminate(LONG).success(), "{}", again.log());
    }
}

#[test]
fn a_publication_that_is_dropped() {
    for (running, anew) in [(true, false), (false, false), (false, true)] {
        let (database, broker) = (database(), ScriptedBroker::start());
        let relay = relay(&database, &broker.address());
        let mut walpost = delivered(&database, &broker, &relay);
        if !running {
            assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
        }
        database.sql("DROP PUBLICATION walpost");
        publish_each(&database, "/queue/q", 4, 6);
        if anew {
            database.sql("CREATE PUBLICATION walpost FOR TABLE walpost.outbox");
        }
        if !running {
            walpost = relay.start();
        }
        let why = if anew { "was dropped and made anew)" } else { "is gone)" };
        let words = format!("is lost (publication walpost {why}");
        stops(walpost, &[&words, "'walpost run --recover'"]);
        brings_every_row(&database, &broker, &mut recovering(&relay), 6);
    }
}

#[test]
fn a_row_filter_or_a_column_list() {
    for (change, words) in [
        ("walpost.outbox WHERE (destination <> '/queue/q')", "has a row filter on walpost.outbox"),
        (
            "walpost.outbox (id, destination, version, key, headers, body, body_bytes)",
            "has a column list on walpost.outbox",
        ),
    ] {
        let (database, broker) = (database(), ScriptedBroker::start());
        let relay = relay(&database, &broker.address());
        let walpost = delivered(&database, &broker, &relay);
        let alter = format!("ALTER PUBLICATION walpost SET TABLE {change}");
        if database.sql("SELECT current_setting('server_version_num')::int < 150000") == "t" {
            // PostgreSQL 14 has neither.
            database.sql(&format!(
                "DO $do$ BEGIN EXECUTE $alter${alter}$alter$; RAISE 'it has'; EXCEPTION WHEN syntax_error THEN NULL; END $do$"
            ));
            publish_each(&database, "/queue/q", 4, 6);
            await_all_confirmed(&database);
            assert_eq!(numbers(&broker.messages()), [1, 2, 3, 4, 5, 6]);
            drop(walpost);
            continue;
        }
        database.sql(&alter);
        publish_each(&database, "/queue/q", 4, 6);
        stops(walpost, &[words]);
        stops(relay.start(), &[words]);
        database.sql("ALTER PUBLICATION walpost SET TABLE walpost.outbox");
        publish_each(&database, "/queue/q", 7, 8);
        stops(relay.start(), &["was taken out of publication walpost and added again"]);
        brings_every_row(&database, &broker, &mut recovering(&relay), 8);
    }
}

pub const EVENTS: &str =
    "id bigint PRIMARY KEY, body jsonb, made timestamptz DEFAULT clock_timestamp()";

/// A relay of a table of the test's own.
pub fn of_events(database: &Database<'_>, broker: &ScriptedBroker, tables: &str) -> Builder {
    relay(database, &broker.address())
        .set("outbox.layout", "custom")
        .set("outbox.tables", tables)
        .set("outbox.columns", r#"{"id": "id", "body": "body", "created_at": "made"}"#)
        .set("outbox.destination", "/queue/q")
        .set("outbox.key", "")
}

pub fn insert(database: &Database<'_>, table: &str, from: u64, to: u64) {
    database.sql(&format!(
        "INSERT INTO {table} (id, body) SELECT n, jsonb_build_object('n', n)
         FROM generate_series({from}, {to}) n"
    ));
}

fn events_delivered(database: &Database<'_>, broker: &ScriptedBroker, relay: &Builder) -> Walpost {
    let mut walpost = relay.start();
    walpost.await_ready(LONG);
    insert(database, "events", 1, 3);
    broker.wait_for_sends(3, LONG);
    await_certified(database);
    walpost
}

#[test]
fn a_table_that_is_dropped_and_made_anew_swapped_or_unlogged() {
    let anew = format!("DROP TABLE events; CREATE TABLE events ({EVENTS})");
    let swapped = format!("ALTER TABLE events RENAME TO old; CREATE TABLE events ({EVENTS})");
    let add = "ALTER PUBLICATION walpost ADD TABLE events";
    let unlogged =
        "ALTER PUBLICATION walpost DROP TABLE events; ALTER TABLE events SET UNLOGGED".to_owned();
    let logged = format!("ALTER TABLE events SET LOGGED; {add}");
    for (change, words, mend) in [
        (&anew, "does not cover public.events", add),
        (&swapped, "does not cover public.events", add),
        (&unlogged, "is not logged", &logged),
    ] {
        let (database, broker) = (database(), ScriptedBroker::start());
        database.sql(&format!("CREATE TABLE events ({EVENTS})"));
        let relay = of_events(&database, &broker, "public.events");
        let walpost = events_delivered(&database, &broker, &relay);
        database.sql(change);
        insert(&database, "events", 4, 6);
        stops(walpost, &[words]);
        database.sql(mend);
        insert(&database, "events", 7, 8);
        stops(relay.start(), &["may not have been published", "'walpost run --recover'"]);
        let mut walpost = recovering(&relay);
        until(LONG, "every row", || {
            let mut arrived = numbers(&broker.messages());
            arrived.sort_unstable();
            arrived.dedup();
            arrived == (1..=8).collect::<Vec<_>>()
        });
        assert!(walpost.terminate(LONG).success(), "{change}: {}", walpost.log());
    }
}

#[test]
fn partitions_come_and_go_under_load() {
    let (database, broker) = (database(), ScriptedBroker::start());
    database.sql(&format!(
        "CREATE TABLE events ({}) PARTITION BY RANGE (id);
         CREATE TABLE events_0 PARTITION OF events FOR VALUES FROM (0) TO (1000)",
        EVENTS
    ));
    let relay = of_events(&database, &broker, "public.events");
    let mut walpost = events_delivered(&database, &broker, &relay);
    for part in 1..=5_u64 {
        let (from, to) = (part * 1000, part * 1000 + 1000);
        database.sql(&format!(
            "CREATE TABLE events_{part} (LIKE events INCLUDING ALL);
             ALTER TABLE events ATTACH PARTITION events_{part} FOR VALUES FROM ({from}) TO ({to})"
        ));
        insert(&database, "events", from, to - 1);
        if part > 1 {
            database.sql(&format!("ALTER TABLE events DETACH PARTITION events_{}", part - 1));
        }
        await_certified(&database);
    }
    broker.wait_for_sends(5003, LONG);
    let mut arrived = numbers(&broker.messages());
    arrived.sort_unstable();
    let expected: Vec<_> = (1..=3).chain(1000..6000).collect();
    assert_eq!(arrived, expected);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_table_is_added_while_a_transaction_is_open() {
    let (database, broker) = (database(), ScriptedBroker::start());
    database.sql(&format!("CREATE TABLE events ({EVENTS}); CREATE TABLE more ({EVENTS})"));
    let relay = of_events(&database, &broker, "public.events");
    let mut walpost = events_delivered(&database, &broker, &relay);
    // Older than anything that is open: only that the table is new tells that it is not delivered.
    insert(&database, "more", 10, 10);
    insert(&database, "events", 11, 11);
    await_certified(&database);
    let open = database.client().await;
    let row = "INSERT INTO more (id, body) VALUES (4, '{\"n\": 4}')";
    open.batch_execute(&format!("BEGIN; {row}")).await.unwrap();
    // Committed before the table is added, and while the relay that passes over it still certifies.
    insert(&database, "more", 7, 8);
    insert(&database, "events", 9, 9);
    await_certified(&database);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    let both = of_events(&database, &broker, "public.events,public.more");
    // While that transaction is open the table can be added, and the relay goes on.
    let init = both.clone().arguments(["init"]).output(LONG);
    assert!(init.status.success(), "{init:?}");
    let mut walpost = both.start();
    walpost.await_ready(LONG);
    insert(&database, "more", 5, 5);
    until(LONG, "the new table's row", || numbers(&broker.messages()).contains(&5));
    open.batch_execute("INSERT INTO more (id, body) VALUES (6, '{\"n\": 6}'); COMMIT")
        .await
        .unwrap();
    until(LONG, "what was inserted before the table was added", || {
        let arrived = numbers(&broker.messages());
        (1..=11).all(|n| arrived.contains(&n))
    });
    await_certified(&database);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
}

#[test]
fn a_table_that_is_renamed_for_a_moment_is_still_the_outbox() {
    let (database, broker) = (database(), ScriptedBroker::start());
    let relay = relay(&database, &broker.address());
    let mut walpost = delivered(&database, &broker, &relay);
    database.sql(
        "BEGIN; ALTER TABLE walpost.outbox RENAME TO other;
         INSERT INTO walpost.other (destination, body) VALUES ('/queue/q', '{\"n\": 4}');
         ALTER TABLE walpost.other RENAME TO outbox; COMMIT",
    );
    brings_every_row(&database, &broker, &mut walpost, 4);
}

#[test]
fn a_column_that_is_renamed_for_a_while_leads_to_a_recovery() {
    let (database, broker) = (database(), ScriptedBroker::start());
    let relay = relay(&database, &broker.address());
    let mut walpost = delivered(&database, &broker, &relay);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    database.sql("ALTER TABLE walpost.outbox RENAME COLUMN body TO other");
    database
        .sql("INSERT INTO walpost.outbox (destination, other) VALUES ('/queue/q', '{\"n\": 4}')");
    database.sql("ALTER TABLE walpost.outbox RENAME COLUMN other TO body");
    publish_each(&database, "/queue/q", 5, 6);
    let drop = format!("SELECT pg_drop_replication_slot('{}')", database.name());
    let words = format!("{drop}, then 'walpost run --recover' publishes them");
    stops(relay.start(), &["does not fit: it has no column 'body'", &words]);
    database.sql(&drop);
    brings_every_row(&database, &broker, &mut recovering(&relay), 6);
}
