//! Tables of every shape: other names and orders, several, partitioned, altered while running, with
//! huge rows and foreign tables beside them.

use std::fs;

use walpost_testkit::postgres::Database;
use walpost_testkit::stomp::Frame;
use walpost_testkit::walpost::Builder;
use walpost_testkit::{ScriptedBroker, Walpost, until};

use crate::rig::LONG;
use crate::scene::{await_all_confirmed, database, numbers, position, relay};

fn custom(database: &Database<'_>, broker: &ScriptedBroker, tables: &str) -> Builder {
    relay(database, &broker.address())
        .set("outbox.layout", "custom")
        .set("outbox.tables", tables)
        .set("outbox.columns", r#"{"id": "id", "body": "body"}"#)
        .set("outbox.destination", "/queue/q")
        .set("outbox.key", "")
}

fn ready(builder: &Builder) -> Walpost {
    let mut walpost = builder.start();
    walpost.await_ready(LONG);
    walpost
}

fn skipped(walpost: &Walpost, reason: &str) -> f64 {
    walpost.metric(&format!("walpost_rows_skipped_total{{reason=\"{reason}\"}}"))
}

fn header<'a>(frame: &'a Frame, name: &str) -> &'a str {
    frame.header(name).unwrap_or_else(|| panic!("no header {name}: {frame:?}"))
}

