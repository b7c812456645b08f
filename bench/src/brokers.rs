//! A backlog into a real broker, beside raw senders of frames encoded beforehand.

use std::time::{Duration, Instant};

use walpost_testkit::Walpost;
use walpost_testkit::sandbox::Folder;

use crate::backlog::{Backlog, cpu_per_row};
use crate::drain::{between, cost_line};
use crate::frames::Kind;
use crate::programs::{LONG, sibling};
use crate::raw::Job;
use crate::stats::Spread;
use crate::table::{Goal, Line, grouped};

/// Runs of each, in turn.
pub const RUNS: usize = 3;
/// Messages without a receipt, of both.
const WINDOW: usize = 1024;
/// Connections that are tried, of both.
const CONNECTIONS: [usize; 3] = [1, 2, 4];

/// Where messages go.
#[derive(Clone, Debug)]
pub struct Place {
    /// Which broker.
    pub kind: Kind,
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    /// The virtual host.
    pub vhost: String,
    /// A queue that is durable and empty.
    pub destination: String,
}

/// A broker with as many empty queues as there are runs.
pub trait Broker {
    /// For the table.
    const NAME: &'static str;

    /// Has `measure` send messages to an empty queue, and sees that as many are stored as were receipted.
    fn fresh(&self, measure: &mut dyn FnMut(&Place) -> Run);
}

/// What a run found.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Messages that were receipted.
    pub receipts: u64,
    /// The same a second.
    pub rate: f64,
    /// Microseconds of walpost's processor time a message.
    pub cost: f64,
}

/// Who sends, and how.
#[derive(Clone, Copy, Debug)]
pub struct Sender {
    /// Connections.
    pub connections: usize,
    /// Whether in transactions; else each message has a receipt.
    pub transactions: bool,
    /// Messages.
    pub count: u64,
}

impl Sender {
    /// The raw one.
    pub fn raw(self, broker: &impl Broker) -> Run {
        self.run(broker, "raw sender", |place| raw_sender(place, self))
    }

    /// walpost, up to the receipt of message `count`.
    pub fn walpost(self, broker: &impl Broker, backlog: &mut Backlog<'_>) -> Run {
        self.run(broker, "walpost", |place| walpost(place, self, backlog))
    }

    fn run<B: Broker>(self, broker: &B, who: &str, mut measure: impl FnMut(&Place) -> Run) -> Run {
        let mut found = None;
        broker.fresh(&mut |place| {
            let run = measure(place);
            found = Some(run);
            run
        });
        let run = found.expect("a broker has it measured");
        let how = if self.transactions { ", transactions" } else { "" };
        let (name, many, rate) = (B::NAME, self.connections, grouped(run.rate));
        let cost = if run.cost > 0.0 {
            format!(", {:.2} µs of processor a message", run.cost)
        } else {
            String::new()
        };
        eprintln!("{name} on {many}{how}: {who} {rate}/s{cost}");
        run
    }
}

/// walpost's median against the raw sender's best, on each number of connections; the goal is for the one that suits walpost best.
pub fn lanes<B: Broker>(backlog: &mut Backlog<'_>, broker: &B) -> Vec<Line> {
    let count = backlog.rows();
    let sender = |connections| Sender { connections, transactions: false, count };
    // Neither counts: a broker is slower at first.
    sender(1).raw(broker);
    sender(1).walpost(broker, backlog);
    let measured = CONNECTIONS.map(|connections| {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            theirs.push(sender(connections).raw(broker));
            ours.push(sender(connections).walpost(broker, backlog));
        }
        Lanes { connections, ours, theirs }
    });
    judged(B::NAME, &measured)
}

/// The runs on some connections.
struct Lanes {
    connections: usize,
    ours: Vec<Run>,
    theirs: Vec<Run>,
}

fn judged(name: &str, measured: &[Lanes]) -> Vec<Line> {
    let best = measured.iter().map(|lanes| rates(&lanes.ours).median).fold(0.0, f64::max);
    let mut lines = Vec::new();
    for Lanes { connections, ours, theirs } in measured {
        let what = match connections {
            1 => name.to_owned(),
            many => format!("{name} on {many} connections"),
        };
        let is_best = rates(ours).median >= best;
        lines.push(Line {
            goal: if is_best { Goal::RatioAtLeast(0.95) } else { Goal::None },
            ..beside(&what, rates(ours), "raw sender", rates(theirs))
        });
        if is_best {
            lines.push(cost_line(&what, costs(ours)));
        }
    }
    lines
}

