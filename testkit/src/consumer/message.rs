//! A message as it arrived.

use std::time::Instant;

use crate::stomp::Frame;

/// A message as it arrived.
#[derive(Clone, Debug)]
pub struct Message {
    /// The header `destination`.
    pub destination: String,
    /// All headers, unescaped.
    pub headers: Vec<(String, String)>,
    /// The body's bytes.
    pub body: Vec<u8>,
    /// When it was read.
    pub at: Instant,
}

impl Message {
    pub(super) fn of(frame: Frame) -> Self {
        let destination = frame.header("destination").unwrap_or_default().to_owned();
        Self { destination, headers: frame.headers, body: frame.body, at: Instant::now() }
    }

    /// The value of the first header `name`.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON, `Null` where it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}
