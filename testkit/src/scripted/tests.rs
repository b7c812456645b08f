//! The broker against a bare socket.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::{Receipts, ScriptedBroker, Verdict};
use crate::stomp::{Frame, Parser};

struct Client {
    stream: TcpStream,
    parser: Parser,
}

impl Client {
    fn connect(broker: &ScriptedBroker) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", broker.port())).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("open");
        let mut client = Self { stream, parser: Parser::default() };
        let connect = Frame::new("CONNECT", &[("accept-version", "1.2"), ("heart-beat", "20,20")]);
        client.send(&connect);
        assert_eq!(client.next().expect("CONNECTED").command, "CONNECTED");
        client
    }

    fn send(&mut self, frame: &Frame) {
        self.stream.write_all(&frame.encode()).expect("open");
    }

    fn sends(&mut self, receipts: std::ops::Range<u32>) {
        for id in receipts {
            let headers = [("destination", "/queue/q"), ("receipt", &*id.to_string())];
            self.send(&Frame::new("SEND", &headers).with_body("x"));
        }
    }

    /// The next frame; `None` at the end of the stream.
    fn next(&mut self) -> Option<Frame> {
        let mut chunk = [0; 4096];
        loop {
            if let Some(raw) = self.parser.next().expect("well-formed") {
                return Some(raw.decode().expect("well-formed"));
            }
            match self.stream.read(&mut chunk).expect("something within five seconds") {
                0 => return None,
                count => self.parser.push(&chunk[..count]),
            }
        }
    }

    fn receipts(&mut self, count: usize) -> Vec<u32> {
        (0..count)
            .map(|_| {
                let frame = self.next().expect("a receipt");
                assert_eq!(frame.command, "RECEIPT");
                frame.header("receipt-id").expect("an id").parse().expect("ours")
            })
            .collect()
    }
}

#[test]
fn receipts_come_in_order_and_frames_are_kept() {
    let broker = ScriptedBroker::start();
    let mut client = Client::connect(&broker);
    client.sends(0..50);
    assert_eq!(client.receipts(50), (0..50).collect::<Vec<_>>());
    assert_eq!(broker.messages().len(), 50);
    assert_eq!(broker.sends(), 50);
    client.send(&Frame::new("DISCONNECT", &[("receipt", "9")]));
    assert_eq!(client.receipts(1), [9]);
    assert!(client.next().is_none());
    assert!(broker.complaints().is_empty());
}

#[test]
fn the_fast_way_answers_the_same() {
    let broker = ScriptedBroker::builder().count_only().start();
    let mut client = Client::connect(&broker);
    client.sends(0..500);
    assert_eq!(client.receipts(500), (0..500).collect::<Vec<_>>());
    assert_eq!((broker.sends(), broker.messages().len()), (500, 0));
}

#[test]
fn shuffled_receipts_are_all_there_and_out_of_order() {
    let receipts = Receipts::Shuffled { window: 16, seed: 1 };
    let broker = ScriptedBroker::builder().receipts(receipts).start();
    let mut client = Client::connect(&broker);
    client.sends(0..40);
    let mut got = client.receipts(40);
    assert!(!got.is_sorted());
    got.sort_unstable();
    assert_eq!(got, (0..40).collect::<Vec<_>>());
}

#[test]
fn receipts_are_late_where_asked() {
    let delay = Duration::from_millis(80);
    for receipts in [Receipts::After(delay), Receipts::PerSecond(125)] {
        let broker = ScriptedBroker::builder().receipts(receipts).start();
        let mut client = Client::connect(&broker);
        let started = Instant::now();
        client.sends(0..10);
        assert_eq!(client.receipts(10), (0..10).collect::<Vec<_>>());
        assert!(started.elapsed() >= delay, "{receipts:?}: {:?}", started.elapsed());
    }
}

#[test]
fn a_hook_refuses_and_closes() {
    let broker = ScriptedBroker::builder()
        .on_frame(|frame, reply| {
            if frame.command != "SEND" || reply.sends() < 3 {
                return Verdict::Default;
            }
            reply.error("not_found", "no exchange", frame.header("receipt"));
            reply.close();
            Verdict::Taken
        })
        .start();
    let mut client = Client::connect(&broker);
    client.sends(0..3);
    assert_eq!(client.receipts(2), [0, 1]);
    let error = client.next().expect("an ERROR");
    assert_eq!((error.command.as_str(), error.header("receipt-id")), ("ERROR", Some("2")));
    assert!(client.next().is_none());
}

#[test]
fn an_alarm_holds_receipts_but_not_heartbeats() {
    let broker = ScriptedBroker::builder().heartbeat(20, 20).start();
    let mut client = Client::connect(&broker);
    broker.raise_alarm();
    client.sends(0..1);
    assert_eq!(client.receipts(1), [0]);
    client.sends(1..3);
    client.stream.set_read_timeout(Some(Duration::from_millis(100))).expect("open");
    let (mut beats, mut byte) = (0, [0]);
    while beats < 3 {
        client.stream.read_exact(&mut byte).expect("a heart-beat");
        assert_eq!(byte, *b"\n");
        beats += 1;
    }
    broker.end_alarm();
    assert_eq!(client.receipts(2), [1, 2]);
}

#[test]
fn a_frozen_or_refusing_broker_says_nothing() {
    let broker = ScriptedBroker::start();
    let mut client = Client::connect(&broker);
    broker.freeze();
    // The thread may still be in a read that began before.
    client.sends(0..1);
    let _ = client.stream.set_read_timeout(Some(Duration::from_millis(100)));
    let first = client.stream.read(&mut [0; 1]).is_ok();
    client.sends(1..2);
    assert!(first || client.stream.read(&mut [0; 1]).is_err());
    broker.thaw();
    broker.refuse_connections(true);
    let mut refused = TcpStream::connect(("127.0.0.1", broker.port())).expect("it listens");
    assert_eq!(refused.read(&mut [0; 1]).expect("closed"), 0);
    assert_eq!(broker.connections(), 1);
}
