//! The section `broker`: the STOMP broker, how it is reached and how much is in flight.

use std::time::Duration;

use super::outbox::check_header;
use super::section::Section;
use super::values::{self, HostPort, choice};
use super::{GIB, HOUR, KIB, MS_10, MS_100};
use crate::secret::Secret;

/// The STOMP broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Tried in turn; at least one.
    pub hosts: Vec<HostPort>,
    /// The virtual host: the header `host` of CONNECT.
    pub vhost: String,
    /// The header `login` of CONNECT; empty: none is sent.
    pub username: String,
    /// The header `passcode` of CONNECT.
    pub passcode: Secret,
    /// Heart-beats in both directions.
    pub heartbeat: Heartbeat,
    /// TLS towards the broker.
    pub tls: BrokerTls,
    /// Which broker it is.
    pub kind: BrokerKind,
    /// How a message is known to be stored.
    pub delivery: Delivery,
    /// Whether a body has a content-length.
    pub body: Body,
    /// Lanes: connections that send.
    pub connections: u32,
    /// How much may be sent and not yet receipted, all lanes together.
    pub in_flight: InFlight,
    /// A receipt that takes longer is missing.
    pub receipt_timeout: Duration,
    /// The largest STOMP frame that is sent, in bytes.
    pub max_frame_size: u64,
    /// Headers added to every SEND.
    pub headers: Vec<(String, String)>,
    /// The waits between attempts to connect.
    pub reconnect: Reconnect,
}

/// The header `heart-beat` of CONNECT; zero: none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// At least this often the relay sends something.
    pub send: Duration,
    /// At least this often the broker is to send something.
    pub expect: Duration,
}

/// TLS towards the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerTls {
    /// Whether TLS is used.
    pub enabled: bool,
    /// Certificates of the authorities to trust, PEM; the system's where empty.
    pub ca_file: Option<String>,
    /// The client's own certificate, PEM.
    pub cert_file: Option<String>,
    /// Its private key, PEM.
    pub key_file: Option<String>,
    /// What opens the private key; empty: nothing is needed.
    pub key_password: Secret,
    /// The name that the broker's certificate must have, where it is not the host's.
    pub server_name: Option<String>,
    /// The oldest version of TLS to speak.
    pub min_version: TlsVersion,
}

/// How much may be sent and not yet receipted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// Messages.
    pub messages: u32,
    /// Bytes. One message of any legal size is taken where nothing else is in flight.
    pub bytes: u64,
}

/// The waits between attempts to connect; each is longer than the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reconnect {
    /// The first wait.
    pub initial: Duration,
    /// No wait is longer.
    pub max: Duration,
}

impl BrokerTls {
    /// Whether anything says how TLS is to be spoken.
    fn is_described(&self) -> bool {
        self.ca_file.is_some()
            || self.cert_file.is_some()
            || self.server_name.is_some()
            || self.min_version != TlsVersion::V1_2
    }
}

choice! {
    /// A version of TLS.
    TlsVersion {
        /// TLS 1.2.
        V1_2 = "1.2",
        /// TLS 1.3.
        V1_3 = "1.3",
    }
}

choice! {
    /// Which broker it is.
    BrokerKind {
        /// What the header `server` of CONNECTED says.
        Auto = "auto",
        /// RabbitMQ.
        Rabbitmq = "rabbitmq",
        /// ActiveMQ Classic.
        Activemq = "activemq",
        /// ActiveMQ Artemis.
        Artemis = "artemis",
        /// Any other that speaks STOMP.
        Other = "other",
    }
}

choice! {
    /// How a message is known to be stored.
    Delivery {
        /// As is best for the broker.
        Auto = "auto",
        /// By a receipt for every SEND.
        Receipts = "receipts",
        /// By a receipt for the COMMIT of a STOMP transaction.
        Transactions = "transactions",
    }
}

choice! {
    /// Whether a body has a content-length.
    Body {
        /// It has; JMS consumers get a BytesMessage.
        Bytes = "bytes",
        /// It has not; JMS consumers get a TextMessage.
        Text = "text",
    }
}

pub(super) fn read(section: &mut Section<'_>) -> Broker {
    let broker = Broker {
        hosts: section.list("hosts", &["127.0.0.1:61613"], values::peer),
        vhost: section.text("vhost", "/"),
        username: section.optional("username", "guest", values::text).unwrap_or_default(),
        passcode: section.secret("passcode", "passcode_file", "guest"),
        heartbeat: section.section("heartbeat", |section| Heartbeat {
            send: section.duration("send", "10s", Duration::ZERO..=HOUR),
            expect: section.duration("expect", "10s", Duration::ZERO..=HOUR),
        }),
        tls: section.section("tls", read_tls),
        kind: section.choice("kind", BrokerKind::Auto),
        delivery: section.choice("delivery", Delivery::Auto),
        body: section.choice("body", Body::Bytes),
        connections: section.number("connections", 1, 1..=64),
        in_flight: section.section("in_flight", |section| InFlight {
            messages: section.number("messages", 1024, 1..=1_000_000),
            bytes: section.size("bytes", "16MiB", KIB..=16 * GIB),
        }),
        receipt_timeout: section.duration("receipt_timeout", "30s", MS_100..=HOUR),
        max_frame_size: section.size("max_frame_size", "4MiB", KIB..=GIB),
        headers: section.map("headers", &[("persistent", "true")], check_header),
        reconnect: section.section("reconnect", |section| Reconnect {
            initial: section.duration("initial", "100ms", MS_10..=HOUR),
            max: section.duration("max", "30s", MS_10..=HOUR),
        }),
    };
    if broker.hosts.is_empty() {
        section.problem("hosts", "is empty; write at least one host:port");
    }
    if broker.delivery == Delivery::Transactions {
        // A kind that is not configured is known when the broker has said it.
        match broker.kind {
            BrokerKind::Rabbitmq => section.problem(
                "delivery",
                "transactions prove nothing on RabbitMQ, which sends the receipt of a COMMIT before the messages \
                 are stored; write auto or receipts",
            ),
            BrokerKind::Artemis => section.problem(
                "delivery",
                "transactions are no use on ActiveMQ Artemis, which drops a whole one where it knows a message \
                 of it; write auto or receipts",
            ),
            BrokerKind::Auto | BrokerKind::Activemq | BrokerKind::Other => {}
        }
    }
    if broker.reconnect.max < broker.reconnect.initial {
        section.problem("reconnect.max", "is shorter than broker.reconnect.initial");
    }
    broker
}

fn read_tls(section: &mut Section<'_>) -> BrokerTls {
    let tls = BrokerTls {
        enabled: section.boolean("enabled", false),
        ca_file: section.optional("ca_file", "", values::text),
        cert_file: section.optional("cert_file", "", values::text),
        key_file: section.optional("key_file", "", values::text),
        key_password: section.secret("key_password", "key_password_file", ""),
        server_name: section.optional("server_name", "", values::text),
        min_version: section.choice("min_version", TlsVersion::V1_2),
    };
    if !tls.enabled && tls.is_described() && !section.is_given("enabled") {
        section.problem(
            "enabled",
            "is false, and the keys beside it ask for TLS; write enabled: true",
        );
    }
    if !tls.key_password.is_empty() && tls.key_file.is_none() {
        section.problem("key_password", "needs key_file beside it");
    }
    if tls.cert_file.is_some() && tls.key_file.is_none() {
        section.problem("cert_file", "needs key_file beside it");
    }
    if tls.key_file.is_some() && tls.cert_file.is_none() {
        section.problem("key_file", "needs cert_file beside it");
    }
    tls
}
