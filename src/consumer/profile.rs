//! What differs from broker to broker when reading: pure.

use crate::broker::profile::Kind;
use crate::stomp::Version;
use crate::stomp::consume::AckMode;

/// The prefix of a queue's dead letters.
const DEAD_LETTERS: &str = "DLQ.";
/// What a message is taken for where only bytes can be said to be sent ahead.
const TYPICAL_MESSAGE: u64 = 1024;

/// A subscription as one kind of broker wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// What is subscribed to and left again, so that it exists: the dead letters' queue.
    pub made_before: Option<Subscription>,
    /// The subscription itself.
    pub subscription: Subscription,
    /// How messages are acknowledged.
    pub ack: AckMode,
    /// Where a refused message is sent to before it is acknowledged; none: NACK does it.
    pub dead_letters: Option<DeadLetters>,
    /// More headers of a NACK.
    pub nack: &'static [(&'static str, &'static str)],
}

/// One SUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Its destination.
    pub destination: String,
    /// Its headers beside `id`, `destination` and `ack`.
    pub headers: Vec<(String, String)>,
}

/// Where a refused message is sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetters {
    /// The destination.
    pub destination: String,
    /// Headers that the broker needs beside the message's own.
    pub headers: &'static [(&'static str, &'static str)],
}

/// What a consumer wants of the broker.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// What is subscribed to.
    pub destination: &'a str,
    /// The queue's name.
    pub queue: &'a str,
    /// Messages that are sent ahead.
    pub prefetch: u32,
    /// Messages handled at the same time.
    pub concurrency: usize,
    /// Headers of the configuration, which win.
    pub headers: &'a [(String, String)],
}

