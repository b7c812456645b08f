//! ActiveMQ Artemis.

use walpost_testkit::stomp::Frame;
use walpost_testkit::{Artemis, Session};

use super::Is::{ErrorOf, Receipt};
use super::{Is, Word, is_silent, next, receipts, says, send, send_as, until_closed, waiting};

const QUEUE: (&str, &str) = ("destination-type", "ANYCAST");
const FROM_QUEUE: [(&str, &str); 2] =
    [("subscription-type", "ANYCAST"), ("consumer-window-size", "-1")];

fn connect(broker: &Artemis) -> Session {
    Session::connect(broker.stomp_port(), "/")
}

fn count(broker: &Artemis, queue: &str) -> usize {
    waiting(broker.stomp_port(), queue, &FROM_QUEUE).len()
}

#[test]
fn what_it_calls_itself_whatever_the_host() {
    let session = Session::connect(Artemis::shared().stomp_port(), "no such host");
    let server = session.connected().header("server").unwrap_or_default();
    assert!(server.starts_with("ActiveMQ-Artemis/2."), "{server}");
}

#[test]
fn how_it_answers() {
    let broker = Artemis::shared();
    let no_colon =
        b"SEND\ndestination:/queue/no-colon\nreceipt:r\ndestination-type:ANYCAST\nno colon\n\nbody\0";
    let cases: [(&str, Vec<u8>, &[Is]); 6] = [
        ("a queue", send("/queue/case", &[QUEUE]).encode(), &[Receipt("r")]),
        ("a topic", send("/topic/case", &[]).encode(), &[Receipt("r")]),
        ("an empty destination", send("", &[]).encode(), &[Receipt("r")]),
        ("an unknown prefix", send("/bogus/case", &[QUEUE]).encode(), &[Receipt("r")]),
        (
            "message-id",
            send("/queue/case", &[QUEUE, ("message-id", "m1")]).encode(),
            &[Receipt("r")],
        ),
        ("a header line without a colon", no_colon.to_vec(), &[Receipt("r")]),
    ];
    for (case, bytes, expected) in cases {
        let mut session = connect(broker);
        session.write(&bytes);
        says(&mut session, case, expected, &send_as("after", "/queue/after", &[QUEUE]));
    }
    assert_eq!(count(broker, "/queue/case"), 2);
    assert_eq!(count(broker, "/bogus/case"), 1);
    assert_eq!(count(broker, "/queue/no-colon"), 1);
}

#[test]
fn without_a_type_a_receipt_and_the_message_is_gone() {
    let broker = Artemis::shared();
    let mut session = connect(broker);
    session.send(&send("/queue/untyped", &[("persistent", "true")]));
    receipts(&mut session, &["r"]);
    assert_eq!(count(broker, "/queue/untyped"), 0, "it is kept by now: say so in brokers.md");
    session.send(&send("/queue/typed", &[("persistent", "true"), QUEUE]));
    receipts(&mut session, &["r"]);
    assert_eq!(count(broker, "/queue/typed"), 1);
}

#[test]
fn no_destination_ends_the_connection() {
    let mut session = connect(Artemis::shared());
    session.send(&Frame::new("SEND", &[("receipt", "r")]).with_body(*b"body"));
    session.send(&send_as("next", "/queue/after", &[QUEUE]));
    let first = next(&mut session);
    assert!(ErrorOf("r").holds(&first), "{first:?}");
    for word in until_closed(&mut session) {
        assert!(matches!(word, Word::Error(..)), "{word:?}");
    }
}

#[test]
fn an_id_that_comes_twice_is_stored_once() {
    let broker = Artemis::start();
    let mut session = connect(&broker);
    let headers = [QUEUE, ("_AMQ_DUPL_ID", "id"), ("persistent", "true")];
    for receipt in ["one", "two"] {
        session.send(&send_as(receipt, "/queue/twice", &headers));
    }
    receipts(&mut session, &["one", "two"]);
    // Another address has ids of its own.
    session.send(&send_as("other", "/queue/other", &headers));
    receipts(&mut session, &["other"]);
    broker.kill();
    broker.restart();
    // What it knows is on its disk.
    let mut session = connect(&broker);
    session.send(&send_as("three", "/queue/twice", &headers));
    receipts(&mut session, &["three"]);
    assert_eq!(count(&broker, "/queue/twice"), 1);
    assert_eq!(count(&broker, "/queue/other"), 1);
    // Not even when it was read.
    session.send(&send_as("four", "/queue/twice", &headers));
    receipts(&mut session, &["four"]);
    assert_eq!(count(&broker, "/queue/twice"), 0);
}

