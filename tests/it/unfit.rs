//! Rows that can't be a message are dead letters, and hold up nothing; what else can't be read stops the relay with a
//! clear word, and once it is mended everything comes.

use serde_json::Value;
use walpost_testkit::postgres::Database;
use walpost_testkit::walpost::{Builder, Finished};
use walpost_testkit::{ScriptedBroker, until};

use crate::refusals::last_word;
use crate::rig::LONG;
use crate::scene::{await_all_confirmed, confirmed, database, numbers, relay};

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

/// The LSN in such a line.
#[track_caller]
fn lsn_in(line: &str) -> &str {
    let rest = line.split_once("LSN ").unwrap_or_else(|| panic!("no LSN: {line}")).1;
    rest.split([')', ' ', ',', ';']).next().unwrap()
}

#[track_caller]
fn assert_not_confirmed(database: &Database<'_>, line: &str) {
    let (slot, lsn) = (confirmed(database), lsn_in(line));
    let before = database.sql(&format!("SELECT '{slot}'::pg_lsn <= '{lsn}'"));
    assert_eq!(before, "t", "{slot} is confirmed, past {lsn}");
}

/// `walpost undelivered` with these arguments.
fn undelivered(walpost: &Builder, arguments: &[&str]) -> Finished {
    let arguments = ["undelivered"].iter().chain(arguments).copied();
    walpost.clone().arguments(arguments).output(LONG)
}

/// What becomes of a dead letter that is retried under the mended settings.
enum Retried {
    /// It comes.
    Comes,
    /// That is refused with these words; published anew it comes.
    Refused(&'static str),
    /// It is dead again; published anew it comes.
    DiesAgain,
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
    if let Retried::Refused(words) = retried {
        assert!(!retry.status.success() && retry.stderr.contains(words), "{retry:?}");
    } else {
        walpost.wait_for_log("can't be sent: ", LONG);
        until(LONG, "it is dead again", || state() == "dead");
    }
    assert!(walpost.terminate(LONG).success());
    assert_eq!(numbers(&broker.messages()), [1, 3]);

    let mut walpost = settings.start();
    walpost.await_ready(LONG);
    if let Retried::Comes = retried {
        assert!(undelivered(&settings, &["retry", &id]).status.success());
        until(LONG, "it is delivered", || state().is_empty());
    } else {
        database.sql(
            "WITH gone AS (DELETE FROM events WHERE id = 'the-bad-one' RETURNING *) INSERT INTO events SELECT * FROM gone",
        );
        await_all_confirmed(&database);
        assert_eq!(state(), "dead");
        assert!(undelivered(&settings, &["discard", &id]).status.success());
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
    let without_headers = r#"{"id": "id", "destination": "dest", "body": "body"}"#;
    let body = r#"'{"n": 2}'"#;
    is_unfit(
        &format!(r#"'/queue/q', '{{"": 1}}', {body}"#),
        "its header '' can't be sent",
        Some(body),
        ("outbox.columns", without_headers),
        Retried::DiesAgain,
    );
}

#[test]
fn an_emitted_message_with_our_prefix_and_none_with_another() {
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
    database.sql("SELECT pg_logical_emit_message(true, 'walpost', 'body')");
    database.sql(&row(3));
    let line = last_word(walpost);
    assert!(line.contains("pg_logical_emit_message('walpost')"), "{line}");
    assert!(line.contains("set outbox.logical_messages to \"\""), "{line}");
    assert_not_confirmed(&database, &line);
    assert_eq!(numbers(&broker.messages()), [1, 2]);

    let mut walpost = events(&database, &broker).set("outbox.logical_messages", "").start();
    walpost.await_ready(LONG);
    await_all_confirmed(&database);
    assert_eq!(numbers(&broker.messages()), [1, 2, 3]);
    assert!(walpost.terminate(LONG).success());
}
