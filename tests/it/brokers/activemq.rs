//! ActiveMQ Classic.

use std::time::{Duration, Instant};

use walpost_testkit::stomp::Frame;
use walpost_testkit::{ActiveMq, Session};

use super::Is::{Closed, Error, ErrorOf, Receipt};
use super::{Is, Word, next, receipts, says, send, send_as, waiting};
use crate::rig::LONG;

fn connect(broker: &ActiveMq) -> Session {
    Session::connect(broker.stomp_port(), "/")
}

fn after() -> Frame {
    send_as("after", "/queue/after", &[])
}

#[test]
fn what_it_calls_itself() {
    let session = connect(ActiveMq::shared());
    let server = session.connected().header("server").unwrap_or_default();
    assert!(server.starts_with("ActiveMQ/5."), "{server}");
}

#[test]
fn how_it_answers() {
    let broker = ActiveMq::shared();
    let no_colon = b"SEND\ndestination:/queue/no-colon\nreceipt:r\nno colon\n\nbody\0".to_vec();
    let cases: [(&str, Vec<u8>, &[Is]); 8] = [
        ("a queue", send("/queue/case", &[]).encode(), &[Receipt("r")]),
        ("persistent", send("/queue/case", &[("persistent", "true")]).encode(), &[Receipt("r")]),
        ("a topic with nobody", send("/topic/case", &[]).encode(), &[Receipt("r")]),
        (
            "no destination",
            Frame::new("SEND", &[("receipt", "r")]).with_body(*b"body").encode(),
            &[ErrorOf("r")],
        ),
        ("an empty destination", send("", &[]).encode(), &[Closed]),
        ("an unknown prefix", send("/bogus/case", &[]).encode(), &[Receipt("r")]),
        ("message-id", send("/queue/case", &[("message-id", "m1")]).encode(), &[Receipt("r")]),
        ("a header line without a colon", no_colon, &[Receipt("r")]),
    ];
    for (case, bytes, expected) in cases {
        let mut session = connect(broker);
        session.write(&bytes);
        says(&mut session, case, expected, &after());
    }
    assert_eq!(
        waiting(broker.stomp_port(), "/bogus/case", &[]).len(),
        1,
        "taken as a queue's name"
    );
    assert_eq!(waiting(broker.stomp_port(), "/queue/no-colon", &[]).len(), 1);
}

#[test]
fn a_long_header_line_is_fatal_and_many_are_not() {
    let broker = ActiveMq::shared();
    let [fits, too_long] = [9, 11].map(|kib| "x".repeat(kib * 1024));
    let mut session = connect(broker);
    session.send(&send("/queue/long", &[("a", &fits), ("b", &fits), ("c", &fits)]));
    says(&mut session, "three lines", &[Receipt("r")], &after());
    session.send(&send("/queue/long", &[("a", &too_long)]));
    says(&mut session, "a long line", &[Error("maximum header length"), Closed], &after());
}

/// A broker that refuses what is sent to a queue `refused.…`; entries for a name add up, so what is open is named.
const AUTHORIZATION: &str = r#"
    <plugins>
      <simpleAuthenticationPlugin>
        <users><authenticationUser username="guest" password="guest" groups="guests"/></users>
      </simpleAuthenticationPlugin>
      <authorizationPlugin><map><authorizationMap><authorizationEntries>
        <authorizationEntry queue="open.>" read="guests" write="guests" admin="guests"/>
        <authorizationEntry queue="refused.>" read="nobody" write="nobody" admin="nobody"/>
        <authorizationEntry topic=">" read="guests" write="guests" admin="guests"/>
      </authorizationEntries></authorizationMap></map></authorizationPlugin>
    </plugins>"#;

#[test]
fn a_send_refused_in_a_transaction_fails_its_commit() {
    let broker = ActiveMq::start_with(AUTHORIZATION);
    let mut session = connect(&broker);
    let open = send_as("after", "/queue/open.after", &[]);
    session.send(&send("/queue/refused.x", &[]));
    says(&mut session, "with a receipt", &[ErrorOf("r")], &open);

    session.send(&Frame::new("BEGIN", &[("transaction", "t")]));
    for queue in ["/queue/open.x", "/queue/refused.x", "/queue/open.x"] {
        let headers = [("destination", queue), ("transaction", "t")];
        session.send(&Frame::new("SEND", &headers).with_body(*b"body"));
    }
    session.send(&Frame::new("COMMIT", &[("transaction", "t"), ("receipt", "commit")]));
    // In either order.
    let words = [next(&mut session), next(&mut session)];
    for is in [Error("not authorized"), ErrorOf("commit")] {
        assert!(words.iter().any(|word| is.holds(word)), "{words:?}");
    }
    says(&mut session, "in a transaction", &[], &open);
    assert_eq!(waiting(broker.stomp_port(), "/queue/open.x", &[]).len(), 0);
}

#[test]
fn a_receipt_means_stored_and_so_does_that_of_a_commit() {
    let broker = ActiveMq::start();
    let mut session = connect(&broker);
    let persistent = [("persistent", "true")];
    session.send(&send_as("one", "/queue/kept", &persistent));
    receipts(&mut session, &["one"]);
    // Several transactions in flight, a receipt for each COMMIT only.
    for transaction in ["a", "b", "c"] {
        session.send(&Frame::new("BEGIN", &[("transaction", transaction)]));
        for _ in 0..50 {
            let headers = [
                ("destination", "/queue/kept"),
                ("persistent", "true"),
                ("transaction", transaction),
            ];
            session.send(&Frame::new("SEND", &headers).with_body(transaction.as_bytes()));
        }
        let commit = [("transaction", transaction), ("receipt", transaction)];
        session.send(&Frame::new("COMMIT", &commit));
    }
    receipts(&mut session, &["a", "b", "c"]);
    broker.kill();
    broker.restart();
    assert_eq!(waiting(broker.stomp_port(), "/queue/kept", &[]).len(), 151);
}

#[test]
fn an_aborted_transaction_leaves_nothing_and_answers() {
    let broker = ActiveMq::shared();
    let mut session = connect(broker);
    session.send(&Frame::new("BEGIN", &[("transaction", "t")]));
    let headers = [("destination", "/queue/aborted"), ("transaction", "t")];
    session.send(&Frame::new("SEND", &headers).with_body(*b"body"));
    session.send(&Frame::new("ABORT", &[("transaction", "t"), ("receipt", "aborted")]));
    receipts(&mut session, &["aborted"]);
    assert_eq!(waiting(broker.stomp_port(), "/queue/aborted", &[]).len(), 0);
}

#[test]
fn late_heartbeats_are_fatal_and_its_own_come_late() {
    const AGREED: u32 = 500;
    let port = ActiveMq::shared().stomp_port();
    let agreed = Duration::from_millis(AGREED.into());
    let mut session = Session::connect_with_heartbeats(port, "/", &format!("{AGREED},0"));
    let since = Instant::now();
    assert_eq!(next(&mut session), Word::Closed);
    let waited = since.elapsed();
    assert!(waited < 3 * agreed, "closed after {waited:?}");

    let mut session = Session::connect_with_heartbeats(port, "/", &format!("0,{AGREED}"));
    let (mut longest, mut last) = (Duration::ZERO, Instant::now());
    while session.heartbeats() < 8 {
        let before = session.heartbeats();
        assert!(session.next(Duration::from_millis(20)).is_none());
        assert!(last.elapsed() < LONG, "no heart-beats");
        if session.heartbeats() > before {
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
    }
    println!("{longest:?} between two heart-beats, agreed on {agreed:?}");
    assert!(longest < 3 * agreed, "{longest:?}");
}
