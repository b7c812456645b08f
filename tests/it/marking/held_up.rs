//! What holds up a mark: locks, errors, commits that are not visible yet, users that delete rows.

use walpost_testkit::{Postgres, ScriptedBroker, http, until};

use super::{CUSTOM, DELETED, DJANGO, arrivals};
use crate::rig::{LONG, walpost};
use crate::scene::{await_all_confirmed, database, is_confirmed, position, relay};

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_somebody_locks_is_waited_for_and_the_others_are_not_held_up() {
    for case in [DJANGO, CUSTOM] {
        let (database, broker) = (case.database(), ScriptedBroker::start());
        let mut walpost = case.relay(&database, &broker).start();
        walpost.await_ready(LONG);
        let _ = walpost.wait_for_log("the slot is read from now on", LONG);
        broker.freeze();
        case.insert(&database, 100);
        let user = database.server().client_to(database.name()).await;
        let lock = format!("SELECT FROM {} LIMIT 1 FOR UPDATE", case.name);
        user.batch_execute(&format!("BEGIN; {lock}")).await.unwrap();
        let lsn = position(&database);
        broker.thaw();
        until(LONG, "the others to be marked", || case.open(&database) == 1);
        // Whatever comes behind it is published and marked, and waits to be confirmed.
        case.insert(&database, 100);
        until(LONG, "the next ones, too", || case.open(&database) == 1);
        assert_eq!(arrivals(&broker), (200, 200));
        // It is said, also while others come and are marked.
        let mut rows = 200;
        until(LONG, "it is said", || {
            case.insert(&database, 5);
            rows += 5;
            walpost.log().contains("published rows can't be marked (1): ")
        });
        until(LONG, "the others, too", || case.open(&database) == 1);
        assert!(!is_confirmed(&database, &lsn), "{}", walpost.log());
        until(LONG, "one to be owed", || walpost.metric("walpost_unmarked_messages") == 1.0);
        let ready = http::get(walpost.http_port(), "/readyz").unwrap();
        assert_eq!(ready.status, 503);
        assert!(ready.text().contains("another session has locked them"), "{}", ready.text());
        user.batch_execute("COMMIT").await.unwrap();
        case.await_marked(&database);
        await_all_confirmed(&database);
        walpost.await_ready(LONG);
        assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
        assert_eq!(arrivals(&broker), (rows, rows));
    }
}

/// The lock is not on the row, but on what goes with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_on_what_belongs_to_a_row_does_not_hold_up_the_others() {
    let (database, broker) = (CUSTOM.database(), ScriptedBroker::start());
    let mut walpost = CUSTOM.relay(&database, &broker).start();
    walpost.await_ready(LONG);
    let _ = walpost.wait_for_log("the slot is read from now on", LONG);
    broker.freeze();
    CUSTOM.insert(&database, 50);
    let user = database.server().client_to(database.name()).await;
    user.batch_execute(
        "CREATE TABLE details (event bigint REFERENCES \"Events, new\" ON DELETE CASCADE);
         CREATE INDEX ON details (event);
         INSERT INTO details SELECT \"the id\" FROM \"Events, new\"",
    )
    .await
    .unwrap();
    let lock = "BEGIN; SELECT FROM details WHERE event = 7 FOR UPDATE";
    user.batch_execute(lock).await.unwrap();
    broker.thaw();
    until(LONG, "the others to be deleted", || CUSTOM.open(&database) == 1);
    user.batch_execute("COMMIT").await.unwrap();
    CUSTOM.await_marked(&database);
    await_all_confirmed(&database);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    assert_eq!(arrivals(&broker), (50, 50));
}

#[test]
fn rows_that_a_user_deletes_are_done() {
    for case in [DJANGO, DELETED] {
        let (database, broker) = (case.database(), ScriptedBroker::start());
        let mut walpost = case.relay(&database, &broker).start();
        walpost.await_ready(LONG);
        let _ = walpost.wait_for_log("the slot is read from now on", LONG);
        broker.freeze();
        case.insert(&database, 50);
        until(LONG, "all in flight", || walpost.metric("walpost_in_flight_messages") == 50.0);
        database.sql(&format!("DELETE FROM {}", case.name));
        broker.thaw();
        await_all_confirmed(&database);
        assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
        assert_eq!(arrivals(&broker), (50, 50));
    }
}

/// The stream brings a commit that waits for a synchronous standby; nobody can see its rows, and a mark
/// finds none. They are not taken for deleted.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_waits_for_a_missing_standby_is_marked_when_it_is_visible() {
    for case in [DJANGO, DELETED] {
        let server = Postgres::builder().fast().start();
        if !case.table.is_empty() {
            server.sql("postgres", case.table);
        }
        let broker = ScriptedBroker::start();
        let settings = walpost()
            .set("postgres.url", server.url("postgres"))
            .set("broker.hosts", broker.address());
        let mut walpost = case.with(settings).start();
        walpost.await_ready(LONG);
        let _ = walpost.wait_for_log("the slot is read from now on", LONG);
        server.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'missing'");
        server.sql("postgres", "SELECT pg_reload_conf()");
        until(LONG, "commits wait", || {
            server.sql("postgres", "SHOW synchronous_standby_names") == "missing"
        });
        let client = server.client_to("postgres").await;
        let insert = case.insert.replace("{}", "10");
        let waiting = tokio::spawn(async move { client.batch_execute(&insert).await });
        broker.wait_for_sends(10, LONG);
        // They were looked for, and more than once.
        let _ = walpost.wait_for_log("published rows can't be marked (10): ", LONG);
        assert_eq!(walpost.metric("walpost_unmarked_messages"), 10.0);
        let confirmed = "SELECT confirmed_flush_lsn FROM pg_replication_slots";
        let before = server.sql("postgres", confirmed);
        assert_eq!(server.sql("postgres", confirmed), before);
        server.sql("postgres", "ALTER SYSTEM RESET synchronous_standby_names");
        server.sql("postgres", "SELECT pg_reload_conf()");
        waiting.await.unwrap().unwrap();
        until(LONG, "every row to be marked", || server.sql("postgres", case.open) == "0");
        let lsn = server.sql("postgres", "SELECT pg_current_wal_insert_lsn()");
        until(LONG, "all is confirmed", || {
            let reached =
                format!("SELECT confirmed_flush_lsn >= '{lsn}' FROM pg_replication_slots");
            server.sql("postgres", &reached) == "t"
        });
        assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
        assert_eq!(arrivals(&broker), (10, 10), "{}", walpost.log());
    }
}

