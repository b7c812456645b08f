//! Clean-up: rows go once every relay has delivered them, and whatever stands in the way is said.

use walpost_testkit::postgres::Database;
use walpost_testkit::walpost::Builder;
use walpost_testkit::{Postgres, ScriptedBroker, Walpost, until};

use crate::guard::{EVENTS, insert, of_events};
use crate::init;
use crate::rig::{LONG, walpost};
use crate::scene::{PUBLISHED, database, publish_each, relay};

const HELD_BACK: &str = "rows that were delivered are not deleted before the relay of slot";

fn cleaning(relay: &Builder) -> Builder {
    relay.clone().set("outbox.retention", "1s")
}

fn ready(relay: &Builder) -> Walpost {
    let mut walpost = relay.start();
    walpost.await_ready(LONG);
    walpost
}

fn rows(database: &Database<'_>, table: &str) -> String {
    database.sql(&format!("SELECT count(*) FROM {table}"))
}

#[track_caller]
fn await_no_row(database: &Database<'_>, table: &str, walpost: &Walpost) {
    let log = || walpost.log();
    until(LONG, &format!("{table} to be empty"), || rows(database, table) == "0");
    assert!(!log().contains("old rows are not deleted"), "{}", log());
}

/// Waits until a relay has certified everything committed so far, and has then had its turn to clean up: it
/// comes each second, and ten seconds before the next snapshot.
#[track_caller]
pub fn await_turn(database: &Database<'_>, slot: &str) {
    for _ in 0..2 {
        let xid = database
            .sql("SELECT (walpost.publish('/queue/q', '0') IS NULL)::text, pg_current_xact_id()");
        let xid = xid.split('|').next_back().unwrap();
        until(LONG, "a certified snapshot", || {
            database.sql(&format!(
                "SELECT coalesce(pg_visible_in_snapshot('{xid}', certified_snapshot), false)
                 FROM walpost.relay WHERE slot = '{slot}'"
            )) == "t"
        });
    }
}

#[test]
fn nothing_goes_before_every_relay_has_it_and_one_that_is_gone_is_named() {
    let (database, brokers) = (database(), [ScriptedBroker::start(), ScriptedBroker::start()]);
    let one = cleaning(&relay(&database, &brokers[0].address()));
    let slot = format!("{}_other", database.name());
    let other = relay(&database, &brokers[1].address()).set("replication.slot", &slot);
    let (one, mut gone) = (ready(&one), ready(&other));
    publish_each(&database, "/queue/q", 1, 3);
    await_no_row(&database, "walpost.outbox", &one);
    assert_eq!(brokers.each_ref().map(ScriptedBroker::sends), [3, 3]);

    assert!(gone.terminate(LONG).success(), "{}", gone.log());
    publish_each(&database, "/queue/q", 4, 8);
    let line = one.wait_for_log(HELD_BACK, LONG);
    let remedy = format!(
        "gone for good: SELECT pg_drop_replication_slot('{slot}'); \
         DELETE FROM walpost.relay WHERE slot = '{slot}' (docs/operations.md, 'The outbox grows')"
    );
    assert!(line.contains(&format!("{HELD_BACK} {slot} has them, too: it does not run")), "{line}");
    assert!(line.contains(&remedy), "{line}");
    await_turn(&database, database.name());
    assert_eq!((brokers[0].sends(), rows(&database, "walpost.outbox")), (10, "7".to_owned()));
    let mut back = ready(&other);
    await_no_row(&database, "walpost.outbox", &one);
    assert_eq!(brokers[1].sends(), 10);

    assert!(back.terminate(LONG).success(), "{}", back.log());
    publish_each(&database, "/queue/q", 9, 9);
    brokers[0].wait_for_sends(11, LONG);
    database.sql(&format!(
        "SELECT pg_drop_replication_slot('{slot}'); DELETE FROM walpost.relay WHERE slot = '{slot}'"
    ));
    await_no_row(&database, "walpost.outbox", &one);
    assert_eq!(one.log().matches(HELD_BACK).count(), 1, "once an hour: {}", one.log());
}

/// It has nothing to certify, and would be waited for.
#[test]
fn a_relay_that_has_nothing_to_do_holds_nobody_up() {
    let (database, broker) = (database(), ScriptedBroker::start());
    database.sql(&format!("CREATE TABLE events ({EVENTS}); CREATE TABLE more ({EVENTS})"));
    let busy = cleaning(&of_events(&database, &broker, "public.events"));
    let slot = format!("{}_idle", database.name());
    let idle = of_events(&database, &broker, "public.more")
        .set("replication.slot", &slot)
        .set("replication.publication", "idle");
    let mut walposts = [ready(&busy), ready(&idle)];
    until(LONG, "both to have certified something", || {
        database.sql("SELECT count(confirmed_at) FROM walpost.relay") == "2"
    });
    insert(&database, "events", 1, 2500);
    await_no_row(&database, "events", &walposts[0]);
    assert_eq!(broker.sends(), 2500);
    // And then there is peace.
    let certified = "SELECT count(DISTINCT confirmed_at) FROM walpost.relay";
    until(LONG, "both to be as far", || database.sql(certified) == "1");
    assert!(walposts.iter_mut().all(|walpost| walpost.terminate(LONG).success()));
}

