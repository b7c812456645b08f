//! The row filters: how they are made, told apart and mended; that they divide as the relay does.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use walpost::outbox::{Shard, ShardColumns, hashtext};
use walpost::store::sharding::Sharding;
use walpost_testkit::Postgres;

use super::{Pair, confirmed, done, init_of, insert, is_too_old, named, of, owners, refused};
use crate::init::psql;
use crate::rig::{LONG, walpost};
use crate::scene::database;

/// That nothing was made; a slot that a script has made comes with a note.
#[track_caller]
fn only_exists(said: &str) {
    let found = |line: &str| line.starts_with("exists ") || line.starts_with("note: ");
    assert!(said.contains("exists publication ") && said.lines().all(found), "{said}");
}

#[test]
fn a_publication_without_the_shards_filter_stops_the_relay_and_the_remedy_mends_it() {
    let pair = Pair::new();
    if is_too_old(&pair.database) {
        return;
    }
    let relay = pair.relay(0);
    let _ = done(&init_of(&relay));
    let name = of(&pair.database, 0);
    for by_hand in ["walpost.outbox WHERE (destination = 'x')", "walpost.outbox"] {
        pair.database.sql(&format!("ALTER PUBLICATION {name} SET TABLE {by_hand}"));
        if by_hand.contains("WHERE") {
            // The slot does not bring them: nothing is published here.
            insert(&pair.database, 1, 60);
        }
        let run = relay.output(LONG);
        let error = refused(&run, 3);
        let words = format!(
            "publication {name} has not the row filter of shard 0 of 2 on walpost.outbox, so that messages \
             would be lost or come twice: "
        );
        assert!(error.contains(&words), "{error}");
        assert_eq!(refused(&init_of(&relay).output(LONG), 1), error);
        let (_, remedy) = error.split_once("come twice: ").unwrap();
        let (remedy, _) = remedy.split_once(" (docs/operations.md").unwrap();
        pair.database.sql(remedy);
        let mut mended = relay.clone().arguments(["run", "--recover"]).start();
        mended.await_ready(LONG);
        let share = owners(&pair.database).values().filter(|row| row.0 == 0).count() as u64;
        pair.brokers[0].wait_for_sends(share, LONG);
        assert!(mended.terminate(LONG).success(), "{}", mended.log());
    }
    // As PostgreSQL ignores a filter where the table's schema is published.
    pair.database.sql(&format!("ALTER PUBLICATION {name} ADD TABLES IN SCHEMA walpost"));
    let run = relay.output(LONG);
    assert!(refused(&run, 3).contains("has not the row filter of shard 0 of 2"), "{run:?}");
}

#[test]
fn two_shards_with_the_same_names_are_told() {
    let pair = Pair::new();
    if is_too_old(&pair.database) {
        return;
    }
    let name = of(&pair.database, 0);
    let _ = done(&init_of(&pair.relay(0)));
    let second = named(pair.relay(1), &name, 1);
    let run = second.output(LONG);
    let words = format!(
        "publication {name} has the rows of shard 0 of 2 in walpost.outbox, this relay is shard 1 of 2: each \
         relay needs a slot and a publication of its own"
    );
    assert!(refused(&run, 3).contains(&words), "{run:?}");
    // A slot alone tells nothing of a shard; what it was last read with does.
    let _ = done(&init_of(&pair.relay(1)));
    let slot = pair.relay(1).set("replication.slot", &name).output(LONG);
    assert!(refused(&slot, 3).contains("was altered or made anew"), "{slot:?}");
    // A relay without shards does not take a share for the whole.
    let whole = pair.relay(0).set("replication.shard.count", 1).output(LONG);
    assert!(refused(&whole, 3).contains("has a row filter on walpost.outbox"), "{whole:?}");
}