#[test]
fn renamed_columns_in_any_order_and_every_placeholder() {
    let (database, broker) = (database(), ScriptedBroker::start());
    database.sql(
        r#"CREATE SCHEMA "Shop"; CREATE TABLE "Shop"."Events" (
             payload text, junk int[], "Route To" text, made timestamptz DEFAULT now(), meta json,
             tenant text, ver smallint, "event-id" bigint, ctype text, region text)"#,
    );
    let fields = [
        "id",
        "destination",
        "version",
        "key",
        "lsn",
        "xid",
        "commit_time",
        "now",
        "column:region",
        "column:junk",
    ];
    let all = fields.map(|field| format!("{{{field}}}")).join("|");
    let headers = serde_json::json!({
        "x-all": all, "x-part": "a[-{column:region}]b[-{version}-{key}]c", "x-literal": "{{[[]]}}",
        "x-empty": "{column:region}", "x-fixed": "yes",
    });
    let columns = serde_json::json!({
        "id": "event-id", "destination": "Route To", "version": "ver", "key": "tenant",
        "headers": "meta", "body": "payload", "content_type": "ctype", "created_at": "made",
    });
    let mut walpost = ready(
        &relay(&database, &broker.address())
            .set("outbox.layout", "custom")
            .set("outbox.tables", r#"["Shop.Events"]"#)
            .set("outbox.columns", columns)
            .set("outbox.destination", "{destination}[/{column:region}][.{version}]")
            .set("outbox.headers", headers),
    );
    let before = position(&database);
    let xid = database.sql(
        r#"INSERT INTO "Shop"."Events" VALUES ('full', '{1,NULL}', '/queue/a', now(),
             '{"own": "mine", "x-fixed": "no"}', 'ten:ant', 7, 42, 'text/plain', 'eu') RETURNING xmin"#,
    );
    let after = position(&database);
    database.sql(r#"INSERT INTO "Shop"."Events" ("Route To", "event-id") VALUES ('/queue/b', -1)"#);
    await_all_confirmed(&database);
    let frames = broker.messages();
    assert_eq!(frames.len(), 2);

    let full = &frames[0];
    assert_eq!(full.body, b"full");
    assert_eq!(header(full, "destination"), "/queue/a/eu.7");
    assert_eq!(header(full, "content-type"), "text/plain");
    assert_eq!(header(full, "own"), "mine");
    assert_eq!(header(full, "x-fixed"), "no");
    assert_eq!(header(full, "x-part"), "a-eub-7-ten:antc");
    assert_eq!(header(full, "x-literal"), "{[]}");
    let values: Vec<_> = header(full, "x-all").split('|').collect();
    let [id, destination, version, key, lsn, with_xid, commit_time, now, region, junk] = values[..]
    else {
        panic!("{values:?}");
    };
    assert_eq!([id, destination, version, key], ["42", "/queue/a", "7", "ten:ant"]);
    assert_eq!([with_xid, region, junk], [&xid, "eu", "{1,NULL}"]);
    let between = format!("SELECT '{lsn}'::pg_lsn BETWEEN '{before}' AND '{after}'");
    assert_eq!(database.sql(&between), "t", "{lsn}");
    for time in [commit_time, now] {
        let recent = format!("SELECT now() - '{time}'::timestamptz BETWEEN '-1 s' AND '1 min'");
        assert_eq!(database.sql(&recent), "t", "{time}");
    }

    // Null columns: the parts in brackets are gone, and so are headers without a value.
    let null = &frames[1];
    assert_eq!(null.body, b"");
    assert_eq!(header(null, "destination"), "/queue/b");
    assert_eq!(header(null, "content-type"), "application/json");
    assert_eq!(header(null, "x-part"), "abc");
    assert_eq!(null.header("x-empty"), None);
    assert_eq!(header(null, "x-fixed"), "yes");
    assert!(header(null, "x-all").starts_with("-1|/queue/b|||"), "{null:?}");
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn several_tables_and_a_partitioned_one_beside_foreign_ones() {
    let (database, broker) = (database(), ScriptedBroker::start());
    database.sql(
        "CREATE TABLE a (id int, body text); CREATE TABLE b (body jsonb, more int, id uuid);
         CREATE TABLE parted (id int, body text) PARTITION BY RANGE (id);
         CREATE TABLE low PARTITION OF parted FOR VALUES FROM (0) TO (100);
         CREATE TABLE high (body text, id int);
         ALTER TABLE parted ATTACH PARTITION high FOR VALUES FROM (100) TO (200);
         CREATE TABLE noise (id int, body text)",
    );
    let mut walpost =
        ready(&custom(&database, &broker, r#"["public.a", "public.b", "public.parted"]"#));
    database.sql("ALTER PUBLICATION walpost ADD TABLE noise");
    database.sql(
        r#"BEGIN;
           INSERT INTO a VALUES (1, '{"n": 1}');
           INSERT INTO noise VALUES (1, '{"n": 100}');
           INSERT INTO b VALUES ('{"n": 2}', 0, gen_random_uuid());
           INSERT INTO noise VALUES (1, repeat('huge', 4000000));
           INSERT INTO parted VALUES (50, '{"n": 3}'), (150, '{"n": 4}');
           INSERT INTO low VALUES (51, '{"n": 5}');
           INSERT INTO high VALUES ('{"n": 6}', 151);
           UPDATE noise SET id = 2; UPDATE a SET id = 2; DELETE FROM b; TRUNCATE noise;
           INSERT INTO noise VALUES (3, '');
           COMMIT"#,
    );
    // A partition made later, without a publication of its own.
    database.sql(
        r#"CREATE TABLE later PARTITION OF parted FOR VALUES FROM (200) TO (300);
           INSERT INTO parted VALUES (250, '{"n": 7}'); INSERT INTO a VALUES (8, '{"n": 8}')"#,
    );
    await_all_confirmed(&database);
    assert_eq!(numbers(&broker.messages()), (1..=8).collect::<Vec<u64>>());
    assert_eq!(skipped(&walpost, "other_table"), 3.0);
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn a_table_altered_while_the_relay_runs() {
    let (database, broker) = (database(), ScriptedBroker::start());
    database.sql("CREATE TABLE events (id int, body text, more text)");
    let mut walpost = ready(&custom(&database, &broker, r#"["public.events"]"#));
    let sql = |text: &str| database.sql(text);
    sql(r#"INSERT INTO events VALUES (1, '{"n": 1}')"#);
    // Between and inside transactions, and with one open on the old form meanwhile.
    sql(
        r#"ALTER TABLE events ADD extra int DEFAULT 7; INSERT INTO events (id, body) VALUES (2, '{"n": 2}')"#,
    );
    sql(r#"BEGIN; INSERT INTO events (id, body) VALUES (3, '{"n": 3}');
           ALTER TABLE events DROP more; INSERT INTO events (id, body) VALUES (4, '{"n": 4}');
           ALTER TABLE events DROP body; ALTER TABLE events ADD body jsonb;
           INSERT INTO events (id, body) VALUES (5, '{"n": 5}');
           ALTER TABLE events ALTER id TYPE text; SAVEPOINT s;
           ALTER TABLE events DROP extra; INSERT INTO events (id, body) VALUES ('x', '{"n": 99}');
           ROLLBACK TO s; INSERT INTO events (id, body) VALUES ('6', '{"n": 6}'); COMMIT"#);
    // The body becomes bytes.
    sql(
        r#"ALTER TABLE events ALTER body TYPE bytea USING NULL; INSERT INTO events (id, body) VALUES ('7', '{"n": 7}')"#,
    );
    // Another table in the publication is none of ours.
    sql(r#"CREATE TABLE other (body text, id bigint); ALTER PUBLICATION walpost ADD TABLE other;
           INSERT INTO other VALUES ('{"n": 99}', 8)"#);
    await_all_confirmed(&database);
    assert_eq!(numbers(&broker.messages()), (1..=7).collect::<Vec<u64>>());
    assert_eq!(skipped(&walpost, "other_table"), 1.0);
    assert_eq!(walpost.metric("walpost_connects_total{peer=\"postgresql\"}"), 1.0);
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn values_of_several_megabytes_from_toast() {
    let (database, broker) = (database(), ScriptedBroker::start());
    database.sql("CREATE TABLE events (id int, body text, meta jsonb)");
    let columns = r#"{"id": "id", "body": "body", "headers": "meta"}"#;
    let builder = custom(&database, &broker, r#"["public.events"]"#).set("outbox.columns", columns);
    let mut walpost = ready(&builder);
    // Text that does not compress goes out of line in many chunks; compressible text within.
    let random =
        "(SELECT string_agg(md5(random()::text || n), '') FROM generate_series(1, 100000) n)";
    database.sql(&format!(
        "INSERT INTO events VALUES (1, {random}, '{{}}'), (2, repeat('ab', 1900000), '{{}}'),
           (3, '', jsonb_build_object('long', (SELECT string_agg(md5(n::text), '') FROM generate_series(1, 1000) n)))"
    ));
    database.sql("UPDATE events SET id = id + 10; INSERT INTO events VALUES (4, 'end', NULL)");
    await_all_confirmed(&database);
    let frames = broker.messages();
    let lengths: Vec<usize> = frames.iter().map(|frame| frame.body.len()).collect();
    assert_eq!(lengths, [3_200_000, 3_800_000, 0, 3]);
    for (id, frame) in [(11, &frames[0]), (12, &frames[1])] {
        let body = database.sql(&format!("SELECT body FROM events WHERE id = {id}"));
        assert!(frame.body == body.as_bytes(), "the body of {id} has changed");
    }
    let long = database.sql("SELECT meta->>'long' FROM events WHERE id = 13");
    assert_eq!(header(&frames[2], "long"), long);
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn a_copy_of_many_rows_is_recognised_row_by_row() {
    // Far more than are sent between a thaw and the next freeze, however slow the machine is to freeze.
    const ROWS: u64 = 100_000;
    let (database, broker) = (database(), ScriptedBroker::start());
    database.sql("CREATE TABLE events (id int, body text)");
    // A relay that is held sees the end of its connection when it next writes to it.
    let builder = custom(&database, &broker, r#"["public.events"]"#);
    let mut walpost = ready(&builder.set("replication.status_interval", "1s"));
    let file = database.server().folder().path().join(format!("{}.rows", database.name()));
    database.sql(&format!(
        "COPY (SELECT n, jsonb_build_object('n', n) FROM generate_series(1, {ROWS}) n) TO '{}'",
        file.display()
    ));
    broker.freeze();
    database.sql(&format!("COPY events FROM '{}'", file.display()));
    fs::remove_file(file).unwrap();
    // Many rows share an LSN. Each time the connection ends in the middle of them.
    for round in 1..=3 {
        until(LONG, "the window is full", || {
            walpost.metric("walpost_in_flight_messages") == 1024.0
        });
        let slot = format!("FROM pg_replication_slots WHERE slot_name = '{}'", database.name());
        let walsender = database.sql(&format!("SELECT active_pid {slot}"));
        let end =
            format!("SELECT pg_terminate_backend(active_pid) {slot} AND active_pid = {walsender}");
        assert_eq!(database.sql(&end), "t");
        let series = "walpost_connects_total{peer=\"postgresql\"}";
        until(LONG, "it is back", || {
            // Where its socket is full it wants to tell its client, who does not read, until it is told again.
            database.sql(&end);
            walpost.metric(series) == f64::from(round) + 1.0
        });
        let sent = broker.sends();
        broker.thaw();
        broker.wait_for_sends(sent + 2000, LONG);
        broker.freeze();
    }
    broker.thaw();
    await_all_confirmed(&database);
    assert_eq!(numbers(&broker.messages()), (1..=ROWS).collect::<Vec<u64>>());
    assert!(skipped(&walpost, "known") > 2000.0, "the connection never ended in the middle");
    assert_eq!(broker.connections(), 1);
    assert!(walpost.terminate(LONG).success());
}

/// Waits for the end and gives the last line.
#[track_caller]
fn last_word(walpost: Walpost) -> String {
    let finished = walpost.finish(LONG);
    assert_eq!(finished.status.code(), Some(3), "{}", finished.stderr);
    finished.stderr.lines().last().unwrap().to_owned()
}

#[test]
fn a_missing_column_stops_the_relay() {
    let (database, broker) = (database(), ScriptedBroker::start());
    database.sql("CREATE TABLE events (id int, body text)");
    let builder = custom(&database, &broker, r#"["public.events"]"#);
    let renamed = builder.clone().set("outbox.columns", r#"{"id": "id", "body": "boddy"}"#);
    let walpost = renamed.start();
    walpost.wait_for_log("created slot", LONG);
    database.sql(r#"INSERT INTO events VALUES (1, '{"n": 1}')"#);
    let line = last_word(walpost);
    assert!(line.starts_with("error: table public.events does not fit"), "{line}");
    assert!(line.contains("no column 'boddy' (outbox.columns.body)"), "{line}");
    assert_eq!(broker.sends(), 0);

    // The same while it runs.
    let walpost = ready(&builder);
    await_all_confirmed(&database);
    let sql = r#"BEGIN; ALTER TABLE events RENAME body TO boddy;
                 INSERT INTO events VALUES (2, '{"n": 2}'); COMMIT"#;
    database.sql(sql);
    let line = last_word(walpost);
    assert!(line.starts_with("error: table public.events does not fit"), "{line}");
    assert!(line.contains("no column 'body'"), "{line}");
    assert_eq!(numbers(&broker.messages()), [1]);

    // Its transaction was not confirmed: the slot sends it again. (The position alone would not
    // show that: other databases write WAL between its records.)
    let mut walpost = ready(&renamed);
    await_all_confirmed(&database);
    assert_eq!(numbers(&broker.messages()), [1, 2]);
    assert!(walpost.terminate(LONG).success());
}
