//! What users of django-outbox-pattern have: the package itself, and Python's `stomp.py` to read with.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::consumer::Message;

const READ: &str = include_str!("../py/read.py");
const PREDECESSOR: &str = include_str!("../py/predecessor.py");

/// The Python that has `stomp.py`: `WALPOST_PYTHON`, else the one that `make install` puts into `target/venv`.
#[must_use]
pub fn interpreter() -> PathBuf {
    std::env::var_os("WALPOST_PYTHON").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/venv/bin/python")),
        PathBuf::from,
    )
}

/// Reads `count` messages of `destination` (and acknowledges them) with `stomp.py`; panics if they do not come within
/// `timeout`.
#[must_use]
#[track_caller]
pub fn read_messages(
    port: u16,
    vhost: &str,
    destination: &str,
    count: usize,
    timeout: Duration,
) -> Vec<Message> {
    let output = Command::new(interpreter())
        .args(["-c", READ, &port.to_string(), vhost, destination])
        .args([count.to_string(), timeout.as_secs_f64().to_string()])
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}; run `make install`", interpreter().display()));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "stomp.py did not get {count} messages: {said}");
    String::from_utf8_lossy(&output.stdout).lines().map(parse).collect()
}

/// Runs the Django project of `py/predecessor.py`, whose models django-outbox-pattern publishes, in the database of `url`:
/// `create` makes its tables, `save` saves its models.
#[track_caller]
pub fn predecessor(url: &str, command: &str) {
    let output = Command::new(interpreter())
        .args(["-c", PREDECESSOR, url, command])
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}; run `make install`", interpreter().display()));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "django-outbox-pattern: {said}");
}

fn parse(line: &str) -> Message {
    let value: serde_json::Value = serde_json::from_str(line).expect("the script prints JSON");
    let headers: Vec<(String, String)> = value["headers"]
        .as_object()
        .expect("headers")
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect();
    let destination = value["headers"]["destination"].as_str().unwrap_or_default().to_owned();
    let body = decode(value["body"].as_str().expect("a body"));
    Message { destination, headers, body, at: Instant::now() }
}

/// Base64 with the standard alphabet and padding.
fn decode(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let (mut bits, mut count) = (0u32, 0);
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            _ => 63,
        };
        bits = bits << 6 | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn base64_is_read() {
        assert_eq!(decode("aGVsbG8="), b"hello");
        assert_eq!(decode("AP+/"), [0, 0xff, 0xbf]);
        assert_eq!(decode(""), b"");
    }
}
