//! Rows that wait in tables of other layouts.

use walpost_testkit::postgres::Database;
use walpost_testkit::walpost::Builder;
use walpost_testkit::{ScriptedBroker, until};

use super::hold::{Cut, Hold};
use super::{firsts, schema_only, state};
use crate::rig::LONG;
use crate::scene::{PUBLISHED, await_all_confirmed, database, numbers, relay};

/// Runs until nothing waits any more, then `after` comes by the stream. Gives the numbers that arrived.
fn published(
    database: &Database<'_>,
    settings: &Builder,
    broker: &ScriptedBroker,
    after: &str,
) -> Vec<u64> {
    let mut walpost = settings.start();
    let recovered = "SELECT EXISTS (SELECT FROM pg_class WHERE relname = 'relay')";
    until(LONG, "the end of the recovery", || {
        database.sql(recovered) == "t" && state(database) == "streaming"
    });
    database.sql(after);
    await_all_confirmed(database);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    numbers(&broker.messages())
}

fn custom(
    database: &Database<'_>,
    broker: &ScriptedBroker,
    tables: &str,
    columns: &str,
) -> Builder {
    relay(database, &broker.address())
        .set("outbox.layout", "custom")
        .set("outbox.backfill", true)
        .set("outbox.tables", tables)
        .set("outbox.columns", columns)
        .set("outbox.destination", "/queue/q")
        .set("outbox.key", "")
}

#[test]
fn of_django_those_that_wait_in_the_order_in_which_they_were_added() {
    let (database, broker) = (database(), ScriptedBroker::start());
    database.sql(PUBLISHED);
    database.sql(
        "INSERT INTO published SELECT gen_random_uuid(), 'v1', '/queue/q.v1',
            jsonb_build_object('n', n), now() - n * interval '1 s', now(), 0, 1 + n % 2
         FROM generate_series(1, 2500) AS n",
    );
    let settings = relay(&database, &broker.address()).set("outbox.layout", "django");
    let after = r#"INSERT INTO published VALUES
        (gen_random_uuid(), 'v1', '/queue/q.v1', '{"n": 1}', now(), now(), 0, 1)"#;
    let sent = published(&database, &settings, &broker, after);
    // The even ones wait; the last was added first.
    let mut expected: Vec<u64> = (1..=1_250).rev().map(|n| n * 2).collect();
    expected.push(1);
    assert_eq!(sent, expected);
}

#[test]
fn a_row_of_django_that_is_longer_than_is_read_is_named() {
    let (database, broker) = (database(), ScriptedBroker::start());
    database.sql(PUBLISHED);
    database.sql(
        "INSERT INTO published SELECT '00000000-0000-4000-8000-000000000001', 'v1', '/queue/q.v1',
            to_jsonb(string_agg(md5(n::text), '')), now(), now(), 0, 1 FROM generate_series(1, 100000) AS n",
    );
    let settings = relay(&database, &broker.address())
        .set("outbox.layout", "django")
        .set("broker.max_frame_size", "64KiB");
    let mut walpost = settings.start();
    let row = "the row '00000000-0000-4000-8000-000000000001' in public.published";
    let line = walpost.wait_for_log(row, LONG);
    assert!(line.contains("it is kept as a dead letter"), "{line}");
    // Its row says so.
    until(LONG, "it is dead", || database.sql("SELECT status FROM published") == "-1");
    assert_eq!(database.sql("SELECT state, body IS NULL FROM walpost.undelivered"), "dead|t");
    assert_eq!(broker.sends(), 0);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
}