#[test]
fn the_dry_run_prints_the_filter_and_init_makes_it_once() {
    // Roles are the whole server's: one of our own.
    let server = Postgres::builder().fast().start();
    let init = |index: u32| {
        let init = walpost().arguments(["init"]).set("postgres.url", server.url("postgres"));
        named(init, &format!("walpost_{index}"), index)
    };
    if server.sql("postgres", "SELECT current_setting('server_version_num')::int < 150000") == "t" {
        // The script says first what has to be mended; nothing is half made.
        let words = "replication.shard.count over 1 needs row filters";
        let script = done(&init(0).arguments(["init", "--dry-run"]));
        assert!(script.contains(&format!("-- MEND FIRST: {words}")), "{script}");
        let said = init(0).output(LONG);
        assert!(refused(&said, 1).contains(words), "{said:?}");
        assert_eq!(server.sql("postgres", "SELECT count(*) FROM pg_publication"), "0");
        return;
    }
    let script = done(&init(0).arguments(["init", "--dry-run"]));
    let filter = "CREATE PUBLICATION \"walpost_0\" FOR TABLE \"walpost\".\"outbox\" WHERE \
        (((hashtext((COALESCE(NULLIF(\"key\"::text, ''), \"destination\"::text, '') COLLATE \"C\")) & \
        2147483647) % 2) = 0) WITH (publish = 'insert', publish_via_partition_root = true);";
    assert!(script.contains(filter), "{script}");
    psql(&server, "postgres", &script);
    only_exists(&done(&init(0)));
    let second = done(&init(1));
    assert!(second.contains("created publication walpost_1\n"), "{second}");
    only_exists(&done(&init(1)));
    // A table that is added gets the filter, too.
    server.sql("postgres", "ALTER PUBLICATION walpost_1 DROP TABLE walpost.outbox");
    assert!(done(&init(1)).contains("changed publication walpost_1 (added walpost.outbox)"));
    only_exists(&done(&init(1)));
}

#[test]
fn keys_of_other_types_and_tables_of_other_shapes_are_divided() {
    for (table, key, destination, values) in [
        ("", "bigint", "varchar(40)", "i % 30, '/queue/' || i % 9"),
        ("", "uuid", "name", "md5((i % 30)::text)::uuid, '/queue/' || i % 9"),
        ("PARTITION BY HASH (id)", "char(9)", "text", "'k' || i % 30, '/queue/' || i % 9"),
        (
            "",
            r#"text COLLATE "C""#,
            r#"text COLLATE "POSIX""#,
            "nullif(i % 30, 0), '/queue/' || i % 9",
        ),
    ] {
        let pair = Pair::new();
        if is_too_old(&pair.database) {
            return;
        }
        pair.database.sql(&format!(
            r#"CREATE TABLE events (id int, "To" {destination}, "order" {key}, body jsonb) {table}"#
        ));
        if !table.is_empty() {
            pair.database.sql(
                "CREATE TABLE e0 PARTITION OF events FOR VALUES WITH (MODULUS 2, REMAINDER 0);
                 CREATE TABLE e1 PARTITION OF events FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
            );
        }
        let columns = r#"{"id": "id", "destination": "To", "key": "order", "body": "body"}"#;
        let relay = |index| {
            pair.relay(index)
                .set("outbox.layout", "custom")
                .set("outbox.tables", "[\"public.events\"]")
                .set("outbox.columns", columns)
                .set("outbox.destination", "{destination}")
                .set("outbox.backfill", true)
        };
        // Some wait in the table, the others come by the stream.
        let insert = |from, to| {
            pair.database.sql(&format!(
                r#"INSERT INTO events (id, "order", "To", body)
                   SELECT i, {values}, jsonb_build_object('n', i) FROM generate_series({from}, {to}) AS i"#
            ));
        };
        insert(1, 100);
        let mut both = [relay(0).start(), relay(1).start()];
        both.iter_mut().for_each(|relay| relay.await_ready(LONG));
        pair.wait_for(100);
        insert(101, 300);
        pair.wait_for(300);
        (0..2).for_each(|index| confirmed(&pair.database, index));
        let [first, second] = pair.sent();
        assert!(first.len() > 30 && second.len() > 30, "{key}: {} {}", first.len(), second.len());
        let keys = |sent: &[u64]| {
            sent.iter().map(|n| n % 30).filter(|key| *key > 0).collect::<BTreeSet<_>>()
        };
        assert!(keys(&first).is_disjoint(&keys(&second)), "{key}");
        let all: BTreeSet<_> = first.iter().chain(&second).collect();
        assert_eq!((first.len() + second.len(), all.len()), (300, 300), "{key}");
        // What PostgreSQL printed was recognised.
        only_exists(&done(&init_of(&relay(0))));
        assert!(both.iter_mut().all(|relay| relay.terminate(LONG).success()));
    }
}

