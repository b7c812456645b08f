//! From exec to streaming.

use std::time::Instant;

use walpost_testkit::Postgres;

use crate::backlog::{Backlog, Shape};
use crate::programs::{LONG, ReceiptBroker};
use crate::stats::Spread;
use crate::table::{Goal, Line};

const RUNS: usize = 15;

/// walpost reads the slot and is connected to a broker; `pg_recvlogical` reads the slot.
#[must_use]
pub fn run(server: &Postgres) -> Vec<Line> {
    let mut backlog = Backlog::new(server, Shape::Single, 1);
    let broker = ReceiptBroker::start();
    let (mut starts, mut ceilings) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let slot = backlog.copy_slot();
        let builder = backlog.walpost(&slot).set("broker.hosts", &broker.address);
        let started = Instant::now();
        let walpost = builder.start();
        walpost.wait_for_log("streaming from slot", LONG);
        walpost.wait_for_log("connected to the broker", LONG);
        starts.push(started.elapsed().as_secs_f64() * 1e3);
        drop(walpost);
        backlog.drop_slot(&slot);
        let (_, streaming) = backlog.pg_recvlogical();
        ceilings.push(streaming.as_secs_f64() * 1e3);
    }
    let (starts, ceilings) = (Spread::of(&starts), Spread::of(&ceilings));
    vec![Line {
        what: "start to streaming".to_owned(),
        walpost: (starts.median, format!("{:.0} ms", starts.median)),
        ceiling: Some((ceilings.median, format!("pg_recvlogical {:.0} ms", ceilings.median))),
        goal: Goal::AtMost(100.0, "ms"),
        spread: format!(
            "{:.0} … {:.0} beside {:.0} … {:.0}",
            starts.min, starts.max, ceilings.min, ceilings.max
        ),
    }]
}
