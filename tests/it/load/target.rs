//! The broker that a load goes to.

use walpost_testkit::consumer::Builder;
use walpost_testkit::{ActiveMq, Artemis, Consumer, RabbitMq, Vhost};

use super::model::{destination_of, queue_of};

/// The broker that a load goes to. Those without virtual hosts take one load each.
pub enum Target<'a> {
    RabbitMq(Vhost<'a>),
    ActiveMq(&'a ActiveMq),
    Artemis(&'a Artemis),
}

impl Target<'_> {
    pub fn stomp_port(&self) -> u16 {
        match self {
            Target::RabbitMq(vhost) => vhost.broker().stomp_port(),
            Target::ActiveMq(broker) => broker.stomp_port(),
            Target::Artemis(broker) => broker.stomp_port(),
        }
    }

    /// For `broker.vhost`.
    pub fn vhost(&self) -> &str {
        match self {
            Target::RabbitMq(vhost) => vhost.name(),
            Target::ActiveMq(_) | Target::Artemis(_) => "/",
        }
    }

    /// Whether messages arrive in the order of their sending also when their connection was lost meanwhile. Artemis 2.40
    /// does not: what was on its way then is added to the queue up to ten seconds later (a thread that closes the
    /// connection waits so long for one that wants to send a RECEIPT on it).
    pub fn keeps_order(&self) -> bool {
        !matches!(self, Target::Artemis(_))
    }

    /// Makes the durable queues where a SEND does not.
    pub fn declare(&self, destinations: usize) {
        if let Target::RabbitMq(vhost) = self {
            (0..destinations).for_each(|number| vhost.declare_queue(&queue_of(number)));
        }
    }

    /// A reader of all destinations.
    pub fn consumer(&self, destinations: usize) -> Builder {
        let consumer = Consumer::builder(self.stomp_port()).vhost(self.vhost());
        let consumer = match self {
            Target::Artemis(_) => consumer.anycast(),
            _ => consumer,
        };
        (0..destinations).fold(consumer, |consumer, number| match self {
            Target::RabbitMq(_) => consumer.subscribe(&format!("/amq/queue/{}", queue_of(number))),
            _ => consumer.subscribe(&format!("{}.v1", destination_of(number))),
        })
    }
}

impl<'a> From<&'a RabbitMq> for Target<'a> {
    fn from(broker: &'a RabbitMq) -> Self {
        Target::RabbitMq(broker.fresh_vhost())
    }
}

impl<'a> From<&'a ActiveMq> for Target<'a> {
    fn from(broker: &'a ActiveMq) -> Self {
        Target::ActiveMq(broker)
    }
}

impl<'a> From<&'a Artemis> for Target<'a> {
    fn from(broker: &'a Artemis) -> Self {
        Target::Artemis(broker)
    }
}
