//! A backlog into a durable queue of RabbitMQ.

use walpost_testkit::{Postgres, RabbitMq, until};

use crate::backlog::{Backlog, Shape};
use crate::brokers::{self, Broker, Place, Run};
use crate::frames::{self, Kind};
use crate::programs::LONG;
use crate::table::Line;

/// On each number of connections.
#[must_use]
pub fn run(server: &Postgres, broker: &RabbitMq, rows: u64) -> Vec<Line> {
    brokers::lanes(&mut Backlog::new(server, Shape::Single, rows), broker)
}

impl Broker for RabbitMq {
    const NAME: &'static str = "RabbitMQ, durable queue";

    /// In a virtual host of its own, with which the messages go.
    fn fresh(&self, measure: &mut dyn FnMut(&Place) -> Run) {
        let vhost = self.fresh_vhost();
        vhost.declare_queue(frames::QUEUE);
        let run = measure(&Place {
            kind: Kind::RabbitMq,
            port: self.stomp_port(),
            vhost: vhost.name().to_owned(),
            destination: format!("{}.v1", frames::DESTINATION),
        });
        until(LONG, "what was receipted is stored", || vhost.depth(frames::QUEUE) >= run.receipts);
    }
}