#[test]
fn a_mark_that_fails_is_told_and_tried_again() {
    let (database, broker) = (DELETED.database(), ScriptedBroker::start());
    let mut walpost = DELETED.relay(&database, &broker).start();
    walpost.await_ready(LONG);
    database.sql(
        "CREATE TABLE receipts (message uuid REFERENCES walpost.outbox (id));
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO receipts VALUES (NEW.id); RETURN NULL; END $$;
         CREATE TRIGGER note AFTER INSERT ON walpost.outbox FOR EACH ROW
            WHEN (NEW.body->>'n' IN ('3', '17')) EXECUTE FUNCTION note()",
    );
    DELETED.insert(&database, 20);
    broker.wait_for_sends(20, LONG);
    let lsn = position(&database);
    let said = walpost.wait_for_log("published rows can't be marked (", LONG);
    assert!(said.contains("violates foreign key constraint"), "{said}");
    until(LONG, "the others to be deleted", || DELETED.open(&database) == 2);
    assert!(!is_confirmed(&database, &lsn));
    database.sql("DROP TABLE receipts CASCADE; DROP TRIGGER note ON walpost.outbox");
    DELETED.await_marked(&database);
    await_all_confirmed(&database);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    assert_eq!(arrivals(&broker), (20, 20));
}

#[test]
fn what_is_owed_survives_lost_connections_of_every_kind() {
    let (database, broker) = (DJANGO.database(), ScriptedBroker::start());
    let mut walpost = DJANGO.relay(&database, &broker).start();
    walpost.await_ready(LONG);
    let _ = walpost.wait_for_log("the slot is read from now on", LONG);
    let others = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE datname = '{}' AND application_name = 'walpost'",
        database.name()
    );
    for round in 1..=8 {
        DJANGO.insert(&database, 500);
        until(LONG, "some of them", || broker.sends() >= round * 500 - 400);
        database.sql(&others);
        if round % 3 == 0 {
            broker.drop_connections();
        }
    }
    DJANGO.await_marked(&database);
    await_all_confirmed(&database);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    assert_eq!(arrivals(&broker).1, 4_000);
}

/// Marks go by id, and another table may have rows with the same ones.
#[test]
fn a_table_that_is_swapped_by_a_rename_is_not_marked_for_the_old_one() {
    let (database, broker) = (CUSTOM.database(), ScriptedBroker::start());
    let settings = CUSTOM.relay(&database, &broker);
    let mut walpost = settings.start();
    walpost.await_ready(LONG);
    let _ = walpost.wait_for_log("the slot is read from now on", LONG);
    broker.freeze();
    CUSTOM.insert(&database, 100);
    until(LONG, "all in flight", || walpost.metric("walpost_in_flight_messages") == 100.0);
    database.sql(&format!(
        "BEGIN; ALTER TABLE {} RENAME TO old; {}; {}; COMMIT",
        CUSTOM.name,
        CUSTOM.table,
        CUSTOM.insert.replace("{}", "50")
    ));
    broker.thaw();
    let finished = walpost.finish(LONG);
    assert_eq!(finished.status.code(), Some(3), "{finished:?}");
    // Those of the old one are marked, unless the guard has ended it before.
    assert_eq!(CUSTOM.open(&database), 50);
    // The new one is published once an operator says that it is the outbox.
    assert!(settings.clone().arguments(["init"]).output(LONG).status.success());
    let mut walpost = settings.clone().arguments(["run", "--recover"]).start();
    walpost.await_ready(LONG);
    CUSTOM.await_marked(&database);
    await_all_confirmed(&database);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    assert_eq!(database.sql("SELECT count(*) FROM old"), "0");
    assert!(broker.messages().len() >= 150);
}

#[test]
fn a_column_of_ids_may_get_another_type() {
    let (database, broker) = (database(), ScriptedBroker::start());
    database.sql("CREATE TABLE events (id integer PRIMARY KEY, topic text)");
    let mut walpost = relay(&database, &broker.address())
        .set("outbox.layout", "custom")
        .set("outbox.after_publish", "delete")
        .set("outbox.tables", r#"["public.events"]"#)
        .set("outbox.columns", r#"{"id": "id", "destination": "topic"}"#)
        .start();
    walpost.await_ready(LONG);
    let empty = || database.sql("SELECT count(*) FROM events") == "0";
    for (kind, id) in
        [("integer", "1"), ("bigint", "5000000000"), ("text", "'x'"), ("uuid", "gen_random_uuid()")]
    {
        database.sql(&format!("ALTER TABLE events ALTER id TYPE {kind} USING id::text::{kind}"));
        database.sql(&format!("INSERT INTO events VALUES ({id}, '/queue/q')"));
        until(LONG, kind, empty);
    }
    await_all_confirmed(&database);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
}
