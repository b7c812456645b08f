//! What can't be sent or is refused stops the relay with a clear word; nothing past it is confirmed, and once it is mended
//! everything comes.

use std::collections::BTreeSet;

use walpost_testkit::postgres::Database;
use walpost_testkit::rabbitmq::Vhost;
use walpost_testkit::walpost::{Builder, Finished};
use walpost_testkit::{Consumer, ScriptedBroker, Walpost};

use crate::rig::{LONG, Rig};
use crate::scene::{await_all_confirmed, confirmed, database, number, numbers, relay};

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

/// Waits for the end and gives the one line that says why.
#[track_caller]
fn last_word(walpost: Walpost) -> String {
    let Finished { status, stderr, .. } = walpost.finish(LONG);
    assert_eq!(status.code(), Some(3), "{stderr}");
    let errors: Vec<_> = stderr.lines().filter_map(|line| line.strip_prefix("error: ")).collect();
    assert_eq!(errors.len(), 1, "{stderr}");
    errors[0].to_owned()
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

/// Between two good rows the row `bad` (its columns as SQL) can't be a message, for `reason`; with
/// the configuration `mended` it can.
#[track_caller]
fn is_unfit(bad: &str, reason: &str, mended: (&str, &str)) {
    let (database, broker) = (database(), ScriptedBroker::start());
    database.sql(TABLE);
    let mut walpost = events(&database, &broker).start();
    walpost.await_ready(LONG);
    database.sql(&format!(
        r#"DO $$ BEGIN
             INSERT INTO events VALUES ('one', '/queue/q', '{{}}', '{{"n": 1}}'); COMMIT;
             INSERT INTO events VALUES ('the-bad-one', {bad}); COMMIT;
             INSERT INTO events VALUES ('three', '/queue/q', '{{}}', '{{"n": 3}}'); COMMIT;
           END $$"#
    ));
    let line = last_word(walpost);
    assert!(line.contains("the-bad-one") && line.contains("public.events"), "{line}");
    assert!(line.contains(reason), "{line}");
    assert_not_confirmed(&database, &line);
    assert_eq!(numbers(&broker.messages()), [1]);

    // The same again: it stops at the same row, and sends nothing twice.
    let again = last_word(events(&database, &broker).start());
    assert_eq!(again, line);
    assert_eq!(numbers(&broker.messages()), [1]);

    let mut walpost = events(&database, &broker).set(mended.0, mended.1).start();
    walpost.await_ready(LONG);
    await_all_confirmed(&database);
    assert_eq!(numbers(&broker.messages()), [1, 2, 3]);
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn a_row_without_a_destination() {
    let mended = ("outbox.destination", "/queue/q");
    is_unfit(r#"NULL, '{}', '{"n": 2}'"#, "it has no destination", mended);
}

#[test]
fn a_row_larger_than_a_frame() {
    let bad = r#"'/queue/q', '{}', '{"n": 2, "pad": "' || repeat('x', 3000) || '"}'"#;
    is_unfit(
        bad,
        "larger than broker.max_frame_size (2048 bytes)",
        ("broker.max_frame_size", "4KiB"),
    );
}

#[test]
fn a_row_too_long_to_be_read() {
    let bad = r#"'/queue/q', '{}', '{"n": 2, "pad": "' || repeat('x', 3000000) || '"}'"#;
    is_unfit(bad, "longer than what is read of a row", ("broker.max_frame_size", "4MiB"));
}

#[test]
fn a_header_without_a_name() {
    let without_headers = r#"{"id": "id", "destination": "dest", "body": "body"}"#;
    let bad = r#"'/queue/q', '{"": 1}', '{"n": 2}'"#;
    is_unfit(bad, "its header '' can't be sent", ("outbox.columns", without_headers));
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

/// RabbitMQ refuses what goes to `destination` and says `words`; then `mend` or another row's
/// template lets it through.
#[track_caller]
fn is_refused(destination: &str, words: &str, mended: (&str, &str), mend: impl FnOnce(&Vhost<'_>)) {
    let rig = Rig::new();
    rig.vhost.declare_queue("q");
    rig.vhost.declare_queue("mended");
    let walpost = rig.walpost().set("broker.reconnect.initial", "10ms");
    let mut running = walpost.start();
    running.await_ready(LONG);
    let publish = |n: u32, to: &str| {
        rig.database
            .sql(&format!(r#"SELECT walpost.publish('{to}', '{{"n": {n}}}', version => NULL)"#))
    };
    for n in 1..=20 {
        publish(n, "/queue/q");
    }
    await_all_confirmed(&rig.database);
    let id = publish(21, destination);
    publish(22, "/queue/q");
    let line = last_word(running);
    assert!(line.contains(&id) && line.contains(destination), "{id}: {line}");
    assert!(line.contains("3 times") && line.contains(words), "{line}");
    assert_not_confirmed(&rig.database, &line);
    let consumer = Consumer::of_queue(&rig.vhost, "q");
    let firsts = consumer.wait_for(20, LONG);
    let firsts: Vec<_> = firsts.iter().filter_map(|message| number(&message.body)).collect();
    assert_eq!(firsts[..20], (1..=20).collect::<Vec<u64>>());

    mend(&rig.vhost);
    let mut running = walpost.set(mended.0, mended.1).start();
    running.await_ready(LONG);
    let second = Consumer::of_queue(&rig.vhost, "mended");
    let message = second.wait_for(1, LONG).remove(0);
    assert_eq!((number(&message.body), message.header("msg-id")), (Some(21), Some(id.as_str())));
    await_all_confirmed(&rig.database);
    assert!(running.terminate(LONG).success());
}

#[test]
fn an_exchange_that_is_missing() {
    let nothing = ("broker.kind", "auto");
    is_refused("/exchange/missing/x", "not_found", nothing, |vhost| {
        vhost.declare_exchange("missing", "direct");
        vhost.bind("missing", "mended", "x");
    });
}

#[test]
fn a_destination_of_no_known_kind() {
    let elsewhere = ("outbox.destination", "/queue/mended");
    is_refused("/bogus/x", "Unknown destination", elsewhere, |_| {});
}

#[test]
fn a_wrong_login() {
    let rig = Rig::new();
    let line = last_word(rig.walpost().set("broker.passcode", "n0t-the-passcode").start());
    assert!(line.contains("login refused") && line.contains("broker.passcode"), "{line}");
    assert!(!line.contains("n0t"), "{line}");
}

#[test]
fn a_full_queue_is_waited_for() {
    let rig = Rig::new();
    let limits = serde_json::json!({"x-max-length": 2, "x-overflow": "reject-publish"});
    rig.vhost.declare_queue_with("full", limits);
    let mut walpost = rig.walpost().set("broker.reconnect.max", "200ms").start();
    walpost.await_ready(LONG);
    for n in 1..=10 {
        rig.database.sql(&format!(
            r#"SELECT walpost.publish('/amq/queue/full', '{{"n": {n}}}', version => NULL)"#
        ));
    }
    for n in 1..=300 {
        rig.database.sql(&format!("SELECT walpost.publish('/queue/other', '{n}')"));
    }
    // RabbitMQ closes without a word: nobody's refusal, however often; others are not sent each time.
    let closed = "walpost_rejections_total{reason=\"closed\"}";
    walpost_testkit::until(LONG, "five closes", || walpost.metric(closed) >= 5.0);
    assert!(walpost.ended().is_none());
    walpost.wait_for_log("is its queue full", LONG);
    let resent = walpost.metric("walpost_messages_resent_total");
    walpost_testkit::until(LONG, "more closes", || walpost.metric(closed) >= 20.0);
    let more = walpost.metric("walpost_messages_resent_total") - resent;
    assert!(more <= 40.0, "{more} sent again in some twenty closes");
    let consumer = Consumer::of_queue(&rig.vhost, "full");
    consumer.wait_until(LONG, "each has come", |state| {
        let numbers = state.messages.iter().filter_map(|message| number(&message.body));
        numbers.collect::<BTreeSet<_>>().len() == 10
    });
    await_all_confirmed(&rig.database);
    assert!(walpost.terminate(LONG).success());
}
