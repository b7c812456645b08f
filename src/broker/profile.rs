//! What differs from broker to broker.

use std::fmt;
use std::time::Duration;

use crate::outbox::Message;

/// Which broker it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// RabbitMQ's STOMP plugin.
    RabbitMq,
    /// ActiveMQ Classic.
    ActiveMq,
    /// ActiveMQ Artemis.
    Artemis,
    /// Some other; receipts are used.
    Other,
}

/// How a message is known to be stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// As is best for the broker.
    #[default]
    Auto,
    /// By a receipt for every SEND.
    Receipts,
    /// By a receipt for the COMMIT of a STOMP transaction.
    Transactions,
}

impl Kind {
    /// From the `server` header of CONNECTED, which may be missing.
    #[must_use]
    pub fn of_server(server: Option<&str>) -> Kind {
        let product = server.and_then(|server| server.split('/').next()).unwrap_or("");
        match product {
            "RabbitMQ" => Kind::RabbitMq,
            "ActiveMQ" => Kind::ActiveMq,
            "ActiveMQ-Artemis" => Kind::Artemis,
            _ => Kind::Other,
        }
    }

    /// The name that the configuration uses.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::RabbitMq => "rabbitmq",
            Kind::ActiveMq => "activemq",
            Kind::Artemis => "artemis",
            Kind::Other => "other",
        }
    }

    /// Whether messages are sent in transactions, as `delivery` wants it.
    ///
    /// # Errors
    /// Transactions are wanted, and prove nothing at this broker: why.
    pub(super) fn transactions(self, delivery: Delivery) -> Result<bool, &'static str> {
        match (delivery, self) {
            (Delivery::Receipts, _) => Ok(false),
            (Delivery::Auto, kind) => Ok(kind == Kind::ActiveMq),
            // Seen on 3.10 to 4.3.
            (Delivery::Transactions, Kind::RabbitMq) => {
                Err("RabbitMQ sends the receipt of a COMMIT before the messages are stored")
            }
            (Delivery::Transactions, Kind::Artemis) => {
                Err("ActiveMQ Artemis drops a whole transaction where it knows one of its messages")
            }
            (Delivery::Transactions, Kind::ActiveMq | Kind::Other) => Ok(true),
        }
    }

    /// How long a new connection waits before it sends, since the broker may still read what came on the
    /// one before it: Artemis looks whether it knows an id, and stores the message, in two steps, and
    /// what two connections bring at the same moment may be stored twice (seen on 2.40). The other
    /// brokers know no ids.
    pub(super) fn settles(self) -> Duration {
        match self {
            Kind::Artemis => Duration::from_secs(1),
            Kind::RabbitMq | Kind::ActiveMq | Kind::Other => Duration::ZERO,
        }
    }

    /// The headers that this kind of broker gets beside the message's own, each left out where the
    /// message has one of that name.
    pub(super) fn headers(
        self,
        message: &Message,
        amqp_message_id: bool,
    ) -> impl Iterator<Item = (&str, &str)> {
        let [first, second] = match self {
            // Becomes the AMQP property message_id.
            Kind::RabbitMq => [amqp_message_id.then_some(("amqp-message-id", message.id())), None],
            // The broker drops an id that it has stored; and without a type a SEND to a queue that
            // nobody made is answered with a RECEIPT and thrown away (seen on 2.40).
            Kind::Artemis => {
                let kind = match message.destination() {
                    queue if queue.starts_with("/queue/") => Some("ANYCAST"),
                    topic if topic.starts_with("/topic/") => Some("MULTICAST"),
                    _ => None,
                };
                [Some(("_AMQ_DUPL_ID", message.id())), kind.map(|kind| ("destination-type", kind))]
            }
            Kind::ActiveMq | Kind::Other => [None, None],
        };
        [first, second].into_iter().flatten().filter(|(name, _)| message.header(name).is_none())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_header_tells() {
        for (server, kind) in [
            (Some("RabbitMQ/3.10.8"), Kind::RabbitMq),
            (Some("ActiveMQ/5.17.2"), Kind::ActiveMq),
            (Some("ActiveMQ-Artemis/2.40.0 ActiveMQ Artemis Messaging Engine"), Kind::Artemis),
            (Some("Apollo/1.7"), Kind::Other),
            (None, Kind::Other),
        ] {
            assert_eq!(Kind::of_server(server), kind, "{server:?}");
        }
    }
    #[test]
    fn transactions_where_their_receipt_proves_something() {
        use Delivery::{Auto, Receipts, Transactions};
        for (kind, auto, wanted) in [
            (Kind::RabbitMq, false, false),
            (Kind::ActiveMq, true, true),
            (Kind::Artemis, false, false),
            (Kind::Other, false, true),
        ] {
            assert_eq!(kind.transactions(Auto), Ok(auto), "{kind}");
            assert_eq!(kind.transactions(Receipts), Ok(false), "{kind}");
            assert_eq!(kind.transactions(Transactions).is_ok(), wanted, "{kind}");
        }
    }
}
