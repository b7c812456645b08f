//! How to reach the broker.

use std::time::Duration;

use super::profile::{Delivery, Kind};
use crate::net::tls::Tls;
use crate::net::{Address, PlainPassword};
use crate::secret::Secret;

/// How to reach the broker, and how to speak to it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Tried in turn.
    pub hosts: Vec<Address>,
    /// Whether TLS is spoken, and how.
    pub tls: Option<Tls>,
    /// Whether it was said that the passcode can be read on the way.
    pub plain_password: PlainPassword,
    /// The `host` of CONNECT: RabbitMQ's virtual host.
    pub vhost: String,
    /// The `login` of CONNECT; empty: none.
    pub username: String,
    /// The `passcode` of CONNECT.
    pub passcode: Secret,
    /// How often we can send a heart-beat.
    pub heartbeat_send: Duration,
    /// How often we want to hear one.
    pub heartbeat_expect: Duration,
    /// `None`: as the broker's CONNECTED says.
    pub kind: Option<Kind>,
    /// How a message is known to be stored.
    pub delivery: Delivery,
    /// Whether SENDs carry `content-length`. Without it JMS consumers get a TextMessage.
    pub content_length: bool,
    /// Whether RabbitMQ gets the message's id as `amqp-message-id`, too.
    pub amqp_message_id: bool,
    /// The first wait after a failure; doubled each time, with jitter.
    pub reconnect_initial: Duration,
    /// The longest wait.
    pub reconnect_max: Duration,
    /// For a TCP connection and for the answer to CONNECT, each.
    pub connect_timeout: Duration,
}
