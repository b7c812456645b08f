//! RabbitMQ.

use std::time::{Duration, Instant};

use serde_json::json;
use walpost_testkit::stomp::Frame;
use walpost_testkit::{RabbitMq, Session, Vhost, until};

use super::Is::{Closed, Error, Receipt};
use super::{Is, Word, is_silent, next, receipts, says, send, send_as, until_closed};
use crate::rig::LONG;

fn connect(vhost: &Vhost<'_>) -> Session {
    Session::connect(vhost.broker().stomp_port(), vhost.name())
}

fn after() -> Frame {
    send_as("after", "/queue/after", &[])
}

/// Its version, as (major, minor).
fn version(session: &Session) -> (u32, u32) {
    let server = session.connected().header("server").unwrap_or_default();
    let numbers = server.strip_prefix("RabbitMQ/").unwrap_or_else(|| panic!("server: {server}"));
    let mut numbers = numbers.split('.').map(|number| number.parse().expect("a version"));
    (numbers.next().unwrap(), numbers.next().unwrap())
}

#[test]
fn what_it_calls_itself() {
    let vhost = RabbitMq::shared().fresh_vhost();
    assert!(version(&connect(&vhost)) >= (3, 10));
}

#[test]
fn how_it_answers() {
    let vhost = RabbitMq::shared().fresh_vhost();
    vhost.declare_exchange("unbound", "topic");
    vhost.declare_queue_with("limited", json!({"x-max-length": 7}));
    vhost.declare_queue_with("quorum", json!({"x-queue-type": "quorum"}));
    let no_destination = Frame::new("SEND", &[("receipt", "r")]).with_body(*b"body");
    let no_colon = b"SEND\ndestination:/queue/no-colon\nreceipt:r\nno colon\n\nbody\0".to_vec();
    let cases: [(&str, Vec<u8>, &[Is]); 14] = [
        ("a queue", send("/queue/case", &[]).encode(), &[Receipt("r")]),
        ("a bare name", send("case", &[]).encode(), &[Receipt("r")]),
        ("a topic that nobody reads", send("/topic/x.v1", &[]).encode(), &[Receipt("r")]),
        ("a missing queue", send("/amq/queue/missing", &[]).encode(), &[Receipt("r")]),
        ("nothing bound", send("/exchange/unbound/x", &[]).encode(), &[Receipt("r")]),
        (
            "message-id",
            send("/queue/case", &[("message-id", "m1")]).encode(),
            &[Error("Invalid header")],
        ),
        ("an unknown prefix", send("/bogus/x", &[]).encode(), &[Error("")]),
        ("an empty destination", send("", &[]).encode(), &[Error("")]),
        ("no destination", no_destination.encode(), &[Error("")]),
        (
            "a missing exchange",
            send("/exchange/missing/x", &[]).encode(),
            &[Error("not_found"), Closed],
        ),
        (
            "other arguments",
            send("/queue/limited", &[]).encode(),
            &[Error("precondition_failed"), Closed],
        ),
        (
            "a quorum queue by its type",
            send("/queue/quorum", &[("x-queue-type", "quorum")]).encode(),
            &[Receipt("r")],
        ),
        ("a quorum queue as it is", send("/amq/queue/quorum", &[]).encode(), &[Receipt("r")]),
        ("a header line without a colon", no_colon, &[Closed]),
    ];
    for (case, bytes, expected) in cases {
        let mut session = connect(&vhost);
        session.write(&bytes);
        says(&mut session, case, expected, &after());
    }
    // A bare name is the queue of that name.
    assert_eq!(vhost.get("case", 10).len(), 2);
    assert_eq!(vhost.get("quorum", 10).len(), 2);
}

#[test]
fn a_queue_deleted_meanwhile_swallows_what_comes() {
    let vhost = RabbitMq::shared().fresh_vhost();
    let mut session = connect(&vhost);
    session.send(&send_as("first", "/queue/gone", &[]));
    receipts(&mut session, &["first"]);
    vhost.delete_queue("gone");
    session.send(&send_as("second", "/queue/gone", &[]));
    receipts(&mut session, &["second"]);
    assert!(vhost.queue("gone").is_null());
    // A new connection makes it again; a topic's message is gone for whoever binds later.
    let mut session = connect(&vhost);
    session.send(&send_as("topic", "/topic/late", &[]));
    receipts(&mut session, &["topic"]);
    vhost.declare_queue("late");
    vhost.bind("amq.topic", "late", "late");
    session.send(&send_as("third", "/queue/gone", &[]));
    receipts(&mut session, &["third"]);
    assert_eq!((vhost.get("gone", 10).len(), vhost.get("late", 10).len()), (1, 0));
}

#[test]
fn a_full_queue_closes_the_connection_without_a_word() {
    let vhost = RabbitMq::shared().fresh_vhost();
    let full = json!({"x-max-length": 1, "x-overflow": "reject-publish"});
    vhost.declare_queue_with("full", full);
    vhost.declare_queue("other");
    let mut session = connect(&vhost);
    session.send(&send_as("fills", "/amq/queue/full", &[]));
    receipts(&mut session, &["fills"]);
    for receipt in ["1", "2", "3"] {
        session.send(&send_as(receipt, "/amq/queue/full", &[]));
    }
    session.send(&send_as("stored", "/amq/queue/other", &[]));
    let words = until_closed(&mut session);
    assert_eq!(vhost.get("full", 10).len(), 1);
    // Whether the later one was read before the end is a matter of chance.
    let stored = vhost.get("other", 10).len();
    assert!(words.is_empty() || (words == [Word::Receipt("stored".to_owned())] && stored == 1));
}

