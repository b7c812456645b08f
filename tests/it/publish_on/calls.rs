//! Calling it several times, and taking it away.

use walpost_testkit::until;

use super::{database, functions, orders, published, refused};
use crate::rig::LONG;

#[test]
fn a_second_call_for_the_same_destination_replaces_and_another_destination_adds() {
    let database = orders();
    database.sql(
        "SELECT walpost.publish_on('orders', 'a');
         SELECT walpost.publish_on('orders', 'b', fields => '{}', version => NULL, events => '{delete}');
         INSERT INTO orders VALUES (1, 'x'); DELETE FROM orders",
    );
    let both = [r#"a - {"id": 1, "name": "x"}"#, r#"b - {"event": "delete"} {"id": 1}"#];
    assert_eq!(published(&database), both);

    database.sql(
        "SELECT walpost.publish_on('orders', 'a', fields => '{}', key => 'name', version => 'v2');
         INSERT INTO orders VALUES (2, 'y')",
    );
    assert_eq!(database.sql("SELECT destination, version FROM walpost.outbox"), "a|v2");
    assert_eq!(published(&database), [r#"a y {"id": 2}"#]);
    let made = "SELECT source, destination, array_to_string(events, ' ') FROM walpost.published_tables ORDER BY 2";
    assert_eq!(database.sql(made), "orders|a|insert update\norders|b|delete");
    assert_eq!(functions(&database), "2");

    database.sql("SELECT walpost.unpublish('orders', 'a'); DELETE FROM orders");
    assert_eq!(published(&database), [r#"b - {"event": "delete"} {"id": 2}"#]);
    database.sql(
        "SELECT walpost.publish_on('orders', 'c'); SELECT walpost.unpublish('orders');
         SELECT walpost.unpublish('orders'); INSERT INTO orders VALUES (3); DELETE FROM orders",
    );
    assert_eq!((published(&database).len(), functions(&database).as_str()), (0, "0"));
}

/// An application may call it at each start: where nothing changes, nobody waits.
#[tokio::test]
async fn the_same_call_again_waits_for_no_writer() {
    let database = orders();
    let call = "SELECT walpost.publish_on('orders', 'd', events => '{update,insert}')";
    database.sql(call);
    let made = "SELECT tgfoid, xmin FROM pg_trigger WHERE tgrelid = 'orders'::regclass";
    let before = database.sql(made);
    let writer = database.client().await;
    writer.batch_execute("BEGIN; INSERT INTO orders VALUES (1)").await.unwrap();
    database.sql(&format!("SET lock_timeout = '10s'; {call}"));
    assert_eq!(database.sql(made), before);
    writer.batch_execute("COMMIT").await.unwrap();
    assert_eq!(published(&database).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_calls_at_once_make_one_registration() {
    let database = orders();
    let (first, second) = (database.client().await, database.client().await);
    first.batch_execute("BEGIN; SELECT walpost.publish_on('orders', 'd')").await.unwrap();
    let call = "SELECT walpost.publish_on('orders', 'd', fields => '{}')";
    let waiting = tokio::spawn(async move { second.batch_execute(call).await });
    let waits =
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory' AND database =
        (SELECT oid FROM pg_database WHERE datname = current_database())";
    until(LONG, "the second to wait", || database.sql(waits) == "1");
    first.batch_execute("COMMIT").await.unwrap();
    waiting.await.unwrap().unwrap();
    database.sql("INSERT INTO orders VALUES (1, 'x')");
    assert_eq!(published(&database), [r#"d - {"id": 1}"#]);
}

#[tokio::test]
async fn what_would_be_published_twice_is_refused() {
    let database = database();
    let client = database.client().await;
    database.sql(
        "CREATE TABLE m (id int PRIMARY KEY) PARTITION BY RANGE (id);
         CREATE TABLE low PARTITION OF m FOR VALUES FROM (0) TO (10);
         SELECT walpost.publish_on('m', 'whole'); SELECT walpost.publish_on('low', 'part')",
    );
    for (call, relative) in [("low', 'whole", "public.m"), ("m', 'part", "public.low")] {
        let error = refused(&client, &format!("SELECT walpost.publish_on('{call}')")).await;
        assert_eq!(error.code().code(), "42710", "{error:?}");
        let remedy = format!("SELECT walpost.unpublish('{relative}', ");
        assert!(error.hint().unwrap().starts_with(&remedy), "{error:?}");
    }
    let error = refused(&client, "SELECT walpost.unpublish('m', 'part')").await;
    assert_eq!(error.code().code(), "42704", "{error:?}");
}

#[test]
fn what_a_dropped_table_leaves_goes_with_the_next_call() {
    let database = orders();
    database.sql(
        "CREATE TABLE other (id int PRIMARY KEY); CREATE FUNCTION walpost_publish_9_mine() RETURNS trigger
             LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         SELECT walpost.publish_on('other', 'd'); DROP TABLE other",
    );
    assert_eq!(functions(&database), "2");
    database.sql("SELECT walpost.publish_on('orders', 'd')");
    // That which is somebody else's stays.
    assert_eq!(functions(&database), "2");
    database.sql("SELECT 'walpost_publish_9_mine'::regproc, 'walpost_publish_1_orders'::regproc");
}
