//! Frames as walpost writes them, for each broker.

use walpost_testkit::stomp::Frame;

/// Where the rows go, without the version.
pub const DESTINATION: &str = "/queue/bench";
/// The queue that RabbitMQ makes of it.
pub const QUEUE: &str = "bench.v1";
/// Bytes of a body.
pub const BODY: usize = 200;
/// The first number of a receipt: of as many digits as walpost's.
pub const FIRST_RECEIPT: usize = 1_048_576;

/// Whose headers a message gets beside the common ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// RabbitMQ.
    RabbitMq,
    /// ActiveMQ Classic.
    ActiveMq,
    /// ActiveMQ Artemis.
    Artemis,
}

/// What proves that a message is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof<'a> {
    /// Its own receipt, of this number.
    Receipt(usize),
    /// The receipt of the COMMIT of this transaction.
    Transaction(&'a str),
}

/// The body of every row: JSON of [`BODY`] bytes, as PostgreSQL prints it.
#[must_use]
pub fn body() -> String {
    let around = r#"{"data": ""}"#.len();
    format!(r#"{{"data": "{}"}}"#, "x".repeat(BODY - around))
}

/// CONNECT as `guest`.
#[must_use]
pub fn connect(vhost: &str) -> Vec<u8> {
    let headers = [
        ("accept-version", "1.2"),
        ("host", vhost),
        ("login", "guest"),
        ("passcode", "guest"),
        ("heart-beat", "0,0"),
    ];
    Frame::new("CONNECT", &headers).encode()
}

/// The message `number` for `destination`, with the headers that walpost sets.
#[must_use]
pub fn send(kind: Kind, destination: &str, number: usize, proof: Proof<'_>, body: &str) -> Vec<u8> {
    let id = format!("00000000-0000-4000-8000-{number:012}");
    let length = body.len().to_string();
    let (proof, proves) = match proof {
        Proof::Receipt(receipt) => ("receipt", receipt.to_string()),
        Proof::Transaction(name) => ("transaction", name.to_owned()),
    };
    let mut headers = vec![
        ("destination", destination),
        (proof, proves.as_str()),
        ("content-length", length.as_str()),
        ("content-type", "application/json"),
        ("msg-id", id.as_str()),
        ("msg-destination", destination),
        ("msg-type", "Published"),
        ("msg-sent-time", "2026-01-31 12:00:00.123456+00:00"),
        ("persistent", "true"),
    ];
    match kind {
        Kind::RabbitMq => headers.push(("amqp-message-id", &id)),
        Kind::Artemis => {
            headers.extend([("_AMQ_DUPL_ID", id.as_str()), ("destination-type", "ANYCAST")]);
        }
        Kind::ActiveMq => {}
    }
    Frame::new("SEND", &headers).with_body(body).encode()
}

/// BEGIN of a transaction.
#[must_use]
pub fn begin(transaction: &str) -> Vec<u8> {
    Frame::new("BEGIN", &[("transaction", transaction)]).encode()
}

/// COMMIT of a transaction, with a receipt of the same name.
#[must_use]
pub fn commit(transaction: &str) -> Vec<u8> {
    Frame::new("COMMIT", &[("transaction", transaction), ("receipt", transaction)]).encode()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_its_length() {
        assert_eq!(body().len(), BODY);
    }

    #[test]
    fn each_broker_gets_its_headers() {
        for (kind, own) in [
            (Kind::RabbitMq, vec!["amqp-message-id:"]),
            (Kind::ActiveMq, vec![]),
            (Kind::Artemis, vec!["_AMQ_DUPL_ID:", "destination-type:ANYCAST"]),
        ] {
            let text = String::from_utf8(send(kind, "/queue/a", 7, Proof::Receipt(9), "b"));
            let text = text.expect("frames of text");
            let lines: Vec<&str> = text.lines().collect();
            assert!(lines.contains(&"receipt:9"), "{kind:?}: {text}");
            for header in ["amqp-message-id:", "_AMQ_DUPL_ID:", "destination-type:ANYCAST"] {
                let there = lines.iter().any(|line| line.starts_with(header));
                assert_eq!(there, own.contains(&header), "{kind:?}: {text}");
            }
        }
    }
}
