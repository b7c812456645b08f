//! The SQL side on a real server: what the schema offers, and what the store sees.

use std::time::Duration;

use walpost::net::PostgresTls;
use walpost::store::{Class, ConnectSettings, Store};
use walpost_testkit::{Postgres, ScriptedBroker};

use crate::init;
use crate::rig::LONG;
use crate::scene::relay;

async fn store(url: String) -> Store {
    let settings = ConnectSettings {
        client: url.parse().unwrap(),
        connect_timeout: LONG,
        tls: PostgresTls::never(),
    };
    Store::connect(&settings).await.unwrap()
}

#[tokio::test]
async fn publish_writes_the_outbox_whatever_the_search_path() {
    let database = Postgres::shared().fresh_database();
    init::init(&database);
    let client = database.client().await;
    client
        .batch_execute(
            "CREATE SCHEMA evil;
             CREATE TABLE evil.outbox (LIKE walpost.outbox);
             CREATE TEMP TABLE outbox (LIKE walpost.outbox);
             CREATE FUNCTION evil.gen_random_uuid() RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid';
             CREATE FUNCTION evil.pg_current_xact_id() RETURNS xid8 LANGUAGE sql AS
                 $$ SELECT '666'::xid8 $$;
             SET search_path = evil, pg_catalog;
             BEGIN;
             SELECT walpost.publish('/queue/json', '{\"b\": 1, \"a\": \"\\u00e9\"}');
             SELECT walpost.publish_bytes('/queue/bytes', '\\x00ff', NULL, 'k', '{\"x\": \"y\"}');
             SELECT walpost.publish('/queue/empty', NULL)",
        )
        .await
        .unwrap();
    let sql = "SELECT destination, coalesce(version, '-') || coalesce(key, '-') || headers::text
                || coalesce(body::text, '-') || coalesce(body_bytes::text, '-'),
            xid = pg_current_xact_id() AND pg_typeof(id) = 'uuid'::regtype
        FROM walpost.outbox ORDER BY created_at";
    client.batch_execute("SET LOCAL search_path = pg_catalog").await.unwrap();
    let rows = client.query(sql, &[]).await.unwrap();
    let rows: Vec<(&str, &str, bool)> =
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    assert_eq!(
        rows,
        [
            ("/queue/json", r#"v1-{}{"a": "é", "b": 1}-"#, true),
            ("/queue/bytes", r#"-k{"x": "y"}-\x00ff"#, true),
            ("/queue/empty", "v1-{}--", true),
        ]
    );
}

#[tokio::test]
async fn what_could_never_be_a_message_is_refused_at_the_insert() {
    let database = Postgres::shared().fresh_database();
    init::init(&database);
    for row in [
        "SELECT walpost.publish('', '{}')",
        "SELECT walpost.publish(NULL, '{}')",
        "SELECT walpost.publish('/queue/a', '{}', headers => '[1]')",
        r#"SELECT walpost.publish('/queue/a', '{}', headers => '{"x": "1", "": "x"}')"#,
        "INSERT INTO walpost.outbox (destination, body, body_bytes) VALUES ('/queue/a', '1', '')",
    ] {
        assert!(database.server().try_sql(database.name(), row).is_err(), "{row}");
    }
}

#[tokio::test]
async fn the_store_sees_the_server_and_the_slots_lag() {
    let database = Postgres::shared().fresh_database();
    init::init(&database);
    let store = store(database.url()).await;
    let server = store.server().await.unwrap();
    assert_eq!(server.database, database.name());
    assert_eq!((server.timeline, server.in_recovery), (1, false));
    let identifier = database.sql("SELECT system_identifier FROM pg_control_system()");
    assert_eq!(server.system_identifier.to_string(), identifier);

    let before = store.lag(database.name()).await.unwrap().unwrap();
    assert!(before.confirmed_flush_lsn.is_some_and(|confirmed| confirmed <= before.insert_lsn));
    assert!(before.flush_lsn <= before.insert_lsn);
    database.sql("SELECT walpost.publish('d', '{}')");
    let after = store.lag(database.name()).await.unwrap().unwrap();
    assert!(after.insert_lsn > before.insert_lsn);
    assert!(after.retained_bytes > before.retained_bytes, "{after:?}");
    assert_eq!(after.active_pid, None);
    assert_eq!(store.lag("no_such_slot").await.unwrap(), None);
    assert_eq!(store.slot("no_such_slot").await.unwrap(), None);
}

#[tokio::test]
async fn the_session_is_pinned_against_the_settings_of_the_role() {
    let server = Postgres::builder().fast().start();
    server.sql(
        "postgres",
        "CREATE SCHEMA evil; ALTER ROLE postgres SET search_path = evil, pg_catalog;
         CREATE FUNCTION evil.pg_is_in_recovery() RETURNS boolean LANGUAGE sql AS 'SELECT true';
         ALTER ROLE postgres SET synchronous_commit = off",
    );
    let store = store(server.url("postgres")).await;
    assert!(!store.server().await.unwrap().in_recovery);
}

#[tokio::test]
async fn the_end_of_the_connection_is_noticed_with_its_reason() {
    let server = Postgres::builder().fast().start();
    let store = store(server.url("postgres")).await;
    assert!(!store.is_closed());
    server.stop_fast();
    let end = tokio::time::timeout(LONG, store.ended()).await.unwrap();
    assert_eq!(end.class, Class::ShuttingDown, "{end:?}");
    assert!(store.is_closed());
    server.restart();
}

#[tokio::test]
async fn a_frozen_host_is_passed_over() {
    let (frozen, alive) = (Postgres::builder().fast().start(), Postgres::builder().fast().start());
    frozen.freeze();
    let hosts = format!("127.0.0.1:{},127.0.0.1:{}", frozen.port(), alive.port());
    let settings = ConnectSettings {
        client: format!("postgresql://postgres@{hosts}/postgres").parse().unwrap(),
        connect_timeout: Duration::from_secs(1),
        tls: PostgresTls::never(),
    };
    let store = Store::connect(&settings).await.unwrap();
    let port = alive.sql("postgres", "SHOW port");
    assert_eq!(port, alive.port().to_string());
    assert!(store.server().await.unwrap().system_identifier > 0);
    frozen.thaw();
}

#[tokio::test]
async fn a_refused_login_is_told_from_a_broken_network_and_shows_no_password() {
    let server =
        Postgres::builder().fast().hba("host all refused 127.0.0.1/32 scram-sha-256").start();
    server.sql("postgres", "CREATE ROLE refused LOGIN PASSWORD 'right'");
    let connect = |port: u16, password: &str| {
        let url = format!("postgresql://refused:{password}@127.0.0.1:{port}/postgres");
        let settings = ConnectSettings {
            client: url.parse().unwrap(),
            connect_timeout: LONG,
            tls: PostgresTls::never(),
        };
        async move { Store::connect(&settings).await }
    };
    connect(server.port(), "right").await.unwrap();
    let refused = connect(server.port(), "hunter3").await.unwrap_err();
    assert!(refused.is_login(), "{refused}");
    assert_eq!(refused.class(), Class::Operator);
    let text = format!("{refused} {refused:?}");
    assert!(!text.contains("hunter"), "{text}");
    server.stop_fast();
    let down = connect(server.port(), "right").await.unwrap_err();
    assert_eq!(down.class(), Class::Retry, "{down}");
    assert!(!format!("{down} {down:?}").contains("hunter"));
}

/// The keeper's connection may have found another server than the session: a new primary, say.
#[tokio::test]
async fn a_snapshot_is_certified_only_where_the_session_is() {
    let (database, broker) = (Postgres::shared().fresh_database(), ScriptedBroker::start());
    let mut walpost = relay(&database, &broker.address()).start();
    walpost.await_ready(LONG);
    let (slot, store) = (database.name(), store(database.url()).await);
    let number = |sql: &str| database.sql(sql).parse::<i64>().unwrap();
    let held = format!("SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{slot}'");
    let walsender = u32::try_from(number(&held)).unwrap();
    let epoch = number("SELECT epoch FROM walpost.relay");
    let mark = store.mark().await.unwrap();
    assert!(!store.keep_certified(slot, epoch, walsender + 1, &mark).await.unwrap());
    assert!(!store.keep_certified(slot, epoch - 1, walsender, &mark).await.unwrap());
    assert!(store.keep_certified(slot, epoch, walsender, &mark).await.unwrap());
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    // Nobody has the slot.
    assert!(!store.keep_certified(slot, epoch, walsender, &mark).await.unwrap());
}