/// Its rows keep status 1 while they are not marked.
#[test]
fn rows_of_django_go_by_when_they_were_added() {
    let (database, broker) = (database(), ScriptedBroker::start());
    database.sql(PUBLISHED);
    let insert = |body: &str, added: &str| {
        database.sql(&format!(
            "INSERT INTO published VALUES (gen_random_uuid(), 'v1', '/queue/q.v1', '{body}', {added},
                now(), 0, 1)"
        ));
    };
    let mut walpost = ready(
        &relay(&database, &broker.address())
            .set("outbox.layout", "django")
            .set("outbox.retention", "1h"),
    );
    // A row that is committed before the waiting ones are read comes twice.
    let _ = walpost.wait_for_log("the slot is read from now on", LONG);
    insert("1", "now() - interval '2 hours'");
    insert("2", "now() - interval '50 minutes'");
    broker.wait_for_sends(2, LONG);
    // The look for old rows comes each minute: the next walpost's is at once.
    until(LONG, "both to be certified", || {
        database.sql(
            "SELECT count(*) FROM published, walpost.relay
             WHERE published.xmin::text::bigint < pg_snapshot_xmin(certified_snapshot)::text::bigint",
        ) == "2"
    });
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    let _walpost = ready(
        &relay(&database, &broker.address())
            .set("outbox.layout", "django")
            .set("outbox.retention", "1h"),
    );
    until(LONG, "the old one to go", || rows(&database, "published") == "1");
    assert_eq!(database.sql("SELECT body FROM published"), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_or_a_locked_table_is_said_and_tried_again() {
    let server = Postgres::builder().fast().start();
    let broker = ScriptedBroker::start();
    let settings = |role: &str| {
        let url = format!("postgresql://{role}@127.0.0.1:{}/postgres", server.port());
        let settings = walpost().set("postgres.url", url).set("broker.hosts", broker.address());
        cleaning(&settings)
    };
    let script = settings("postgres").arguments(["init", "--dry-run"]).output(LONG);
    init::psql(&server, "postgres", &script.stdout);
    server.sql("postgres", "REVOKE DELETE ON walpost.outbox FROM walpost");
    let publish = "SELECT walpost.publish('/queue/q', '1')";
    let mut walpost = ready(&settings("walpost"));
    server.sql("postgres", publish);
    let line = walpost.wait_for_log("old rows are not deleted", LONG);
    assert!(line.contains("(SQLSTATE 42501); have a superuser grant what is missing"), "{line}");
    server.sql("postgres", publish);
    broker.wait_for_sends(2, LONG);
    server.sql("postgres", "GRANT DELETE ON walpost.outbox TO walpost");
    let count = || server.sql("postgres", "SELECT count(*) FROM walpost.outbox");
    until(LONG, "the rows to go", || count() == "0");

    // As CREATE INDEX and CREATE TRIGGER lock it.
    let lock = server.client_to("postgres").await;
    server.sql("postgres", publish);
    lock.batch_execute("BEGIN; LOCK TABLE walpost.outbox IN SHARE ROW EXCLUSIVE MODE")
        .await
        .unwrap();
    let line = walpost.wait_for_log("(SQLSTATE 55P03); somebody has locked it", LONG);
    assert!(line.contains("old rows are not deleted, which is tried again"), "{line}");
    lock.batch_execute("COMMIT").await.unwrap();
    until(LONG, "the row to go", || count() == "0");

    // What is certified can't be kept for a while: it is later.
    server.sql("postgres", "REVOKE UPDATE ON walpost.relay FROM walpost");
    server.sql("postgres", publish);
    let line = walpost.wait_for_log("the relay's row can't be kept", LONG);
    assert!(line.contains("permission denied"), "{line}");
    broker.wait_for_sends(4, LONG);
    assert_eq!(count(), "1");
    server.sql("postgres", "GRANT UPDATE ON walpost.relay TO walpost");
    until(LONG, "the last row to go", || count() == "0");
    assert_eq!(walpost.log().matches("streaming from slot").count(), 1, "{}", walpost.log());
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
}

/// A dump brings the rows of all relays along. One that nobody has adopted has delivered nothing here.
#[test]
fn nothing_goes_before_a_row_that_came_with_a_dump_is_seen_to() {
    let (database, broker) = (database(), ScriptedBroker::start());
    let settings = cleaning(&relay(&database, &broker.address()));
    let mut walpost = ready(&settings);
    database.sql(
        "INSERT INTO walpost.relay (slot, system_identifier, timeline, database_oid, state, certified_snapshot)
         SELECT 'other', system_identifier - 1, timeline, database_oid, 'streaming', '9999999:9999999:'
         FROM walpost.relay",
    );
    publish_each(&database, "/queue/q", 1, 3);
    let said = walpost.wait_for_log("its row came from another database", LONG);
    assert!(said.contains("DELETE FROM walpost.relay WHERE slot = 'other'"), "{said}");
    await_turn(&database, database.name());
    assert_eq!(
        database.sql("SELECT count(*) FROM walpost.outbox WHERE body->>'n' IS NOT NULL"),
        "3"
    );
    database.sql("DELETE FROM walpost.relay WHERE slot = 'other'");
    await_no_row(&database, "walpost.outbox", &walpost);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
}
