//! Brokers in trouble: nothing is lost, nothing is repeated without need, memory stays bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use walpost_testkit::rabbitmq::Vhost;
use walpost_testkit::stomp::Frame;
use walpost_testkit::{
    Ack, Consumer, RabbitMq, Receipts, ScriptedBroker, Verdict, Walpost, http, ports, until,
};

use crate::rig::LONG;
use crate::scene::{
    await_all_confirmed, database, is_confirmed, number, numbers, position, publish_each, relay,
};

/// What an unoptimised walpost with a full window of 16 MiB may occupy.
const BOUNDED: u64 = 64 << 20;

/// A RabbitMQ that may be frozen and starved, by one test at a time.
fn node() -> MutexGuard<'static, RabbitMq> {
    static NODE: LazyLock<Mutex<RabbitMq>> = LazyLock::new(|| Mutex::new(RabbitMq::start()));
    NODE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// 600 rows of 200 kB, far more than the window holds; the header `n` counts them.
const FLOOD: &str = "INSERT INTO walpost.outbox (destination, headers, body)
    SELECT '/queue/q', jsonb_build_object('n', n), to_jsonb(repeat('x', 200000))
    FROM generate_series(1, 600) n";

fn reader(vhost: &Vhost<'_>) -> Consumer {
    Consumer::builder(vhost.broker().stomp_port())
        .vhost(vhost.name())
        .subscribe("/amq/queue/q.v1")
        .ack(Ack::ClientIndividual)
        .start()
}

/// The header `n` of what arrived, in order.
fn arrived(consumer: &Consumer) -> Vec<u64> {
    let messages = consumer.messages();
    messages.iter().map(|message| message.header("n").unwrap().parse().unwrap()).collect()
}

fn await_metric(walpost: &Walpost, series: &str, value: f64) {
    until(LONG, &format!("{series} is {value}"), || walpost.metrics().get(series) == Some(&value));
}

fn readiness(walpost: &Walpost) -> (u16, String) {
    let answer = http::get(walpost.http_port(), "/readyz").unwrap();
    (answer.status, answer.text())
}

