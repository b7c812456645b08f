//! Rows are marked, or deleted, once their messages have a receipt, and before anything of them is
//! confirmed.

mod held_up;
mod kills;

use std::collections::BTreeSet;

use walpost_testkit::postgres::Database;
use walpost_testkit::walpost::Builder;
use walpost_testkit::{Postgres, ScriptedBroker, until};

use crate::rig::LONG;
use crate::scene::{await_all_confirmed, database, is_confirmed, position, relay};

/// An outbox, and what becomes of its rows.
#[derive(Clone, Copy)]
struct Case {
    /// The configuration.
    settings: &'static [(&'static str, &'static str)],
    /// Makes the table; empty: `walpost init` does.
    table: &'static str,
    /// The table's name.
    name: &'static str,
    /// Inserts as many rows as `{}` says.
    insert: &'static str,
    /// Counts the rows that are not marked.
    open: &'static str,
}

/// The table of the predecessor.
const DJANGO: Case = Case {
    settings: &[("outbox.layout", "django")],
    table: "CREATE TABLE public.published (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(), version varchar(100) NOT NULL DEFAULT 'v1',
        destination varchar(255) NOT NULL, body jsonb NOT NULL, added timestamptz NOT NULL DEFAULT now(),
        expires_at timestamptz NOT NULL DEFAULT now() + interval '15 days',
        retry integer NOT NULL DEFAULT 7, status integer NOT NULL DEFAULT 1)",
    name: "published",
    insert: "INSERT INTO published (destination, body)
        SELECT '/queue/q.v1', jsonb_build_object('n', n) FROM generate_series(1, {}) n",
    open: "SELECT count(*) FROM published WHERE status <> 2",
};

/// walpost's own, emptied as it is published.
const DELETED: Case = Case {
    settings: &[("outbox.after_publish", "delete")],
    table: "",
    name: "walpost.outbox",
    insert: "INSERT INTO walpost.outbox (destination, body)
        SELECT '/queue/q', jsonb_build_object('n', n) FROM generate_series(1, {}) n",
    open: "SELECT count(*) FROM walpost.outbox",
};

/// Any table, here with numbers for ids.
const CUSTOM: Case = Case {
    settings: &[
        ("outbox.after_publish", "delete"),
        ("outbox.layout", "custom"),
        ("outbox.backfill", "true"),
        ("outbox.tables", r#"["public.Events, new"]"#),
        ("outbox.columns", r#"{"id": "the id", "destination": "topic", "body": "body"}"#),
    ],
    table: "CREATE TABLE public.\"Events, new\" (\"the id\" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        topic text, body text)",
    name: "\"Events, new\"",
    insert: "INSERT INTO \"Events, new\" (topic, body)
        SELECT '/queue/q', n::text FROM generate_series(1, {}) n",
    open: "SELECT count(*) FROM \"Events, new\"",
};

impl Case {
    fn database(&self) -> Database<'static> {
        self.on(Postgres::shared())
    }

    fn on<'a>(&self, server: &'a Postgres) -> Database<'a> {
        let database = server.fresh_database();
        if !self.table.is_empty() {
            database.sql(self.table);
        }
        database
    }

    fn relay(&self, database: &Database<'_>, broker: &ScriptedBroker) -> Builder {
        self.with(relay(database, &broker.address()))
    }

    fn with(&self, mut relay: Builder) -> Builder {
        for (name, value) in self.settings {
            relay = relay.set(name, *value);
        }
        relay
    }

    fn insert(&self, database: &Database<'_>, rows: u64) {
        database.sql(&self.insert.replace("{}", &rows.to_string()));
    }

    /// How many rows are not marked.
    fn open(&self, database: &Database<'_>) -> u64 {
        database.sql(self.open).parse().unwrap()
    }

    #[track_caller]
    fn await_marked(&self, database: &Database<'_>) {
        until(LONG, "every row to be marked", || self.open(database) == 0);
    }
}

/// How many messages have arrived, and how many different ones.
fn arrivals(broker: &ScriptedBroker) -> (usize, usize) {
    let messages = broker.messages();
    let ids: BTreeSet<_> = messages.iter().filter_map(|frame| frame.header("msg-id")).collect();
    (messages.len(), ids.len())
}

