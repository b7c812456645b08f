//! What real brokers answer to STOMP, case by case: what walpost is built on. Raw sessions, no walpost.

mod activemq;
mod artemis;
mod bodies;
mod headers;
mod kills;
mod rabbitmq;

use std::time::Duration;

use walpost_testkit::stomp::Frame;
use walpost_testkit::{Said, Session};

use crate::rig::LONG;

/// How long nothing must be said to count as silence.
const SILENCE: Duration = Duration::from_millis(700);

/// One thing that a broker says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Word {
    Receipt(String),
    /// The `receipt-id`, and the header `message`.
    Error(Option<String>, String),
    /// The body.
    Message(String),
    Closed,
}

impl Word {
    fn of(said: Said) -> Self {
        let Said::Frame(frame) = said else { return Word::Closed };
        let header = |name| frame.header(name).map(str::to_owned);
        match frame.command.as_str() {
            "RECEIPT" => Word::Receipt(header("receipt-id").unwrap_or_default()),
            "ERROR" => Word::Error(header("receipt-id"), header("message").unwrap_or_default()),
            "MESSAGE" => Word::Message(String::from_utf8_lossy(&frame.body).into_owned()),
            _ => panic!("{frame:?}"),
        }
    }
}

/// What is expected of a broker, in a table.
#[derive(Clone, Copy, Debug)]
enum Is {
    /// RECEIPT with this id.
    Receipt(&'static str),
    /// ERROR without a `receipt-id`, and this in its `message`.
    Error(&'static str),
    /// ERROR with this `receipt-id`.
    ErrorOf(&'static str),
    Closed,
}

impl Is {
    fn holds(self, word: &Word) -> bool {
        match (self, word) {
            (Is::Receipt(id), Word::Receipt(came)) => id == came,
            (Is::Error(part), Word::Error(None, message)) => message.contains(part),
            (Is::ErrorOf(id), Word::Error(came, _)) => came.as_deref() == Some(id),
            (Is::Closed, Word::Closed) => true,
            _ => false,
        }
    }
}

/// SEND with the receipt `r` and a small body.
fn send(destination: &str, headers: &[(&str, &str)]) -> Frame {
    send_as("r", destination, headers)
}

fn send_as(receipt: &str, destination: &str, headers: &[(&str, &str)]) -> Frame {
    let mut frame = Frame::new("SEND", &[("destination", destination), ("receipt", receipt)]);
    frame.headers.extend(headers.iter().map(|(name, value)| ((*name).into(), (*value).into())));
    frame.with_body(*b"body")
}

#[track_caller]
fn next(session: &mut Session) -> Word {
    Word::of(session.next(LONG).expect("the broker says nothing"))
}

/// The broker says exactly this, in this order. If it does not end with [`Is::Closed`], the connection is open afterwards:
/// `after` is still served, and nothing else is said before its receipt.
#[track_caller]
fn says(session: &mut Session, case: &str, expected: &[Is], after: &Frame) {
    for is in expected {
        let word = next(session);
        assert!(is.holds(&word), "{case}: {word:?} in place of {is:?}");
    }
    if !matches!(expected.last(), Some(Is::Closed)) {
        session.send(after);
        let receipt = after.header("receipt").expect("it asks for a receipt");
        assert_eq!(next(session), Word::Receipt(receipt.to_owned()), "{case}: afterwards");
    }
}

/// Receipts for all of these come, in whatever order, and nothing else before the last of them.
#[track_caller]
fn receipts(session: &mut Session, ids: &[&str]) {
    let mut came: Vec<Word> = ids.iter().map(|_| next(session)).collect();
    let mut due: Vec<Word> = ids.iter().map(|id| Word::Receipt((*id).to_owned())).collect();
    came.sort();
    due.sort();
    assert_eq!(came, due);
}

/// Nothing is said for a moment, and the connection is not closed.
#[track_caller]
fn is_silent(session: &mut Session) {
    let said = session.next(SILENCE);
    assert!(said.is_none(), "{said:?}");
}

/// Reads until the connection is closed, and gives what came before that.
#[track_caller]
fn until_closed(session: &mut Session) -> Vec<Word> {
    let mut words = Vec::new();
    loop {
        match next(session) {
            Word::Closed => return words,
            word => words.push(word),
        }
    }
}

/// The bodies of all messages that wait at a destination, taken with `headers` of SUBSCRIBE, and the frames themselves.
#[track_caller]
fn waiting(port: u16, destination: &str, headers: &[(&str, &str)]) -> Vec<Frame> {
    let mut session = Session::connect(port, "/");
    let mut subscribe = Frame::new(
        "SUBSCRIBE",
        &[("id", "0"), ("destination", destination), ("ack", "auto"), ("receipt", "s")],
    );
    subscribe.headers.extend(headers.iter().map(|(name, value)| ((*name).into(), (*value).into())));
    session.send(&subscribe);
    let (mut messages, mut subscribed) = (Vec::new(), false);
    while let Some(said) = session.next(if subscribed { SILENCE } else { LONG }) {
        match said {
            Said::Frame(frame) if frame.command == "MESSAGE" => messages.push(frame),
            Said::Frame(frame) if frame.command == "RECEIPT" => subscribed = true,
            other => panic!("{other:?}"),
        }
    }
    messages
}