#[test]
fn a_known_id_takes_its_whole_transaction_with_it() {
    let broker = Artemis::shared();
    let mut session = connect(broker);
    let known = [QUEUE, ("_AMQ_DUPL_ID", "known")];
    session.send(&send("/queue/in-transaction", &known));
    receipts(&mut session, &["r"]);
    session.send(&Frame::new("BEGIN", &[("transaction", "t")]));
    for id in ["new", "known"] {
        let headers = [
            ("destination", "/queue/in-transaction"),
            ("transaction", "t"),
            QUEUE,
            ("_AMQ_DUPL_ID", id),
        ];
        session.send(&Frame::new("SEND", &headers).with_body(*b"body"));
    }
    session.send(&Frame::new("COMMIT", &[("transaction", "t"), ("receipt", "commit")]));
    let words = until_closed(&mut session);
    assert!(ErrorOf("commit").holds(&words[0]), "{words:?}");
    assert_eq!(count(broker, "/queue/in-transaction"), 1);
}

#[test]
fn only_a_persistent_message_is_kept() {
    let broker = Artemis::start();
    let mut session = connect(&broker);
    session.send(&send_as("a", "/queue/persistence", &[QUEUE]));
    session.send(&send_as("b", "/queue/persistence", &[QUEUE, ("persistent", "true")]));
    receipts(&mut session, &["a", "b"]);
    let persistent = |broker: &Artemis| -> Vec<_> {
        let frames = waiting(broker.stomp_port(), "/queue/persistence", &FROM_QUEUE);
        frames.iter().map(|frame| frame.header("persistent").map(str::to_owned)).collect()
    };
    assert_eq!(persistent(&broker), [Some("false".to_owned()), Some("true".to_owned())]);
    session.send(&send_as("a", "/queue/persistence", &[QUEUE]));
    session.send(&send_as("b", "/queue/persistence", &[QUEUE, ("persistent", "true")]));
    receipts(&mut session, &["a", "b"]);
    broker.kill();
    broker.restart();
    assert_eq!(persistent(&broker), [Some("true".to_owned())]);
}

#[test]
fn a_nack_is_an_ack() {
    let broker = Artemis::shared();
    let mut session = connect(broker);
    session.send(&send("/queue/nack", &[QUEUE]));
    receipts(&mut session, &["r"]);
    let mut subscribe = Frame::new(
        "SUBSCRIBE",
        &[("id", "0"), ("destination", "/queue/nack"), ("ack", "client-individual")],
    );
    subscribe.headers.extend(FROM_QUEUE.map(|(name, value)| (name.to_owned(), value.to_owned())));
    session.send(&subscribe);
    let Some(walpost_testkit::Said::Frame(message)) = session.next(crate::rig::LONG) else {
        panic!("no message")
    };
    let ack = message.header("ack").unwrap();
    session.send(&Frame::new("NACK", &[("id", ack), ("receipt", "nacked")]));
    receipts(&mut session, &["nacked"]);
    is_silent(&mut session);
    drop(session);
    assert_eq!(count(broker, "/queue/nack"), 0);
    assert_eq!(count(broker, "DLQ"), 0);
}

#[test]
fn a_window_is_never_renewed_for_a_reader_that_does_not_acknowledge() {
    let broker = Artemis::shared();
    let mut session = connect(broker);
    let body = vec![b'x'; 1000];
    for _ in 0..40 {
        session.send(&send("/queue/window", &[QUEUE]).with_body(&body[..]));
        receipts(&mut session, &["r"]);
    }
    let window = [("subscription-type", "ANYCAST"), ("consumer-window-size", "10000")];
    let first = waiting(broker.stomp_port(), "/queue/window", &window).len();
    assert!((1..20).contains(&first), "{first} of 40 came");
    assert_eq!(first + count(broker, "/queue/window"), 40);
}

#[test]
fn the_answer_to_an_empty_transaction_comes_at_once() {
    let mut session = connect(Artemis::shared());
    session.send(&Frame::new("BEGIN", &[("transaction", "t")]));
    session.send(&Frame::new("ABORT", &[("transaction", "t"), ("receipt", "aborted")]));
    receipts(&mut session, &["aborted"]);
}