#[test]
fn rows_are_marked_after_the_receipt_and_before_they_are_confirmed() {
    for case in [DJANGO, DELETED, CUSTOM] {
        let (database, broker) = (case.database(), ScriptedBroker::start());
        let mut walpost = case.relay(&database, &broker).start();
        walpost.await_ready(LONG);
        let _ = walpost.wait_for_log("the slot is read from now on", LONG);
        broker.freeze();
        case.insert(&database, 3000);
        until(LONG, "a full window", || walpost.metric("walpost_in_flight_messages") >= 1000.0);
        assert_eq!(case.open(&database), 3000, "{} was marked without a receipt", case.name);
        broker.thaw();
        case.await_marked(&database);
        await_all_confirmed(&database);
        case.insert(&database, 1);
        case.await_marked(&database);
        await_all_confirmed(&database);
        assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
        assert_eq!(arrivals(&broker), (3001, 3001), "{}", walpost.log());
    }
}

#[test]
fn the_predecessors_row_keeps_its_retries_and_other_rows_stay_as_they_are() {
    let (database, broker) = (DJANGO.database(), ScriptedBroker::start());
    let insert = |status: i32| {
        database.sql(&format!(
            "INSERT INTO published (destination, body, status) VALUES ('/queue/q.v1', '{{}}', {status})"
        ));
    };
    // Waiting rows are marked as those are that the slot brings.
    insert(1);
    insert(-1);
    let mut walpost = DJANGO.relay(&database, &broker).start();
    walpost.await_ready(LONG);
    let _ = walpost.wait_for_log("the slot is read from now on", LONG);
    insert(1);
    insert(3);
    broker.wait_for_sends(2, LONG);
    let rows = "SELECT string_agg(status || ' ' || retry, ', ' ORDER BY added) FROM published";
    until(LONG, "both to be marked", || database.sql(rows) == "2 7, -1 7, 2 7, 3 7");
    await_all_confirmed(&database);
    // An update publishes nothing.
    database.sql("UPDATE published SET status = 1");
    insert(1);
    broker.wait_for_sends(3, LONG);
    until(LONG, "the new one to be marked", || database.sql(rows) == "1 7, 1 7, 1 7, 1 7, 2 7");
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    assert_eq!(broker.sends(), 3);
}