impl Wanted<'_> {
    /// The subscription at this kind of broker.
    #[must_use]
    pub fn at(&self, kind: Kind, version: Version) -> Profile {
        let individual = match version {
            Version::V1_0 => AckMode::Client,
            _ => AckMode::ClientIndividual,
        };
        let mut profile = Profile {
            made_before: None,
            subscription: Subscription {
                destination: self.destination.to_owned(),
                headers: Vec::new(),
            },
            ack: individual,
            dead_letters: None,
            nack: &[],
        };
        let name = self.subscription_name();
        match kind {
            Kind::RabbitMq => {
                let (dead, of_dead) =
                    (self.dead_letters(), format!("DLQ.DLQ.{}", self.dead_letters()));
                profile.made_before = Some(Subscription {
                    destination: dead.clone(),
                    headers: self.rabbitmq(&dead, &of_dead),
                });
                profile.subscription.headers = self.rabbitmq(self.queue, &dead);
                profile.nack = &[("requeue", "false")];
                if self.concurrency == 1 {
                    // One at a time: an ACK may stand for those before it.
                    profile.ack = AckMode::Client;
                }
            }
            Kind::ActiveMq => {
                let mut headers =
                    vec![("activemq.prefetchSize".to_owned(), self.prefetch.to_string())];
                if let Some(name) = name {
                    headers.push(("activemq.subscriptionName".to_owned(), name));
                }
                profile.subscription.headers = headers;
            }
            Kind::Artemis => {
                // After the first message there is room as long as the window is not used up.
                let window = u64::from(self.prefetch - 1) * TYPICAL_MESSAGE + 1;
                let mut headers = vec![("consumer-window-size".to_owned(), window.to_string())];
                match name {
                    Some(name) => {
                        headers.push(("durable-subscription-name".to_owned(), name));
                        headers.push(("subscription-type".to_owned(), "MULTICAST".to_owned()));
                    }
                    None => headers.push(("subscription-type".to_owned(), "ANYCAST".to_owned())),
                }
                profile.subscription.headers = headers;
            }
            Kind::Other => {}
        }
        // Read in Artemis' source: a NACK is an ACK there. STOMP 1.0 has none.
        if kind == Kind::Artemis || version == Version::V1_0 {
            profile.dead_letters = Some(DeadLetters {
                destination: match kind {
                    Kind::RabbitMq => self.dead_letters(),
                    _ => format!("/queue/{}", self.dead_letters()),
                },
                headers: match kind {
                    Kind::Artemis => &[("destination-type", "ANYCAST")],
                    _ => &[],
                },
            });
        }
        for (name, value) in self.headers {
            profile.subscription.headers.retain(|(own, _)| own != name);
            profile.subscription.headers.push((name.clone(), value.clone()));
        }
        profile
    }

    /// The `client-id` of CONNECT, without which the two ActiveMQ have no durable subscription. With it a
    /// second consumer of the same name waits until the first one is gone.
    #[must_use]
    pub fn client_id(&self) -> Option<String> {
        self.subscription_name().map(|name| format!("walpost-{name}"))
    }

    /// The name of a durable subscription to a topic, in characters that need no escaping anywhere.
    fn subscription_name(&self) -> Option<String> {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
        self.destination.starts_with("/topic/").then(|| self.queue.chars().map(plain).collect())
    }

    fn dead_letters(&self) -> String {
        format!("{DEAD_LETTERS}{}", self.queue)
    }

    /// As django-outbox-pattern declares its queues, so that either finds the other's as it expects them.
    fn rabbitmq(&self, queue: &str, dead_letters: &str) -> Vec<(String, String)> {
        [
            ("durable", "true"),
            ("auto-delete", "false"),
            ("prefetch-count", self.prefetch.to_string().as_str()),
            ("x-queue-name", queue),
            ("x-dead-letter-exchange", ""),
            ("x-dead-letter-routing-key", dead_letters),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted<'a>(destination: &'a str, headers: &'a [(String, String)]) -> Wanted<'a> {
        Wanted { destination, queue: "orders", prefetch: 3, concurrency: 1, headers }
    }

    fn lines(subscription: &Subscription) -> Vec<String> {
        let lines = subscription.headers.iter();
        lines.map(|(name, value)| format!("{name}:{value}")).collect()
    }

    #[test]
    fn rabbitmq_gets_the_predecessors_headers() {
        let profile = wanted("/topic/orders.v1", &[]).at(Kind::RabbitMq, Version::V1_2);
        assert_eq!(
            lines(&profile.subscription),
            [
                "durable:true",
                "auto-delete:false",
                "prefetch-count:3",
                "x-queue-name:orders",
                "x-dead-letter-exchange:",
                "x-dead-letter-routing-key:DLQ.orders"
            ]
        );
        let before = profile.made_before.unwrap();
        assert_eq!(before.destination, "DLQ.orders");
        assert_eq!(lines(&before)[3], "x-queue-name:DLQ.orders");
        assert_eq!(lines(&before)[5], "x-dead-letter-routing-key:DLQ.DLQ.DLQ.orders");
        assert_eq!((profile.ack, profile.dead_letters), (AckMode::Client, None));
        let several = Wanted { concurrency: 2, ..wanted("/queue/orders", &[]) };
        assert_eq!(several.at(Kind::RabbitMq, Version::V1_2).ack, AckMode::ClientIndividual);
    }

    #[test]
    fn topics_of_activemq_are_durable_and_queues_are_shared() {
        let topic = wanted("/topic/orders.v1", &[]);
        assert_eq!(
            lines(&topic.at(Kind::ActiveMq, Version::V1_2).subscription),
            ["activemq.prefetchSize:3", "activemq.subscriptionName:orders"]
        );
        assert_eq!(topic.client_id().as_deref(), Some("walpost-orders"));
        let queue = wanted("/queue/orders", &[]);
        let profile = queue.at(Kind::ActiveMq, Version::V1_2);
        assert_eq!(lines(&profile.subscription), ["activemq.prefetchSize:3"]);
        assert_eq!((queue.client_id(), profile.dead_letters), (None, None));
    }

    #[test]
    fn artemis_gets_its_dead_letters_from_us() {
        let queue = wanted("/queue/orders", &[]).at(Kind::Artemis, Version::V1_2);
        assert_eq!(
            lines(&queue.subscription),
            ["consumer-window-size:2049", "subscription-type:ANYCAST"]
        );
        assert_eq!(queue.dead_letters.unwrap().destination, "/queue/DLQ.orders");
        let topic = wanted("/topic/orders", &[]).at(Kind::Artemis, Version::V1_2);
        assert!(
            lines(&topic.subscription).contains(&"durable-subscription-name:orders".to_owned())
        );
    }

    #[test]
    fn the_configurations_headers_win() {
        let own = [("x-queue-type".to_owned(), "quorum".to_owned())];
        let own = [&own[..], &[("durable".to_owned(), "false".to_owned())]].concat();
        let lines = lines(&wanted("/queue/q", &own).at(Kind::RabbitMq, Version::V1_2).subscription);
        assert!(lines.contains(&"x-queue-type:quorum".to_owned()));
        assert!(lines.contains(&"durable:false".to_owned()));
        assert!(!lines.contains(&"durable:true".to_owned()));
    }

    #[test]
    fn a_version_without_nack_gets_its_dead_letters_from_us() {
        let profile = wanted("/queue/q", &[]).at(Kind::Other, Version::V1_0);
        assert_eq!(profile.ack, AckMode::Client);
        assert!(profile.dead_letters.is_some());
        assert_eq!(wanted("/queue/q", &[]).at(Kind::Other, Version::V1_1).dead_letters, None);
    }
}
