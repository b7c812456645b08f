//! What can't be sent or is refused stops the relay with a clear word; nothing past it is confirmed, and once it is mended
//! everything comes.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use walpost_testkit::postgres::Database;
use walpost_testkit::rabbitmq::Vhost;
use walpost_testkit::scripted::{Reply, Verdict};
use walpost_testkit::stomp::Frame;
use walpost_testkit::walpost::{Builder, Finished};
use walpost_testkit::{Consumer, ScriptedBroker, Walpost, until};

use crate::rig::{LONG, Rig};
use crate::scene::{
    await_all_confirmed, confirmed, database, number, numbers, publish_each, relay,
};

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
    let walpost =
        rig.walpost().set("broker.reconnect.initial", "10ms").set("retry.first_wait", "50ms");
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
fn a_full_queue_is_waited_for_and_holds_up_nobody() {
    let rig = Rig::new();
    let limits = serde_json::json!({"x-max-length": 2, "x-overflow": "reject-publish"});
    rig.vhost.declare_queue_with("full", limits);
    rig.vhost.declare_queue("other.v1");
    let mut walpost =
        rig.walpost().set("broker.reconnect.max", "200ms").set("retry.first_wait", "100ms").start();
    walpost.await_ready(LONG);
    for n in 1..=10 {
        rig.database.sql(&format!(
            r#"SELECT walpost.publish('/amq/queue/full', '{{"n": {n}}}', version => NULL)"#
        ));
    }
    publish_each(&rig.database, "/queue/other", 1, 300);
    // RabbitMQ closes without a word: nobody's end, however often.
    let closed = "walpost_rejections_total{reason=\"closed\"}";
    until(LONG, "five closes", || walpost.metric(closed) >= 5.0);
    walpost.wait_for_log("the broker refuses what goes to /amq/queue/full", LONG);
    until(LONG, "the others have come", || rig.vhost.depth("other.v1") >= 300);
    let refused = walpost.status()["broker"]["refused"].clone();
    assert_eq!(refused[0]["destination"], "/amq/queue/full", "{refused}");
    let resent = walpost.metric("walpost_messages_resent_total");
    let before = walpost.metric(closed);
    until(LONG, "more closes", || walpost.metric(closed) >= before + 10.0);
    let closes = walpost.metric(closed) - before;
    let more = walpost.metric("walpost_messages_resent_total") - resent;
    // Only the head is tried, and nothing else is lost with it.
    assert!(more <= closes + 2.0, "{more} sent again in {closes} closes");
    assert!(walpost.ended().is_none());

    let consumer = Consumer::of_queue(&rig.vhost, "full");
    consumer.wait_until(LONG, "each has come", |state| {
        let numbers = state.messages.iter().filter_map(|message| number(&message.body));
        numbers.collect::<BTreeSet<_>>().len() == 10
    });
    await_all_confirmed(&rig.database);
    walpost.wait_for_log("/amq/queue/full takes messages again", LONG);
    until(LONG, "nothing is set aside", || {
        walpost.status()["broker"]["refused"].as_array().is_some_and(Vec::is_empty)
    });
    let mut seen = BTreeSet::new();
    let arrived = consumer.messages();
    let numbers = arrived.iter().filter_map(|message| number(&message.body));
    let firsts: Vec<u64> = numbers.filter(|n| seen.insert(*n)).collect();
    assert_eq!(firsts, (1..=10).collect::<Vec<u64>>(), "in order");
    assert!(walpost.terminate(LONG).success());
}

/// The broker refuses the first `times` messages to `/queue/bad.v1` in `how`; the others flow, and all
/// arrive in the order of their commits.
#[track_caller]
fn is_found(times: u32, how: fn(&Frame, &mut Reply)) {
    let left = Mutex::new(times);
    let stored: Arc<Mutex<Vec<(String, u64)>>> = Arc::default();
    let store = Arc::clone(&stored);
    let broker = ScriptedBroker::builder()
        .on_frame(move |frame, reply| {
            let Some(n) = number(&frame.body) else { return Verdict::Default };
            let destination = frame.header("destination").unwrap_or_default().to_owned();
            let mut left = left.lock().unwrap();
            if destination == "/queue/bad.v1" && *left > 0 {
                *left -= 1;
                how(frame, reply);
                reply.close();
                return Verdict::Taken;
            }
            store.lock().unwrap().push((destination, n));
            Verdict::Default
        })
        .start();
    let database = database();
    let walpost = relay(&database, &broker.address())
        .set("broker.reconnect.initial", "10ms")
        .set("retry.first_wait", "50ms");
    let mut walpost = walpost.start();
    walpost.await_ready(LONG);
    database.sql(
        "INSERT INTO walpost.outbox (destination, body)
         SELECT '/queue/' || (ARRAY['good', 'bad', 'better'])[1 + n % 3], jsonb_build_object('n', n)
         FROM generate_series(1, 600) n",
    );
    await_all_confirmed(&database);
    let stored = stored.lock().unwrap();
    for (index, destination) in ["good", "bad", "better"].into_iter().enumerate() {
        let name = format!("/queue/{destination}.v1");
        let mut seen = BTreeSet::new();
        let its = stored.iter().filter(|(of, _)| *of == name).map(|(_, n)| *n);
        let firsts: Vec<u64> = its.filter(|n| seen.insert(*n)).collect();
        let expected: Vec<u64> = (1..=600).filter(|n| n % 3 == index as u64).collect();
        assert_eq!(firsts, expected, "{name}");
    }
    // What was under way comes again once, twice where the broker says nothing.
    assert!(stored.len() < 600 + 2 * 600, "{} stored", stored.len());
    walpost.wait_for_log("/queue/bad.v1 takes messages again", LONG);
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn a_destination_that_is_refused_by_name() {
    is_found(2, |frame, reply| reply.error("no", "not now", frame.header("receipt")));
}

#[test]
fn a_destination_that_is_refused_and_not_named() {
    is_found(2, |_, reply| reply.error("no", "not now", None));
}

#[test]
fn a_destination_that_is_refused_without_a_word() {
    is_found(6, |_, _| {});
}