#[test]
fn large_frames() {
    let vhost = RabbitMq::shared().fresh_vhost();
    let body = vec![b'x'; 17 << 20];
    for size in [4 << 20, 17 << 20] {
        let mut session = connect(&vhost);
        session.send(&send("/queue/large", &[]).with_body(&body[..size]));
        if version(&session) < (3, 12) {
            says(&mut session, "a large frame", &[Receipt("r")], &after());
        } else {
            assert_eq!(until_closed(&mut session), [], "closed without a word");
        }
    }
}

#[test]
fn the_receipt_of_a_commit_proves_nothing() {
    let vhost = RabbitMq::shared().fresh_vhost();
    let in_transaction = |destination: &str, receipt: Option<&str>| {
        let mut frame = Frame::new("SEND", &[("destination", destination), ("transaction", "t")]);
        if let Some(receipt) = receipt {
            frame.headers.push(("receipt".to_owned(), receipt.to_owned()));
        }
        frame.with_body(*b"body")
    };
    let begin = Frame::new("BEGIN", &[("transaction", "t")]);
    let commit = Frame::new("COMMIT", &[("transaction", "t"), ("receipt", "commit")]);
    vhost.declare_queue("q");
    let mut session = connect(&vhost);
    session.send(&begin);
    session.send(&in_transaction("/exchange/missing/x", None));
    session.send(&commit);
    assert_eq!(next(&mut session), Word::Receipt("commit".to_owned()));
    let words = until_closed(&mut session);
    assert!(matches!(&words[..], [Word::Error(None, _)]), "{words:?}");

    // A SEND's own comes after its confirm, in a transaction, too.
    let mut session = connect(&vhost);
    session.send(&begin);
    session.send(&in_transaction("/amq/queue/q", Some("send")));
    session.send(&commit);
    receipts(&mut session, &["send", "commit"]);
    assert_eq!(vhost.get("q", 10).len(), 1);

    // An empty one is answered at once: it proves that the broker reads.
    session.send(&begin);
    session.send(&Frame::new("ABORT", &[("transaction", "t"), ("receipt", "aborted")]));
    receipts(&mut session, &["aborted"]);
}

#[test]
fn headers_and_properties() {
    let vhost = RabbitMq::shared().fresh_vhost();
    let mut session = connect(&vhost);
    let headers = [
        ("amqp-message-id", "m1"),
        ("persistent", "true"),
        ("escaped", "a:b\nc\\d"),
        ("twice", "first"),
        ("twice", "second"),
    ];
    session.send(&send_as("with", "/queue/properties", &headers));
    session.send(&send_as("without", "/queue/properties", &[]));
    receipts(&mut session, &["with", "without"]);
    let got = vhost.get("properties", 10);
    let [with, without] = [&got[0]["properties"], &got[1]["properties"]];
    assert_eq!(with["message_id"], "m1");
    assert_eq!(with["delivery_mode"], 2);
    assert_eq!(with["headers"]["escaped"], "a:b\nc\\d");
    assert_eq!(with["headers"]["twice"], "first");
    assert_ne!(without["delivery_mode"], 2, "transient");
}

#[test]
fn a_memory_alarm_holds_senders_and_a_kill_loses_what_is_transient() {
    let broker = RabbitMq::start();
    let vhost = broker.default_vhost();
    vhost.declare_queue("q");
    let port = broker.stomp_port();
    let queue = "/amq/queue/q";
    let persistent = [("persistent", "true")];
    broker.memory_alarm(true);
    let connect = || Session::connect_with_heartbeats(port, "/", "3000,1000");
    let (mut first, mut second) = (connect(), connect());
    // One each.
    for session in [&mut first, &mut second] {
        session.send(&send_as("0", queue, &persistent));
        receipts(session, &["0"]);
    }
    // What comes after it is not read; heart-beats go on in both directions, for longer than a broker waits for one.
    let ids = ["1", "2", "3"];
    ids.iter().for_each(|id| first.send(&send_as(id, queue, &persistent)));
    let (since, beats) = (Instant::now(), first.heartbeats());
    while since.elapsed() < Duration::from_secs(8) {
        first.write(b"\n");
        second.write(b"\n");
        is_silent(&mut first);
        is_silent(&mut second);
    }
    let beats = first.heartbeats() - beats;
    assert!(beats >= 4, "{beats} heart-beats in eight seconds");
    std::thread::scope(|scope| {
        scope.spawn(|| broker.memory_alarm(false));
        let mut came = Vec::new();
        while came.len() < ids.len() {
            first.write(b"\n");
            came.extend(first.next(Duration::from_millis(500)).map(Word::of));
        }
        came.sort();
        assert_eq!(came, ids.map(|id| Word::Receipt(id.to_owned())));
    });
    until(LONG, "five messages", || vhost.depth("q") == 5);

    let mut session = Session::connect(port, "/");
    session.send(&send_as("transient", queue, &[]));
    receipts(&mut session, &["transient"]);
    broker.kill();
    broker.restart();
    assert_eq!(vhost.get("q", 10).len(), 5);
}