#[test]
fn a_memory_alarm_is_sat_out() {
    let (node, database) = (node(), database());
    let vhost = node.fresh_vhost();
    vhost.declare_queue("q.v1");
    let mut walpost = relay(&database, &node.stomp_address())
        .set("broker.vhost", vhost.name())
        .set("broker.receipt_timeout", "3s")
        .start();
    walpost.await_ready(LONG);
    let consumer = reader(&vhost);
    database.sql(r#"SELECT walpost.publish('/queue/q', '{}', headers => '{"n": 0}')"#);
    consumer.wait_for(1, LONG);

    node.memory_alarm(true);
    database.sql(FLOOD);
    await_metric(&walpost, "walpost_broker_blocked", 1.0);
    // Long enough for a relay that took this for a dead connection.
    until(LONG, "three receipt timeouts pass", || {
        walpost.status()["source"]["stalled_seconds"].as_f64().is_some_and(|stall| stall > 9.0)
    });
    let (status, reason) = readiness(&walpost);
    assert_eq!(status, 503);
    assert!(reason.contains("takes nothing"), "{reason}");
    assert_eq!(walpost.metric("walpost_connects_total{peer=\"broker\"}"), 1.0);
    assert!(walpost.metric("walpost_in_flight_bytes") > 8e6, "the window is not full");
    assert!(walpost.vm_rss() < BOUNDED, "{} bytes", walpost.vm_rss());
    assert!(consumer.count() < 600);

    node.memory_alarm(false);
    consumer.wait_for(601, LONG);
    await_all_confirmed(&database);
    assert_eq!(arrived(&consumer), (0..=600).collect::<Vec<u64>>());
    assert_eq!(walpost.metric("walpost_messages_resent_total"), 0.0);
    assert_eq!(walpost.metric("walpost_connects_total{peer=\"broker\"}"), 1.0);
    await_metric(&walpost, "walpost_broker_blocked", 0.0);
    walpost.await_ready(LONG);
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn a_frozen_broker_is_left_and_found_again() {
    let (node, database) = (node(), database());
    let vhost = node.fresh_vhost();
    vhost.declare_queue("q.v1");
    let mut walpost = relay(&database, &node.stomp_address())
        .set("broker.vhost", vhost.name())
        .set("broker.heartbeat.send", "1s")
        .set("broker.heartbeat.expect", "1s")
        .start();
    walpost.await_ready(LONG);
    let consumer = reader(&vhost);
    database.sql(r#"SELECT walpost.publish('/queue/q', '{}', headers => '{"n": 0}')"#);
    consumer.wait_for(1, LONG);

    node.freeze();
    database.sql(FLOOD);
    let all = position(&database);
    await_metric(&walpost, "walpost_connected{peer=\"broker\"}", 0.0);
    let (status, reason) = readiness(&walpost);
    let (rss, confirmed) = (walpost.vm_rss(), is_confirmed(&database, &all));
    node.thaw();
    assert_eq!(status, 503);
    assert!(reason.contains("is not connected"), "{reason}");
    assert!(rss < BOUNDED, "{rss} bytes");
    assert!(!confirmed, "confirmed without receipts");

    // What was on its way may come twice.
    consumer.wait_until(LONG, "each has come", |state| {
        let numbers = state.messages.iter().filter_map(|message| message.header("n"));
        numbers.collect::<BTreeSet<_>>().len() == 601
    });
    await_all_confirmed(&database);
    let mut seen = BTreeSet::new();
    let firsts: Vec<u64> = arrived(&consumer).into_iter().filter(|n| seen.insert(*n)).collect();
    assert_eq!(firsts, (0..=600).collect::<Vec<u64>>());
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn receipts_in_any_order_confirm_everything_once() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let broker =
        ScriptedBroker::builder().receipts(Receipts::Shuffled { window: 50, seed }).start();
    let database = database();
    let mut walpost = relay(&database, &broker.address()).start();
    walpost.await_ready(LONG);
    for destination in ["/queue/a", "/queue/b", "/queue/c", "/queue/d"] {
        publish_each(&database, destination, 1, 300);
    }
    database.sql(
        "INSERT INTO walpost.outbox (destination, body)
         SELECT '/queue/' || d, jsonb_build_object('n', n)
         FROM generate_series(301, 600) n, unnest('{a,b,c,d}'::text[]) d",
    );
    await_all_confirmed(&database);
    let mut of: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for frame in broker.messages() {
        let destination = frame.header("destination").unwrap().to_owned();
        of.entry(destination).or_default().extend(number(&frame.body));
    }
    assert_eq!(of.len(), 4);
    for (destination, sent) in of {
        assert_eq!(sent, (1..=600).collect::<Vec<u64>>(), "{destination}");
    }
    assert_eq!(broker.connections(), 1);
    assert!(walpost.terminate(LONG).success());
    assert_eq!(broker.complaints(), Vec::<String>::new());
}

/// A hook's memory of what it has already done.
fn once<T: Ord>() -> impl FnMut(T) -> bool {
    let mut done = BTreeSet::new();
    move |what| done.insert(what)
}

#[test]
fn a_swallowed_message_is_missed_and_sent_again() {
    let mut first_time = once();
    // The one is overtaken by later messages; after the other only a probe can tell.
    let broker = ScriptedBroker::builder()
        .on_frame(move |frame, _| match number(&frame.body) {
            Some(n @ (10 | 31)) if first_time(n) => Verdict::Taken,
            _ => Verdict::Default,
        })
        .start();
    let database = database();
    let mut walpost =
        relay(&database, &broker.address()).set("broker.receipt_timeout", "1s").start();
    walpost.await_ready(LONG);
    publish_each(&database, "/queue/q", 1, 9);
    await_all_confirmed(&database);
    publish_each(&database, "/queue/q", 10, 30);
    let all = position(&database);
    broker.wait_for_sends(30, LONG);
    assert!(!is_confirmed(&database, &all), "confirmed without the receipt of 10");
    await_all_confirmed(&database);
    // The lane came back, and one more was made on which the message is tried.
    assert_eq!(broker.connections(), 3);
    publish_each(&database, "/queue/q", 31, 31);
    await_all_confirmed(&database);
    assert_eq!(broker.connections(), 4);

    let expected: Vec<u64> = (1..=30).chain([10, 31, 31]).collect();
    assert_eq!(numbers(&broker.messages()), expected);
    assert_eq!(walpost.metric("walpost_rejections_total{reason=\"missing\"}"), 2.0);
    await_metric(&walpost, "walpost_messages_resent_total", 2.0);
    let line = walpost.wait_for_log("no receipt for message", LONG);
    assert!(line.contains("/queue/q.v1"), "{line}");
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn a_silent_close_is_nobodys_fault() {
    // Six connections are closed without a word at their 20th message, before or after storing it.
    let stored: Arc<Mutex<Vec<u64>>> = Arc::default();
    let store = Arc::clone(&stored);
    let broker = ScriptedBroker::builder()
        .on_frame(move |frame, reply| {
            let Some(n) = number(&frame.body) else { return Verdict::Default };
            let closing = reply.connection() < 6 && reply.sends() == 20;
            if !closing || reply.connection() % 2 == 0 {
                store.lock().unwrap().push(n);
            }
            if closing {
                reply.close();
                return Verdict::Taken;
            }
            Verdict::Default
        })
        .start();
    let database = database();
    let mut walpost =
        relay(&database, &broker.address()).set("broker.reconnect.initial", "10ms").start();
    walpost.await_ready(LONG);
    publish_each(&database, "/queue/q", 1, 300);
    await_all_confirmed(&database);
    let stored = stored.lock().unwrap();
    let mut seen = BTreeSet::new();
    let firsts: Vec<u64> = stored.iter().copied().filter(|n| seen.insert(*n)).collect();
    assert_eq!(firsts, (1..=300).collect::<Vec<u64>>());
    // One more where the same message was the oldest twice: then it is tried by itself.
    assert!((7..=8).contains(&broker.connections()), "{} connections", broker.connections());
    // Each close costs at most what was in flight; a receipt that came is never doubted.
    assert!(stored.len() < 300 + 6 * 20, "{} stored", stored.len());
    assert_eq!(walpost.metric("walpost_rejections_total{reason=\"error\"}"), 0.0);
    // The lane beside it may then have nothing left to be closed at.
    let closed = walpost.metric("walpost_rejections_total{reason=\"closed\"}");
    assert!((5.0..=6.0).contains(&closed), "{closed} closes");
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn an_error_that_goes_away_is_forgotten() {
    let mut first_time = once();
    let broker = ScriptedBroker::builder()
        .on_frame(move |frame, reply| {
            let connection = reply.connection();
            if number(&frame.body) == Some(5) && connection < 3 && first_time(connection) {
                reply.error("resource_error", "the disk\nis full", None);
                reply.close();
                return Verdict::Taken;
            }
            Verdict::Default
        })
        .start();
    let database = database();
    let mut walpost = relay(&database, &broker.address()).start();
    walpost.await_ready(LONG);
    publish_each(&database, "/queue/q", 1, 40);
    await_all_confirmed(&database);
    let mut seen = BTreeSet::new();
    let sent = numbers(&broker.messages());
    let firsts: Vec<u64> = sent.into_iter().filter(|n| seen.insert(*n)).collect();
    assert_eq!(firsts, (1..=40).collect::<Vec<u64>>());
    assert_eq!(walpost.metric("walpost_rejections_total{reason=\"error\"}"), 2.0);
    walpost.wait_for_log("the broker refuses: resource_error: the disk", LONG);
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn hosts_are_tried_in_turn_and_told_apart() {
    let refusing = ScriptedBroker::builder()
        .on_frame(|frame: &Frame, reply| {
            assert_eq!(frame.header("passcode"), Some("hunter2"));
            reply.error("Bad CONNECT", "Access refused for user 'guest', not for hunter2", None);
            reply.close();
            Verdict::Taken
        })
        .start();
    let silent = ScriptedBroker::builder()
        .on_frame(|_, reply| {
            reply.close();
            Verdict::Taken
        })
        .start();
    let working = ScriptedBroker::start();
    let down = format!("127.0.0.1:{}", ports::free());
    let hosts = [&down, &refusing.address(), &silent.address(), &working.address()];
    let hosts = hosts.map(String::as_str).join(",");
    let database = database();
    let mut walpost = relay(&database, &hosts).set("broker.passcode", "hunter2").start();
    walpost.await_ready(LONG);
    publish_each(&database, "/queue/q", 1, 3);
    await_all_confirmed(&database);
    let line = |pattern: &str| walpost.wait_for_log(pattern, LONG);
    assert!(line(&format!("no connection to the broker at {down}: ")).contains("refused"));
    assert!(line(&format!("{}: login refused: ", refusing.address())).contains("guest"));
    line(&format!("{}: no answer to CONNECT", silent.address()));
    line(&working.address());
    assert_eq!(numbers(&working.messages()), [1, 2, 3]);

    // The one that works goes away: round again, and back.
    working.drop_connections();
    publish_each(&database, "/queue/q", 4, 6);
    await_all_confirmed(&database);
    assert_eq!(numbers(&working.messages()), [1, 2, 3, 4, 5, 6]);
    assert!(walpost.terminate(LONG).success());
    assert!(!walpost.log().contains("hunter2"), "{}", walpost.log());
}