#[test]
fn ids_of_any_type_are_found() {
    let (database, broker) = (database(), ScriptedBroker::start());
    database.sql(
        "CREATE TYPE kind AS ENUM ('a', 'b');
         CREATE DOMAIN code AS varchar(40);
         CREATE TABLE texts (id text PRIMARY KEY, topic text);
         CREATE TABLE codes (id code PRIMARY KEY, topic text);
         CREATE TABLE numbers (id numeric(20,3) PRIMARY KEY, topic text);
         CREATE TABLE kinds (id kind PRIMARY KEY, topic text);
         CREATE TABLE padded (id char(26) PRIMARY KEY, topic text);
         CREATE TABLE bits (id bit(8) PRIMARY KEY, topic text);
         CREATE TABLE times (id timestamptz PRIMARY KEY, topic text);
         CREATE TABLE parts (id bigint, topic text, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
         CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
         CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');",
    );
    let mut walpost = relay(&database, &broker.address())
        .set("outbox.layout", "custom")
        .set("outbox.after_publish", "delete")
        .set(
            "outbox.tables",
            r#"["public.times", "public.parts", "public.kinds", "public.texts", "public.codes", "public.numbers", "public.padded", "public.bits"]"#,
        )
        .set("outbox.columns", r#"{"id": "id", "destination": "topic"}"#)
        .start();
    walpost.await_ready(LONG);
    let odd = r#"('NULL'), ('{}'), ('a,b'), ('"'), ('\'), (' '), ('ä'), ('x''y')"#;
    database.sql(&format!(
        "INSERT INTO texts SELECT id, '/queue/q' FROM (VALUES {odd}) AS t(id);
         INSERT INTO codes SELECT id, '/queue/q' FROM (VALUES {odd}) AS t(id);
         INSERT INTO numbers VALUES (1.5, '/queue/q'), (12345678901234567.125, '/queue/q');
         INSERT INTO padded VALUES ('a00000001', '/queue/q'), ('a00000002', '/queue/q');
         INSERT INTO bits VALUES ('10000001', '/queue/q'), ('11111111', '/queue/q');
         INSERT INTO kinds VALUES ('a', '/queue/q'), ('b', '/queue/q');
         INSERT INTO times VALUES ('2026-01-01 12:00:00.123456+02', '/queue/q');
         INSERT INTO parts VALUES (1, '/queue/q', '2026-01-05'), (2, '/queue/q', '2026-02-05');"
    ));
    broker.wait_for_sends(27, LONG);
    until(LONG, "every table to be empty", || {
        let count =
            "SELECT count(*) FROM (SELECT topic FROM texts UNION ALL SELECT topic FROM codes
            UNION ALL SELECT topic FROM numbers UNION ALL SELECT topic FROM kinds
            UNION ALL SELECT topic FROM padded UNION ALL SELECT topic FROM bits
            UNION ALL SELECT topic FROM times UNION ALL SELECT topic FROM parts) AS all_rows";
        database.sql(count) == "0"
    });
    await_all_confirmed(&database);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    assert_eq!(broker.sends(), 27);
}

/// A mark is for the row that was published, not for whatever has an id that is equal, or begins alike.
#[test]
fn rows_whose_ids_are_like_that_of_a_published_one_are_left_alone() {
    let (database, broker) = (database(), ScriptedBroker::start());
    // Rows that were there before are not published in this layout.
    database.sql(
        "CREATE COLLATION folded (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE TABLE padded (id char(12), topic text);
         CREATE TABLE words (id text COLLATE folded, topic text);
         INSERT INTO padded VALUES ('a', '/queue/q');
         INSERT INTO words VALUES ('aBC', '/queue/q');",
    );
    let mut walpost = relay(&database, &broker.address())
        .set("outbox.layout", "custom")
        .set("outbox.after_publish", "delete")
        .set("outbox.tables", r#"["public.padded", "public.words"]"#)
        .set("outbox.columns", r#"{"id": "id", "destination": "topic"}"#)
        .start();
    walpost.await_ready(LONG);
    database.sql(
        "INSERT INTO padded VALUES ('a00000001', '/queue/q'); INSERT INTO words VALUES ('Abc', '/queue/q')",
    );
    broker.wait_for_sends(2, LONG);
    await_all_confirmed(&database);
    let left = "SELECT string_agg(trim(id), ' ' ORDER BY id COLLATE \"C\") FROM
        (SELECT id::text FROM padded UNION ALL SELECT id::text COLLATE \"C\" FROM words) AS all_rows";
    assert_eq!(database.sql(left), "a aBC");
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    assert_eq!(broker.sends(), 2);
}

#[test]
fn a_mark_without_a_status_column_is_a_mistake() {
    let database = database();
    let finished =
        relay(&database, "127.0.0.1:1").set("outbox.after_publish", "mark").start().finish(LONG);
    assert_eq!(finished.status.code(), Some(2), "{finished:?}");
    assert!(
        finished.stderr.contains("'mark' needs the status column of the layout django"),
        "{finished:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_mark_is_told_the_grant() {
    for (case, rights, right) in [
        (
            DJANGO,
            "UPDATE (\"status\", retry, expires_at) ON \"public\".\"published\"",
            "UPDATE (status)",
        ),
        (DELETED, "DELETE, UPDATE (\"id\") ON \"walpost\".\"outbox\"", "UPDATE (id)"),
    ] {
        let (database, broker) = (case.database(), ScriptedBroker::start());
        let role = format!("{}_relay", database.name());
        let as_admin = case.relay(&database, &broker);
        let url = database.url().replace("postgres@", &format!("{role}@"));
        let settings = as_admin.clone().set("postgres.url", url);
        assert!(as_admin.arguments(["init"]).output(LONG).status.success());
        // What --dry-run prints is what it takes.
        let printed = settings.clone().arguments(["init", "--dry-run"]).output(LONG).stdout;
        let grant = format!("GRANT {rights} TO \"{role}\";");
        assert!(printed.contains(&grant), "{printed}");
        let grants = printed.lines().filter(|line| line.starts_with("GRANT "));
        let grants = grants.collect::<Vec<_>>().join("\n");
        database.sql(&format!("CREATE ROLE {role} LOGIN REPLICATION; {grants}"));
        database.sql(&format!("REVOKE {right} ON {} FROM {role}", case.name));

        let finished = settings.start().finish(LONG);
        assert_eq!(finished.status.code(), Some(3), "{finished:?}");
        let said = format!(
            "are to be marked when they are published (outbox.after_publish), and may not be: GRANT {rights} TO"
        );
        assert!(finished.stderr.contains(&said), "{}", finished.stderr);

        database.sql(&grant);
        let mut walpost = settings.start();
        walpost.await_ready(LONG);
        let _ = walpost.wait_for_log("the slot is read from now on", LONG);
        // With these rights it also gets round a row that is locked.
        broker.freeze();
        case.insert(&database, 10);
        let user = database.server().client_to(database.name()).await;
        let lock = format!("BEGIN; SELECT FROM {} LIMIT 1 FOR UPDATE", case.name);
        user.batch_execute(&lock).await.unwrap();
        broker.thaw();
        until(LONG, "the others to be marked", || case.open(&database) == 1);
        user.batch_execute("COMMIT").await.unwrap();
        case.await_marked(&database);
        let lsn = position(&database);
        until(LONG, "all is confirmed", || is_confirmed(&database, &lsn));
        assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
        database.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
    }
}

#[test]
fn what_can_never_be_marked_is_refused_and_what_is_slow_is_said() {
    let (database, broker) = (database(), ScriptedBroker::start());
    database.sql("CREATE TABLE events (id json, topic text)");
    let settings = relay(&database, &broker.address())
        .set("outbox.layout", "custom")
        .set("outbox.after_publish", "delete")
        .set("outbox.tables", r#"["public.events"]"#)
        .set("outbox.columns", r#"{"id": "id", "destination": "topic"}"#);
    let finished = settings.output(LONG);
    assert_eq!(finished.status.code(), Some(3), "{finished:?}");
    let said =
        "rows of public.events can't be marked when they are published (outbox.after_publish): ";
    assert!(finished.stderr.contains(said), "{finished:?}");
    assert!(finished.stderr.contains("operator does not exist: json = json"), "{finished:?}");

    database.sql("ALTER TABLE events ALTER id TYPE text USING id::text");
    let mut walpost = settings.start();
    walpost.await_ready(LONG);
    let note = walpost.wait_for_log("no index of public.events begins with", LONG);
    assert!(note.contains("CREATE INDEX CONCURRENTLY ON \"public\".\"events\" (\"id\")"), "{note}");
    database.sql("INSERT INTO events SELECT n::text, '/queue/q' FROM generate_series(1, 3000) n");
    until(LONG, "all to be deleted", || database.sql("SELECT count(*) FROM events") == "0");
    await_all_confirmed(&database);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    assert_eq!(broker.sends(), 3000);
}

/// What one of them marks, the other would not find if its slot were lost.
#[test]
fn two_relays_of_one_table_do_not_mark_it() {
    let (database, broker) = (DJANGO.database(), ScriptedBroker::start());
    let mut first = DJANGO.relay(&database, &broker).start();
    first.await_ready(LONG);
    let slot = format!("{}_other", database.name());
    let second = DJANGO.relay(&database, &broker).set("replication.slot", &slot);
    let finished = second.output(LONG);
    assert_eq!(finished.status.code(), Some(3), "{finished:?}");
    let said = format!("the relay of slot {} reads that table, too", database.name());
    assert!(finished.stderr.contains(&said), "{finished:?}");
    let mut kept = second.set("outbox.after_publish", "keep").start();
    kept.await_ready(LONG);
    assert!(first.terminate(LONG).success(), "{}", first.log());
    assert!(kept.terminate(LONG).success(), "{}", kept.log());
}
