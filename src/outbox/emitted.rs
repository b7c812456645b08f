//! What `walpost.emit` writes into the log: a line of JSON that says for whom it is, then the body.
//!
//! ```text
//! {"id": "…", "destination": "/topic/orders", "version": "v1", "key": null, "headers": {…}, "bytes": false}⏎
//! the body, to the end
//! ```
//!
//! `jsonb` prints no line feed, so the first one ends the line; the body needs no escapes, and is sent as it
//! stands. `sql/0007_emit.sql` writes it.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::unfit::UnfitReason;

/// The first line.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Head<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    destination: Cow<'a, str>,
    #[serde(borrow, default)]
    version: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    key: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    headers: Option<&'a RawValue>,
    /// Whether the body came as a `bytea`.
    #[serde(default)]
    bytes: bool,
}

/// A message of `walpost.emit`.
#[derive(Debug)]
pub(super) struct Emitted<'a> {
    head: Head<'a>,
    body: &'a [u8],
}

impl<'a> Emitted<'a> {
    /// Reads the content of a logical message, or its beginning as far as that has the first line.
    pub(super) fn read(content: &'a [u8]) -> Result<Emitted<'a>, UnfitReason> {
        let end = memchr::memchr(b'\n', content);
        let (line, body) = match end {
            Some(end) => (&content[..end], &content[end + 1..]),
            None => (content, &content[content.len()..]),
        };
        match serde_json::from_slice(line) {
            Ok(head) => Ok(Emitted { head, body }),
            // serde_json's own words may quote what was written.
            Err(error) => Err(UnfitReason::NotEmitted { column: error.column() }),
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.head.id
    }

    pub(super) fn destination(&self) -> &str {
        &self.head.destination
    }

    pub(super) fn version(&self) -> Option<&str> {
        self.head.version.as_deref()
    }

    pub(super) fn key(&self) -> Option<&str> {
        self.head.key.as_deref()
    }

    /// A JSON object, if it is one.
    pub(super) fn headers(&self) -> Option<&'a str> {
        self.head.headers.map(RawValue::get)
    }

    pub(super) fn body(&self) -> &'a [u8] {
        self.body
    }

    pub(super) fn is_binary(&self) -> bool {
        self.head.bytes
    }
}
