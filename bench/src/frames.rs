//! SEND frames as walpost writes them for RabbitMQ.

use walpost_testkit::stomp::Frame;

/// Where the rows go, without the version.
pub const DESTINATION: &str = "/queue/bench";
/// The queue that RabbitMQ makes of it.
pub const QUEUE: &str = "bench.v1";
/// Bytes of a body.
pub const BODY: usize = 200;

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

/// One message, with the headers that walpost sets and the receipt `number`.
#[must_use]
pub fn send(number: usize, body: &str) -> Vec<u8> {
    let id = format!("00000000-0000-4000-8000-{number:012}");
    let destination = format!("{DESTINATION}.v1");
    let headers = [
        ("destination", destination.as_str()),
        ("receipt", &(1_048_576 + number).to_string()),
        ("content-length", &body.len().to_string()),
        ("content-type", "application/json"),
        ("msg-id", &id),
        ("msg-destination", &destination),
        ("msg-type", "Published"),
        ("msg-sent-time", "2026-01-31 12:00:00.123456+00:00"),
        ("persistent", "true"),
        ("amqp-message-id", &id),
    ];
    Frame::new("SEND", &headers).with_body(body).encode()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_body_has_its_length() {
        assert_eq!(super::body().len(), super::BODY);
    }
}