#[test]
fn a_column_that_no_filter_can_be_over_is_named() {
    let pair = Pair::new();
    if is_too_old(&pair.database) {
        return;
    }
    let _ = done(&init_of(&pair.relay(0)));
    for (key, words) in [
        (
            "{column:created_at}",
            "column created_at of walpost.outbox is of type timestamp with time zone, by",
        ),
        (
            "{column:tenant}",
            "table walpost.outbox has no column tenant, by which replication.shard divides",
        ),
    ] {
        let run = pair.relay(1).set("outbox.key", key).output(LONG);
        assert!(refused(&run, 3).contains(words), "{run:?}");
    }
}

fn sample<T>(strategy: impl Strategy<Value = T>) -> T {
    strategy.new_tree(&mut TestRunner::deterministic()).unwrap().current()
}

/// Without NUL, which PostgreSQL's texts cannot hold.
const TEXT: &str = "[^\\x00]{0,70}";

#[tokio::test]
async fn the_hash_is_the_servers() {
    let database = database();
    let client = database.client().await;
    let mut texts = sample(prop::collection::vec(TEXT, 4000));
    texts.extend((0..100).map(|length| "x".repeat(length)));
    let sql =
        "SELECT hashtext(text) FROM unnest($1::text[]) WITH ORDINALITY AS row(text, n) ORDER BY n";
    let rows = client.query(sql, &[&texts]).await.unwrap();
    for (text, row) in texts.iter().zip(&rows) {
        assert_eq!(hashtext(text), row.get::<_, i32>(0), "{text:?}");
    }
    let lengths: BTreeSet<usize> = texts.iter().map(|text| text.len() % 12).collect();
    assert_eq!((rows.len(), lengths.len()), (4100, 12));
}

#[tokio::test]
async fn the_filter_takes_what_the_relay_takes() {
    let database = database();
    let client = database.client().await;
    let text = || prop::collection::vec(prop::option::weighted(0.7, TEXT), 500);
    let (mut keys, mut destinations) = (sample(text()), sample(text()));
    destinations.rotate_left(7);
    keys.extend([None, Some(String::new()), Some(String::new())]);
    destinations.extend([None, None, Some("d".to_owned())]);
    let columns = ShardColumns { key: Some("key".into()), destination: Some("destination".into()) };
    for (index, count) in [(0, 2), (1, 2), (4, 7), (1023, 1024)] {
        let sharding = Sharding { shard: Shard { index, count }, columns: columns.clone() };
        let sql = format!(
            "SELECT {}, {} FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS w(key, destination, n) ORDER BY n",
            sharding.filter(None).unwrap(),
            sharding.condition()
        );
        let rows = client.query(&sql, &[&keys, &destinations]).await.unwrap();
        assert_eq!(rows.len(), 503);
        for ((key, destination), row) in keys.iter().zip(&destinations).zip(&rows) {
            let taken = sharding.shard.takes(key.as_deref(), destination.as_deref());
            let said = (row.get::<_, Option<bool>>(0), row.get::<_, Option<bool>>(1));
            assert_eq!(said, (Some(taken), Some(taken)), "{key:?} {destination:?}");
        }
    }
}