#[test]
fn of_a_custom_table_all_with_times_without_and_with_no_time_column() {
    for times in [true, false] {
        let (database, broker) = (database(), ScriptedBroker::start());
        // Every tenth has no time; ids that sort otherwise than the numbers in them.
        database.sql(
            r#"CREATE TABLE events ("the id" text, body json, made timestamp);
             INSERT INTO events SELECT 'x' || n, json_build_object('n', n),
                CASE WHEN n % 10 > 0 THEN timestamp '2026-01-01' + n / 3 * interval '1 us' END
             FROM generate_series(1, 3000) AS n"#,
        );
        let made = if times { r#", "created_at": "made""# } else { "" };
        let columns = format!(r#"{{"id": "the id", "body": "body"{made}}}"#);
        let settings = custom(&database, &broker, r#"["public.events"]"#, &columns);
        let after = r#"INSERT INTO events VALUES ('y', '{"n": 3001}')"#;
        let sent = published(&database, &settings, &broker, after);
        let order = if times { r#"made NULLS FIRST, "the id" COLLATE "C""# } else { "ctid" };
        let rows = database.sql(&format!(
            "SELECT body->>'n' FROM events WHERE \"the id\" <> 'y' ORDER BY {order}"
        ));
        let mut expected: Vec<u64> = rows.lines().map(|row| row.parse().unwrap()).collect();
        expected.push(3_001);
        assert_eq!(sent, expected, "with times: {times}");
    }
}

#[test]
fn killed_in_the_middle_a_custom_table_misses_none() {
    for times in [true, false] {
        let (database, broker) = (database(), ScriptedBroker::start());
        // Of two times only: they are told apart by their ids.
        database.sql(
            "CREATE TABLE events (id bigint, body json, made date);
             INSERT INTO events SELECT n, json_build_object('n', n),
                CASE WHEN n > 1500 THEN date '2026-01-01' END FROM generate_series(1, 4000) AS n",
        );
        let made = if times { r#", "created_at": "made""# } else { "" };
        let columns = format!(r#"{{"id": "id", "body": "body"{made}}}"#);
        let settings = custom(&database, &broker, r#"["public.events"]"#, &columns);
        for life in 1..=2 {
            let mut walpost = settings.start();
            broker.wait_for_sends(life * 1_100, LONG);
            walpost.kill();
        }
        let after = r#"INSERT INTO events VALUES (4001, '{"n": 4001}')"#;
        let sent = published(&database, &settings, &broker, after);
        assert_eq!(firsts(&sent), (1..=4_001).collect::<Vec<u64>>(), "with times: {times}");
        println!("{} messages of 4001 rows, with times: {times}", sent.len());
        if times {
            assert!(sent.len() <= 4_001 + 2 * super::CHUNK, "{}", sent.len());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_share_a_position_are_not_parted_by_it() {
    let (database, broker) = (schema_only(), ScriptedBroker::start());
    // Seven rows of each id: the last row of a chunk has no position of its own.
    database.sql(
        "CREATE TABLE events (id bigint, body json, made date);
         INSERT INTO events SELECT n / 7, json_build_object('n', n) FROM generate_series(1, 2500) AS n",
    );
    let columns = r#"{"id": "id", "body": "body", "created_at": "made"}"#;
    let settings = custom(&database, &broker, r#"["public.events"]"#, columns);
    let hold = Hold::new(&database).await;
    hold.relay().await;
    // Killed when the position is being kept, before anything behind it is sent.
    for _ in 0..2 {
        hold.at("chunk").await;
        hold.cut(settings.start(), Cut::Committed).await;
    }
    hold.nowhere().await;
    let after = r#"INSERT INTO events VALUES (1, '{"n": 2501}')"#;
    let sent = published(&database, &settings, &broker, after);
    let mut all = firsts(&sent);
    all.sort_unstable();
    assert_eq!(all, (1..=2_501).collect::<Vec<u64>>());
    assert!(sent.len() <= 2_501 + 2 * 6, "{} messages", sent.len());
}

#[test]
fn of_several_tables_and_a_partitioned_one_all() {
    let (database, broker) = (database(), ScriptedBroker::start());
    database.sql(
        "CREATE TABLE a (id int, body json, made timestamptz);
         CREATE TABLE parted (id int, body json, made timestamptz) PARTITION BY RANGE (id);
         CREATE TABLE low PARTITION OF parted FOR VALUES FROM (0) TO (2200);
         CREATE TABLE high (made timestamptz, body json, junk int, id int);
         ALTER TABLE high DROP junk;
         ALTER TABLE parted ATTACH PARTITION high FOR VALUES FROM (2200) TO (9000);
         INSERT INTO a SELECT n, json_build_object('n', n), now() + n * interval '1 us'
            FROM generate_series(1, 1500) AS n;
         INSERT INTO parted SELECT n, json_build_object('n', n), now() + n * interval '1 us'
            FROM generate_series(1501, 4000) AS n",
    );
    let columns = r#"{"id": "id", "body": "body", "created_at": "made"}"#;
    let settings = custom(&database, &broker, r#"["public.parted", "public.a"]"#, columns);
    let mut walpost = settings.start();
    broker.wait_for_sends(3_000, LONG);
    walpost.kill();
    // The same tables, in another order.
    let settings = custom(&database, &broker, r#"["public.a", "public.parted"]"#, columns);
    let after = r#"INSERT INTO parted VALUES (4001, '{"n": 4001}')"#;
    let sent = published(&database, &settings, &broker, after);
    assert_eq!(firsts(&sent), (1..=4_001).collect::<Vec<u64>>());
    assert!(sent.len() <= 4_001 + super::CHUNK, "{}", sent.len());
}
