//! From a commit to the broker's receipt, beside the sum of the two round trips that it cannot do without.
//!
//! Three things are done at the same rate, one after the other, in turns:
//!
//! 1. *delivery*: rows are committed; a reader that does nothing else notes when each arrives from the slot.
//! 2. *receipt*: frames are sent; a proxy before RabbitMQ notes when each receipt passes on its way back.
//! 3. *walpost*: rows are committed; walpost relays them through the same proxy.
//!
//! Each time runs from the sending of the statement (or frame) to the arrival of the row (or the passing of the receipt). The
//! ceiling is the distribution of the sum: the delivery of row *i* and the receipt of frame *i*.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use walpost_testkit::postgres::Database;
use walpost_testkit::{Postgres, RabbitMq, Vhost};

use crate::backlog::installed;
use crate::frames::{self, Kind, Proof};
use crate::pace::{commit_rows, paced};
use crate::programs::{LONG, walpost};
use crate::proxy::Proxy;
use crate::reader::Reader;
use crate::stats::percentile;
use crate::table::{Goal, Line};

/// Rows a second.
const RATES: [u32; 2] = [500, 2_000];
/// How often each of the three is done.
const TURNS: usize = 3;
/// How long, each time.
const SECONDS: u32 = 3;
/// Left out at each beginning: caches and connections get warm.
const WARM: Duration = Duration::from_millis(300);

/// Both rates.
#[must_use]
pub fn run(server: &Postgres, broker: &RabbitMq) -> Vec<Line> {
    let database = installed(server);
    let vhost = broker.fresh_vhost();
    vhost.declare_queue(frames::QUEUE);
    let stand = Stand { database, vhost, broker, slots: 0 };
    RATES.into_iter().scan(stand, |stand, rate| Some(stand.at(rate))).flatten().collect()
}

struct Stand<'a> {
    database: Database<'a>,
    vhost: Vhost<'a>,
    broker: &'a RabbitMq,
    slots: usize,
}

impl Stand<'_> {
    fn at(&mut self, rate: u32) -> Vec<Line> {
        let (mut bare, mut relayed) = (Vec::new(), Vec::new());
        let mut worst = Vec::new();
        for _ in 0..TURNS {
            let delivery = self.delivery(rate);
            let receipt = self.receipt(rate);
            let walpost = self.walpost(rate);
            for (name, samples) in
                [("delivery", &delivery), ("receipt", &receipt), ("walpost", &walpost)]
            {
                let mut sorted = samples.clone();
                sorted.sort();
                let [p50, p99] = [50, 99].map(|percent| millis(percentile(&sorted, percent)));
                eprintln!("{rate} rows/s, {name}: p50 {p50:.2} ms, p99 {p99:.2} ms");
                if name == "walpost" {
                    worst.push((p50, p99));
                }
            }
            bare.extend(delivery.iter().zip(&receipt).map(|(a, b)| *a + *b));
            relayed.extend(walpost);
        }
        bare.sort();
        relayed.sort();
        [(50, 1.5), (99, 3.0)]
            .into_iter()
            .map(|(percent, most)| {
                let (own, sum) = (percentile(&relayed, percent), percentile(&bare, percent));
                let turns: Vec<f64> = worst
                    .iter()
                    .map(|(p50, p99)| if percent == 50 { *p50 } else { *p99 })
                    .collect();
                let low = turns.iter().copied().fold(f64::INFINITY, f64::min);
                let high = turns.iter().copied().fold(0.0, f64::max);
                Line {
                    what: format!("commit to receipt, {rate} rows/s, p{percent}"),
                    walpost: (millis(own), format!("{:.2} ms", millis(own))),
                    ceiling: Some((millis(sum), format!("bare round trips {:.2} ms", millis(sum)))),
                    goal: Goal::RatioAtMost(most),
                    spread: format!("{low:.2} … {high:.2}"),
                }
            })
            .collect()
    }

    fn delivery(&mut self, rate: u32) -> Vec<Duration> {
        let slot = self.new_slot();
        let database = self.database.name();
        let mut reader =
            Reader::start(self.database.server(), database, &slot).expect("the slot is free");
        let count = count(rate);
        let thread = std::thread::spawn(move || reader.inserts(count));
        let began = commit_rows(&self.database, count, rate);
        let arrived = thread.join().expect("no panic").expect("the reader reads");
        self.drop_slot(&slot);
        times(&began, &arrived)
    }

    fn receipt(&mut self, rate: u32) -> Vec<Duration> {
        let proxy = Proxy::start(self.broker.stomp_port()).expect("a free port");
        let mut stream = TcpStream::connect(&proxy.address).expect("the proxy listens");
        stream.set_nodelay(true).expect("an open socket");
        stream.write_all(&frames::connect(self.vhost.name())).expect("an open socket");
        let mut chunk = vec![0; 64 * 1024];
        let answered = stream.read(&mut chunk).expect("an open socket");
        assert!(chunk[..answered].starts_with(b"CONNECTED"), "{:?}", &chunk[..answered]);
        let mut receipts = stream.try_clone().expect("an open socket");
        std::thread::spawn(move || while receipts.read(&mut chunk).is_ok_and(|count| count > 0) {});
        let (count, body) = (count(rate), frames::body());
        let destination = format!("{}.v1", frames::DESTINATION);
        let began = paced(count, rate, |number| {
            let proof = Proof::Receipt(frames::FIRST_RECEIPT + number);
            let frame = frames::send(Kind::RabbitMq, &destination, number, proof, &body);
            stream.write_all(&frame).expect("the broker reads");
        });
        let passed = proxy.receipts(count);
        // The thread with the other handle ends with the connection.
        let _ = stream.shutdown(std::net::Shutdown::Both);
        times(&began, &passed)
    }

    fn walpost(&mut self, rate: u32) -> Vec<Duration> {
        let proxy = Proxy::start(self.broker.stomp_port()).expect("a free port");
        let slot = self.new_slot();
        let mut walpost = walpost(&self.database.url(), &slot)
            .set("broker.hosts", &proxy.address)
            .set("broker.vhost", self.vhost.name())
            .start();
        walpost.await_ready(LONG);
        let began = commit_rows(&self.database, count(rate), rate);
        let passed = proxy.receipts(count(rate));
        walpost.kill();
        self.drop_slot(&slot);
        times(&began, &passed)
    }

    fn new_slot(&mut self) -> String {
        self.slots += 1;
        let slot = format!("{}_{}", self.database.name(), self.slots);
        self.database
            .sql(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"));
        slot
    }

    fn drop_slot(&self, slot: &str) {
        crate::backlog::drop_slot(&self.database, slot);
    }
}

fn count(rate: u32) -> usize {
    (rate * SECONDS) as usize
}

fn times(began: &[Instant], ended: &[Instant]) -> Vec<Duration> {
    assert_eq!(began.len(), ended.len());
    let first = began[0];
    let warm = began.iter().zip(ended).filter(|(began, _)| began.duration_since(first) >= WARM);
    warm.map(|(began, ended)| ended.saturating_duration_since(*began)).collect()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