/// walpost's median against the best of `who`; without a goal yet.
#[must_use]
pub fn beside(what: &str, walpost: Spread, who: &str, theirs: Spread) -> Line {
    Line {
        what: what.to_owned(),
        walpost: (walpost.median, format!("{}/s", grouped(walpost.median))),
        ceiling: Some((theirs.max, format!("{who} {}/s", grouped(theirs.max)))),
        goal: Goal::None,
        spread: between(walpost, theirs),
    }
}

/// Messages a second.
#[must_use]
pub fn rates(runs: &[Run]) -> Spread {
    Spread::of(&runs.iter().map(|run| run.rate).collect::<Vec<_>>())
}

/// Processor time a message.
#[must_use]
pub fn costs(runs: &[Run]) -> Spread {
    Spread::of(&runs.iter().map(|run| run.cost).collect::<Vec<_>>())
}

/// From the first byte to the last receipt, as it says itself.
fn raw_sender(place: &Place, sender: Sender) -> Run {
    let job = Job {
        kind: place.kind,
        transactions: sender.transactions,
        port: place.port,
        vhost: place.vhost.clone(),
        destination: place.destination.clone(),
        count: usize::try_from(sender.count).expect("few enough"),
        window: WINDOW,
        connections: sender.connections,
    };
    let folder = Folder::new("raw-sender", None);
    let output = folder
        .command(sibling("raw-sender"))
        .args(job.arguments())
        .output()
        .expect("raw-sender can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "raw-sender: {said}");
    let seconds: f64 =
        String::from_utf8_lossy(&output.stdout).trim().parse().expect("it prints seconds");
    Run { receipts: sender.count, rate: sender.count as f64 / seconds, cost: 0.0 }
}

/// From its first receipts to the last: the raw sender is connected, too, when its time begins.
fn walpost(place: &Place, sender: Sender, backlog: &mut Backlog<'_>) -> Run {
    let slot = backlog.copy_slot();
    let builder = backlog
        .walpost(&slot)
        .set("broker.hosts", format!("127.0.0.1:{}", place.port))
        .set("broker.vhost", &place.vhost)
        .set("broker.connections", sender.connections)
        .set("broker.delivery", if sender.transactions { "auto" } else { "receipts" })
        .set("outbox.destination", &place.destination);
    let mut walpost = builder.start();
    let first = await_receipts(&mut walpost, 1);
    let started = Instant::now();
    let receipts = await_receipts(&mut walpost, sender.count);
    let took = started.elapsed();
    let cost = cpu_per_row(&walpost, receipts);
    drop(walpost);
    backlog.drop_slot(&slot);
    Run { receipts, rate: (receipts - first) as f64 / took.as_secs_f64(), cost }
}

/// How many came when at least `count` had come. Asks seldom while much is left, since asking costs walpost processor time.
fn await_receipts(walpost: &mut Walpost, count: u64) -> u64 {
    let started = Instant::now();
    loop {
        let series = walpost.metrics();
        let receipts = series.get("walpost_receipts_total").copied().unwrap_or(0.0) as u64;
        let elapsed = started.elapsed();
        if receipts >= count {
            return receipts;
        }
        let lives = walpost.ended().is_none() && elapsed < LONG;
        assert!(lives, "{receipts} of {count} receipts came:\n{}", walpost.log());
        let left = elapsed.as_secs_f64() * (count - receipts) as f64 / receipts.max(1) as f64;
        std::thread::sleep(Duration::from_secs_f64((left / 2.0).clamp(0.005, 0.5)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_goal_is_for_the_best_number_of_connections() {
        let runs =
            |rates: [f64; 3]| rates.map(|rate| Run { receipts: 1, rate, cost: 2.0 }).to_vec();
        let lanes = |connections, ours, theirs| Lanes {
            connections,
            ours: runs(ours),
            theirs: runs(theirs),
        };
        let lines = judged(
            "queue",
            &[
                // A single fast run does not make it the best.
                lanes(1, [1.0, 2.0, 9.0], [3.0, 3.0, 3.0]),
                lanes(2, [4.0, 4.0, 4.0], [2.0, 5.0, 1.0]),
                lanes(4, [3.0, 3.0, 3.0], [8.0, 8.0, 8.0]),
            ],
        );
        let goals: Vec<_> = lines.iter().map(|line| (line.what.as_str(), line.goal)).collect();
        assert!(
            matches!(
                goals[..],
                [
                    ("queue", Goal::None),
                    ("queue on 2 connections", Goal::RatioAtLeast(_)),
                    ("queue on 2 connections: processor time a message", Goal::AtMost(..)),
                    ("queue on 4 connections", Goal::None),
                ]
            ),
            "{goals:?}"
        );
        assert_eq!(lines[1].walpost.0, 4.0);
        assert_eq!(lines[1].ceiling.as_ref().map(|(theirs, _)| *theirs), Some(5.0));
    }
}
