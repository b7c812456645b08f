//! Draining a backlog into a broker that only answers receipts, beside `pg_recvlogical` doing the same into nothing: walpost's
//! median against the best of `pg_recvlogical`.

use std::time::Instant;

use walpost_testkit::Postgres;

use crate::backlog::{Backlog, Shape, cpu_per_row};
use crate::programs::ReceiptBroker;
use crate::stats::Spread;
use crate::table::{Goal, Line, grouped};

/// Runs of each, in turn.
const RUNS: usize = 5;

/// Both shapes.
#[must_use]
pub fn run(server: &Postgres, rows: u64) -> Vec<Line> {
    let mut lines = Vec::new();
    for (shape, least) in [(Shape::Single, 1.0), (Shape::Huge, 0.8)] {
        lines.extend(drain(&mut Backlog::new(server, shape, rows), shape, least));
    }
    lines
}

fn drain(backlog: &mut Backlog<'_>, shape: Shape, least: f64) -> [Line; 2] {
    let (mut rates, mut ceilings, mut costs) = (Vec::new(), Vec::new(), Vec::new());
    let rows = backlog.rows();
    for _ in 0..RUNS {
        let (seconds, cost) = walpost(backlog);
        rates.push(rows as f64 / seconds);
        costs.push(cost);
        let (took, _) = backlog.pg_recvlogical();
        ceilings.push(rows as f64 / took.as_secs_f64());
        eprintln!(
            "drain, {}: walpost {}/s ({cost:.2} µs of processor a message), pg_recvlogical {}/s",
            shape.name(),
            grouped(rows as f64 / seconds),
            grouped(rows as f64 / took.as_secs_f64())
        );
    }
    let (rates, ceilings, costs) = (Spread::of(&rates), Spread::of(&ceilings), Spread::of(&costs));
    [
        Line {
            what: format!("drain, {}", shape.name()),
            walpost: (rates.median, format!("{}/s", grouped(rates.median))),
            ceiling: Some((ceilings.max, format!("pg_recvlogical {}/s", grouped(ceilings.max)))),
            goal: Goal::RatioAtLeast(least),
            spread: between(rates, ceilings),
        },
        cost_line(&format!("drain, {}", shape.name()), costs),
    ]
}

/// One run: seconds from its start to its last receipt, and the processor time of a message.
fn walpost(backlog: &mut Backlog<'_>) -> (f64, f64) {
    let mut broker = ReceiptBroker::start();
    let slot = backlog.copy_slot();
    let builder = backlog.walpost(&slot).set("broker.hosts", &broker.address);
    let started = Instant::now();
    let mut walpost = builder.start();
    broker.await_sends(&mut walpost, backlog.rows());
    let took = started.elapsed();
    let cost = cpu_per_row(&walpost, backlog.rows());
    drop(walpost);
    backlog.drop_slot(&slot);
    (took.as_secs_f64(), cost)
}

/// How far the runs of both lie apart.
#[must_use]
pub fn between(walpost: Spread, ceiling: Spread) -> String {
    let [a, b, c, d] = [walpost.min, walpost.max, ceiling.min, ceiling.max].map(grouped);
    format!("{a} … {b} beside {c} … {d}")
}

/// The line about processor time.
#[must_use]
pub fn cost_line(what: &str, costs: Spread) -> Line {
    Line {
        what: format!("{what}: processor time a message"),
        walpost: (costs.median, format!("{:.2} µs", costs.median)),
        ceiling: None,
        goal: Goal::AtMost(4.0, "µs"),
        spread: format!("{:.2} … {:.2}", costs.min, costs.max),
    }
}
