//! A backlog into a durable queue of RabbitMQ, beside a raw sender of frames encoded beforehand.

use std::time::{Duration, Instant};

use walpost_testkit::sandbox::Folder;
use walpost_testkit::{Postgres, RabbitMq, Vhost, Walpost};

use crate::backlog::{Backlog, Shape, cpu_per_row};
use crate::drain::{between, cost_line};
use crate::frames;
use crate::programs::{LONG, sibling};
use crate::stats::Spread;
use crate::table::{Goal, Line, grouped};

/// Runs of each, in turn.
const RUNS: usize = 3;
/// Messages without a receipt, of both.
const WINDOW: usize = 1024;

/// Connections, of both.
const CONNECTIONS: [u64; 3] = [1, 2, 4];

/// walpost's median against the raw sender's best, on as many connections.
#[must_use]
pub fn run(server: &Postgres, broker: &RabbitMq, rows: u64) -> Vec<Line> {
    let mut backlog = Backlog::new(server, Shape::Single, rows);
    CONNECTIONS.into_iter().flat_map(|many| on(&mut backlog, broker, rows, many)).collect()
}

fn on(backlog: &mut Backlog<'_>, broker: &RabbitMq, rows: u64, connections: u64) -> Vec<Line> {
    let (mut rates, mut ceilings, mut costs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let raw =
            rows as f64 / in_fresh_queue(broker, |vhost| raw_sender(vhost, rows, connections));
        ceilings.push(raw);
        let (seconds, cost) = in_fresh_queue(broker, |vhost| walpost(backlog, vhost, connections));
        rates.push(rows as f64 / seconds);
        costs.push(cost);
        eprintln!(
            "RabbitMQ on {connections}: walpost {}/s ({cost:.2} µs of processor a message), raw sender {}/s",
            grouped(rows as f64 / seconds),
            grouped(raw)
        );
    }
    let (rates, ceilings, costs) = (Spread::of(&rates), Spread::of(&ceilings), Spread::of(&costs));
    let what = match connections {
        1 => "RabbitMQ, durable queue".to_owned(),
        many => format!("the same on {many} connections"),
    };
    vec![
        Line {
            what: what.clone(),
            walpost: (rates.median, format!("{}/s", grouped(rates.median))),
            ceiling: Some((ceilings.max, format!("raw sender {}/s", grouped(ceilings.max)))),
            goal: Goal::RatioAtLeast(0.95),
            spread: between(rates, ceilings),
        },
        cost_line(&what, costs),
    ]
}

/// Each run has an empty queue, and the node is done with the one before.
fn in_fresh_queue<T>(broker: &RabbitMq, measure: impl FnOnce(&Vhost<'_>) -> T) -> T {
    let vhost = broker.fresh_vhost();
    vhost.declare_queue(frames::QUEUE);
    measure(&vhost)
}

/// Seconds from the first byte to the last receipt, as it says itself.
fn raw_sender(vhost: &Vhost<'_>, rows: u64, connections: u64) -> f64 {
    let folder = Folder::new("raw-sender", None);
    let output = folder
        .command(sibling("raw-sender"))
        .arg(vhost.broker().stomp_port().to_string())
        .arg(vhost.name())
        .args([rows.to_string(), WINDOW.to_string(), connections.to_string()])
        .output()
        .expect("raw-sender can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "raw-sender: {said}");
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("it prints seconds")
}

/// One run: seconds from its start to its last receipt, and the processor time of a message.
fn walpost(backlog: &mut Backlog<'_>, vhost: &Vhost<'_>, connections: u64) -> (f64, f64) {
    let slot = backlog.copy_slot();
    let builder = backlog
        .walpost(&slot)
        .set("broker.hosts", vhost.broker().stomp_address())
        .set("broker.connections", connections)
        .set("broker.vhost", vhost.name());
    let started = Instant::now();
    let mut walpost = builder.start();
    await_receipts(&mut walpost, backlog.rows(), started);
    let took = started.elapsed();
    let cost = cpu_per_row(&walpost, backlog.rows());
    drop(walpost);
    backlog.drop_slot(&slot);
    (took.as_secs_f64(), cost)
}

/// Asks seldom while much is left, since asking costs walpost processor time.
fn await_receipts(walpost: &mut Walpost, rows: u64, started: Instant) {
    loop {
        let series = walpost.metrics();
        let receipts = series.get("walpost_receipts_total").copied().unwrap_or(0.0) as u64;
        let elapsed = started.elapsed();
        if receipts >= rows {
            return;
        }
        let lives = walpost.ended().is_none() && elapsed < LONG;
        assert!(lives, "{receipts} of {rows} receipts came:\n{}", walpost.log());
        let left = elapsed.as_secs_f64() * (rows - receipts) as f64 / receipts.max(1) as f64;
        std::thread::sleep(Duration::from_secs_f64((left / 2.0).clamp(0.005, 0.5)));
    }
}
