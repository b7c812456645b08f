//! A backlog into ActiveMQ Classic and Artemis, which run in Java and have no virtual hosts.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use walpost_testkit::{ActiveMq, Artemis, Consumer, Postgres};

use crate::backlog::{Backlog, Shape};
use crate::brokers::{self, Broker, Place, RUNS, Run, Sender, beside, costs, rates};
use crate::drain::cost_line;
use crate::frames::Kind;
use crate::programs::LONG;
use crate::table::{Goal, Line};

/// Messages of a run with a receipt each at ActiveMQ Classic: it syncs the disk for each.
const SYNCED: u64 = 10_000;
/// What walpost left on its way when it was killed has come by then.
const QUIET: Duration = Duration::from_millis(500);

/// Artemis: on each number of connections.
#[must_use]
pub fn artemis(server: &Postgres, rows: u64) -> Vec<Line> {
    brokers::lanes(&mut Backlog::new(server, Shape::Single, rows), &Artemis::start_roomy())
}

/// ActiveMQ Classic: transactions beside a raw sender's, and beside a receipt a message.
#[must_use]
pub fn activemq(server: &Postgres, rows: u64) -> Vec<Line> {
    let (mut backlog, broker) =
        (Backlog::new(server, Shape::Single, rows), ActiveMq::start_roomy());
    let grouped = Sender { connections: 1, transactions: true, count: rows };
    let single = Sender { connections: 1, transactions: false, count: SYNCED.min(rows) };
    // Neither counts: the broker is slower at first.
    grouped.raw(&broker);
    grouped.walpost(&broker, &mut backlog);
    let (mut ours, mut theirs, mut ours_single, mut theirs_single) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        theirs.push(grouped.raw(&broker));
        ours.push(grouped.walpost(&broker, &mut backlog));
        theirs_single.push(single.raw(&broker));
        ours_single.push(single.walpost(&broker, &mut backlog));
    }
    let (name, rate) = (ActiveMq::NAME, rates(&ours));
    let line = |what: &str, who, theirs: &[Run], least| Line {
        goal: Goal::RatioAtLeast(least),
        ..beside(&format!("{name}{what}"), rate, who, rates(theirs))
    };
    vec![
        line("", "raw transactions", &theirs, 0.95),
        line(", beside a receipt a message", "raw sender", &theirs_single, 5.0),
        line(", beside a receipt a message", "walpost", &ours_single, 5.0),
        cost_line(name, costs(&ours)),
    ]
}

impl Broker for Artemis {
    const NAME: &'static str = "Artemis, durable queue";

    fn fresh(&self, measure: &mut dyn FnMut(&Place) -> Run) {
        in_new_queue(Kind::Artemis, self.stomp_port(), measure);
    }
}

impl Broker for ActiveMq {
    const NAME: &'static str = "ActiveMQ Classic, durable queue";

    fn fresh(&self, measure: &mut dyn FnMut(&Place) -> Run) {
        in_new_queue(Kind::ActiveMq, self.stomp_port(), measure);
    }
}

/// The messages are read off afterwards: it shows that they were stored, and the broker has its memory back.
fn in_new_queue(kind: Kind, port: u16, measure: &mut dyn FnMut(&Place) -> Run) {
    static QUEUES: AtomicU32 = AtomicU32::new(0);
    let number = QUEUES.fetch_add(1, Ordering::Relaxed);
    let destination = format!("/queue/bench-{number}");
    let place = Place { kind, port, vhost: "/".to_owned(), destination };
    let run = measure(&place);
    let reader = Consumer::builder(port).subscribe(&place.destination).each(drop);
    let reader = if kind == Kind::Artemis { reader.anycast() } else { reader }.start();
    reader.wait_until(LONG, "what was receipted is stored", |state| state.count >= run.receipts);
    let _ = reader.drain(QUIET);
}
