//! Rows that can't be a message are dead letters, and hold up nothing; what else can't be read stops the relay with a
//! clear word, and once it is mended everything comes.

use serde_json::Value;
use walpost_testkit::postgres::Database;
use walpost_testkit::walpost::{Builder, Finished};
use walpost_testkit::{ScriptedBroker, until};

use crate::refusals::last_word;
use crate::rig::LONG;
use crate::scene::{await_all_confirmed, database, numbers, relay};

const TABLE: &str = "CREATE TABLE events (id text, dest text, headers jsonb, body text)";

fn events(database: &Database<'_>, broker: &ScriptedBroker) -> Builder {
    relay(database, &broker.address())
        .set("outbox.layout", "custom")
        .set("outbox.tables", r#"["public.events"]"#)
        .set(
            "outbox.columns",
            r#"{"id": "id", "destination": "dest", "headers": "headers", "body": "body"}"#,
        )
        .set("outbox.destination", "{destination}")
        .set("broker.max_frame_size", "2KiB")
}

/// `walpost undelivered` with these arguments.
fn undelivered(walpost: &Builder, arguments: &[&str]) -> Finished {
    let arguments = ["undelivered"].iter().chain(arguments).copied();
    walpost.clone().arguments(arguments).output(LONG)
}

/// What becomes of a dead letter that is retried.
enum Retried {
    /// It dies again unless the settings are mended; then it comes.
    Comes,
    /// It comes at once, without its own headers.
    WithoutHeaders,
    /// That is refused with these words; published anew it comes.
    Refused(&'static str),
}

/// Between two good rows the row `bad` (its columns as SQL) can't be a message, for `reason`; with
/// the configuration `mended` it can.
#[track_caller]
fn is_unfit(bad: &str, reason: &str, body: Option<&str>, mended: (&str, &str), retried: Retried) {
    let (database, broker) = (database(), ScriptedBroker::start());
    database.sql(TABLE);
    let settings = events(&database, &broker);
    let mut walpost = settings.start();
    walpost.await_ready(LONG);
    database.sql(&format!(
        r#"DO $$ BEGIN
             INSERT INTO events VALUES ('one', '/queue/q', '{{}}', '{{"n": 1}}'); COMMIT;
             INSERT INTO events VALUES ('the-bad-one', {bad}); COMMIT;
             INSERT INTO events VALUES ('three', '/queue/q', '{{}}', '{{"n": 3}}'); COMMIT;
           END $$"#
    ));
    await_all_confirmed(&database);
    assert_eq!(numbers(&broker.messages()), [1, 3]);
    let line = walpost.wait_for_log("the-bad-one", LONG);
    assert!(line.contains("WARN") && line.contains("public.events"), "{line}");
    assert!(line.contains(reason) && line.contains("LSN "), "{line}");
    assert_eq!(walpost.metric("walpost_dead_letters_total"), 1.0);
    let dead = "walpost_undelivered_messages{state=\"dead\"}";
    until(LONG, "it is counted", || walpost.metrics().get(dead) == Some(&1.0));
    assert_eq!(walpost.status()["undelivered"]["dead"], 1);

    let letter: Value =
        serde_json::from_str(&undelivered(&settings, &["list", "--json"]).stdout).unwrap();
    assert_eq!((&letter["state"], &letter["message_id"]), (&"dead".into(), &"the-bad-one".into()));
    assert!(letter["error"].as_str().unwrap().contains(reason), "{letter}");
    let id = letter["id"].to_string();
    let shown = undelivered(&settings, &["show", &id, "--body"]);
    match body {
        Some(body) => assert_eq!(database.sql(&format!("SELECT {body}")), shown.stdout),
        None => assert!(shown.stderr.contains("has no body"), "{shown:?}"),
    }

    // It comes no second time, and retried as it is it can be sent no better.
    assert!(walpost.terminate(LONG).success());
    let mut walpost = settings.start();
    walpost.await_ready(LONG);
    let settings = settings.set(mended.0, mended.1);
    let retry = undelivered(&settings, &["retry", &id]);
    let state = || database.sql("SELECT state FROM walpost.undelivered");
    match retried {
        Retried::Refused(words) => {
            assert!(!retry.status.success() && retry.stderr.contains(words), "{retry:?}");
        }
        Retried::Comes => {
            walpost.wait_for_log("can't be sent: ", LONG);
            until(LONG, "it is dead again", || state() == "dead");
        }
        Retried::WithoutHeaders => {
            until(LONG, "it is delivered", || state().is_empty());
            assert_eq!(broker.messages()[2].header("persistent"), Some("true"));
        }
    }
    assert!(walpost.terminate(LONG).success());
    let comes = !matches!(retried, Retried::WithoutHeaders);
    assert_eq!(broker.messages().len(), if comes { 2 } else { 3 });

    let mut walpost = settings.start();
    walpost.await_ready(LONG);
    match retried {
        Retried::Comes => {
            assert!(undelivered(&settings, &["retry", &id]).status.success());
            until(LONG, "it is delivered", || state().is_empty());
        }
        Retried::Refused(_) => {
            database.sql(
                "WITH gone AS (DELETE FROM events WHERE id = 'the-bad-one' RETURNING *)
                 INSERT INTO events SELECT * FROM gone",
            );
            await_all_confirmed(&database);
            assert_eq!(state(), "dead");
            assert!(undelivered(&settings, &["discard", &id]).status.success());
        }
        Retried::WithoutHeaders => await_all_confirmed(&database),
    }
    assert_eq!(numbers(&broker.messages()), [1, 3, 2]);
    assert_eq!(broker.messages()[2].header("msg-id"), Some("the-bad-one"));
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn a_row_without_a_destination() {
    let mended = ("outbox.destination", "/queue/q");
    let refused = Retried::Refused("its destination could not be made out");
    let body = r#"'{"n": 2}'"#;
    is_unfit(
        &format!("NULL, '{{}}', {body}"),
        "it has no destination",
        Some(body),
        mended,
        refused,
    );
}

#[test]
fn a_row_larger_than_a_frame() {
    let body = r#"'{"n": 2, "pad": "' || repeat('x', 3000) || '"}'"#;
    is_unfit(
        &format!("'/queue/q', '{{}}', {body}"),
        "larger than broker.max_frame_size (2048 bytes)",
        Some(body),
        ("broker.max_frame_size", "4KiB"),
        Retried::Comes,
    );
}

#[test]
fn a_row_too_long_to_be_read() {
    let bad = r#"'/queue/q', '{}', '{"n": 2, "pad": "' || repeat('x', 3000000) || '"}'"#;
    is_unfit(
        bad,
        "longer than what is read of a row",
        None,
        ("broker.max_frame_size", "4MiB"),
        Retried::Refused("can't be sent"),
    );
}

#[test]
fn a_header_without_a_name() {
    let body = r#"'{"n": 2}'"#;
    is_unfit(
        &format!(r#"'/queue/q', '{{"good": 1, "": 1}}', {body}"#),
        "its header '' can't be sent",
        Some(body),
        ("broker.kind", "auto"),
        Retried::WithoutHeaders,
    );
}

/// Rows that wait before the first start, the second without a destination.
#[test]
fn a_row_that_waits_in_the_table() {
    let (database, broker) = (database(), ScriptedBroker::start());
    database.sql(&format!(
        r#"{TABLE};
           INSERT INTO events SELECT n::text, CASE WHEN n <> 2 THEN '/queue/q' END, '{{}}', jsonb_build_object('n', n)
           FROM generate_series(1, 3) n"#
    ));
    let settings = events(&database, &broker).set("outbox.backfill", "true");
    let mut walpost = settings.start();
    walpost.await_ready(LONG);
    await_all_confirmed(&database);
    assert_eq!(numbers(&broker.messages()), [1, 3]);
    let line = walpost.wait_for_log("the row '2' in public.events cannot be a message", LONG);
    assert!(line.contains("(a row that waits in the table)"), "{line}");
    let kept = "SELECT state, message_id, convert_from(body, 'UTF8') FROM walpost.undelivered";
    assert_eq!(database.sql(kept), r#"dead|2|{"n": 2}"#);
    assert_eq!(walpost.metric("walpost_dead_letters_total"), 1.0);
    assert!(walpost.terminate(LONG).success());
    // It waits no more.
    let mut walpost = settings.start();
    walpost.await_ready(LONG);
    await_all_confirmed(&database);
    assert_eq!(database.sql(kept), r#"dead|2|{"n": 2}"#);
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn a_header_that_stomp_1_0_cannot_carry() {
    let (database, broker) = (database(), ScriptedBroker::builder().version("1.0").start());
    let settings = relay(&database, &broker.address());
    let mut walpost = settings.start();
    walpost.await_ready(LONG);
    for (n, header) in [(1, "x"), (2, r"x\ny"), (3, "x")] {
        database.sql(&format!(
            r#"SELECT walpost.publish('/queue/q', '{{"n": {n}}}', headers => '{{"h": "{header}"}}')"#
        ));
    }
    let line = last_word(walpost);
    assert!(line.contains("header 'h'") && line.contains("STOMP 1.0"), "{line}");
    assert_eq!(numbers(&broker.messages()), [1]);

    until(LONG, "the slot is free", || {
        let active = "SELECT active FROM pg_replication_slots WHERE slot_name =";
        database.sql(&format!("{active} '{}'", database.name())) == "f"
    });
    database.sql(&format!(
        r#"UPDATE walpost.outbox SET headers = '{{}}' WHERE body->>'n' = '2'; SELECT pg_drop_replication_slot('{}')"#,
        database.name()
    ));
    let mut walpost = settings.arguments(["run", "--recover"]).start();
    walpost.await_ready(LONG);
    await_all_confirmed(&database);
    // What the certified snapshot does not cover comes again.
    let mut arrived = numbers(&broker.messages());
    arrived.dedup();
    assert_eq!(arrived, [1, 2, 3]);
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn logical_messages_that_are_none_of_ours() {
    let (database, broker) = (database(), ScriptedBroker::start());
    database.sql(TABLE);
    let mut walpost = events(&database, &broker).start();
    walpost.await_ready(LONG);
    let row = |n: u32| {
        format!(r#"INSERT INTO events VALUES ('{n}', '/queue/q', '{{}}', '{{"n": {n}}}')"#)
    };
    // Foreign ones around and inside, the last longer than any row may be.
    database.sql(&format!(
        "SELECT pg_logical_emit_message(true, 'other', 'x'); SELECT pg_logical_emit_message(false, 'walpost', 'x');
         BEGIN; SELECT pg_logical_emit_message(true, 'walpostx', 'x'); {}; SELECT pg_logical_emit_message(true, 'walpos', repeat('x', 3000000)); COMMIT",
        row(1)
    ));
    await_all_confirmed(&database);
    assert_eq!(numbers(&broker.messages()), [1]);
    let skipped =
        |reason| walpost.metric(&format!("walpost_rows_skipped_total{{reason=\"{reason}\"}}"));
    assert_eq!(skipped("other_prefix"), 3.0);
    assert_eq!(skipped("non_transactional"), 1.0);

    database.sql(&format!("BEGIN; {}; COMMIT", row(2)));
    await_all_confirmed(&database);
    assert_eq!(numbers(&broker.messages()), [1, 2]);
    assert!(walpost.terminate(LONG).success());

    let mut walpost = events(&database, &broker).set("outbox.logical_messages", "").start();
    walpost.await_ready(LONG);
    database.sql("SELECT pg_logical_emit_message(true, 'walpost', 'body')");
    database.sql(&row(3));
    await_all_confirmed(&database);
    assert_eq!(numbers(&broker.messages()), [1, 2, 3]);
    assert!(walpost.terminate(LONG).success());
}
