//! What the broker refuses: it is waited for, kept, given up, or ends the relay, as the settings say; the others flow.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use walpost_testkit::rabbitmq::Vhost;
use walpost_testkit::scripted::{Reply, Verdict};
use walpost_testkit::stomp::Frame;
use walpost_testkit::walpost::{Builder, Finished};
use walpost_testkit::{Consumer, ScriptedBroker, Walpost, until};

use crate::rig::{LONG, Rig};
use crate::scene::{await_all_confirmed, database, number, publish_each, relay};

/// Waits for the end and gives the one line that says why.
#[track_caller]
pub fn last_word(walpost: Walpost) -> String {
    let Finished { status, stderr, .. } = walpost.finish(LONG);
    assert_eq!(status.code(), Some(3), "{stderr}");
    let errors: Vec<_> = stderr.lines().filter_map(|line| line.strip_prefix("error: ")).collect();
    assert_eq!(errors.len(), 1, "{stderr}");
    errors[0].to_owned()
}

/// A walpost whose destination `destination` RabbitMQ refuses with `words`, with 20 messages before it and one behind; the id of
/// what is refused.
fn refused(rig: &Rig, walpost: &Builder, destination: &str) -> (Walpost, String) {
    rig.vhost.declare_queue("q");
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
    (running, id)
}

fn patient(rig: &Rig) -> Builder {
    rig.walpost()
        .set("broker.reconnect.initial", "10ms")
        .set("retry.first_wait", "50ms")
        .set("retry.pause", "200ms")
        .set("retry.wait", "200ms")
}

/// What RabbitMQ refuses at `destination`, saying `words`, ends walpost where it is told so; mended by `mend`, or by a
/// setting, it comes.
#[track_caller]
fn halts(destination: &str, words: &str, mended: (&str, &str), mend: impl FnOnce(&Vhost<'_>)) {
    let rig = Rig::new();
    rig.vhost.declare_queue("mended");
    let walpost = patient(&rig).set("retry.on_exhausted", "halt").set("retry.max_attempts", "3");
    let (running, id) = refused(&rig, &walpost, destination);
    let line = last_word(running);
    assert!(line.contains(destination), "{line}");
    assert!(line.contains("3 times") && line.contains(words), "{line}");
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
fn an_exchange_that_is_missing_ends_walpost_where_it_is_told_so() {
    let nothing = ("broker.kind", "auto");
    halts("/exchange/missing/x", "not_found", nothing, |vhost| {
        vhost.declare_exchange("missing", "direct");
        vhost.bind("missing", "mended", "x");
    });
}

#[test]
fn a_destination_of_no_known_kind_ends_walpost_where_it_is_told_so() {
    let elsewhere = ("outbox.destination", "/queue/mended");
    halts("/bogus/x", "Unknown destination", elsewhere, |_| {});
}

fn kept(rig: &Rig, columns: &str) -> String {
    rig.database.sql(&format!("SELECT {columns} FROM walpost.undelivered ORDER BY id"))
}

#[test]
fn an_exchange_that_is_missing_is_parked_until_it_is_there() {
    let rig = Rig::new();
    let (mut running, id) = refused(&rig, &patient(&rig), "/exchange/missing/x");
    running.wait_for_log("/exchange/missing/x is parked", LONG);
    // The others flow, and what is kept holds up nothing.
    until(LONG, "the others have come", || rig.vhost.depth("q") == 21);
    await_all_confirmed(&rig.database);
    let columns =
        "state, message_id, destination, convert_from(body, 'UTF8'), error LIKE 'not_found%'";
    let row = format!(r#"retrying|{id}|/exchange/missing/x|{{"n": 21}}|t"#);
    assert_eq!(kept(&rig, columns), row);
    let shown = || running.status()["broker"]["refused"][0].clone();
    until(LONG, "it is tried again", || shown()["attempts"].as_u64() > Some(4));
    let shown = shown();
    assert_eq!((&shown["kept"], &shown["condemned"]), (&1.into(), &false.into()), "{shown}");
    until(LONG, "it is counted", || running.status()["undelivered"]["retrying"] == 1);
    assert_eq!(running.metric("walpost_parked_destinations"), 1.0);
    assert_eq!(running.metric("walpost_undelivered_messages{state=\"retrying\"}"), 1.0);

    rig.vhost.declare_queue("mended");
    rig.vhost.declare_exchange("missing", "direct");
    rig.vhost.bind("missing", "mended", "x");
    let message = Consumer::of_queue(&rig.vhost, "mended").wait_for(1, LONG).remove(0);
    assert_eq!((number(&message.body), message.header("msg-id")), (Some(21), Some(id.as_str())));
    running.wait_for_log("/exchange/missing/x takes messages again", LONG);
    assert_eq!(kept(&rig, "id"), "");
    until(LONG, "nothing is parked", || running.metric("walpost_parked_destinations") == 0.0);
    assert_eq!(running.metric("walpost_dead_letters_total"), 0.0);
    assert!(running.terminate(LONG).success());
}

#[test]
fn a_destination_of_no_known_kind_is_given_up_and_what_follows_dies_too() {
    let rig = Rig::new();
    let walpost = patient(&rig).set("retry.max_attempts", "4");
    let (mut running, id) = refused(&rig, &walpost, "/bogus/x");
    running.wait_for_log("/bogus/x is given up", LONG);
    until(LONG, "it is dead", || kept(&rig, "state") == "dead");
    rig.database.sql(r#"SELECT walpost.publish('/bogus/x', '{"n": 23}', version => NULL)"#);
    until(LONG, "the next is dead, too", || kept(&rig, "state") == "dead\ndead");
    await_all_confirmed(&rig.database);
    let ids = kept(&rig, "message_id");
    assert_eq!(ids.lines().next(), Some(id.as_str()));
    assert!(kept(&rig, "error").contains("Unknown destination"));
    assert_eq!(running.metric("walpost_dead_letters_total"), 2.0);
    until(LONG, "they are counted", || running.status()["undelivered"]["dead"] == 2);
    assert_eq!(running.status()["broker"]["refused"][0]["condemned"], true);

    let ids = kept(&rig, "id");
    let discard =
        rig.walpost().arguments(["undelivered", "discard"].into_iter().chain(ids.lines()));
    assert!(discard.output(LONG).status.success());
    running.wait_for_log("/bogus/x takes messages again", LONG);
    until(LONG, "the others have come", || rig.vhost.depth("q") == 21);
    assert!(running.terminate(LONG).success());
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
        patient(&rig).set("broker.reconnect.max", "200ms").set("retry.first_wait", "100ms").start();
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
        .set("retry.first_wait", "50ms")
        .set("retry.pause", "50ms")
        .set("retry.wait", "50ms");
    let mut walpost = walpost.start();
    walpost.await_ready(LONG);
    database.sql(
        "INSERT INTO walpost.outbox (destination, body)
         SELECT '/queue/' || (ARRAY['good', 'bad', 'better'])[1 + n % 3], jsonb_build_object('n', n)
         FROM generate_series(1, 600) n",
    );
    await_all_confirmed(&database);
    let kept = "SELECT 1 FROM walpost.undelivered LIMIT 1";
    until(LONG, "what was kept is delivered", || database.sql(kept).is_empty());
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
