//! A message as it came, and as handlers and the inbox see it.

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::stomp::Frame;
use crate::stomp::consume::Handle;
use crate::store::inbox::Received;

/// Where a message's identity is looked for, as the predecessor does.
const IDS: [&str; 4] = ["cap-msg-id", "dop-msg-id", "msg-id", "message-id"];
/// Messages of one value of this header are handled in their order.
const KEY: &str = "msg-key";
/// Has a message handled again that is known.
const REPLAY: &str = "msg-replay-force";
/// Tells a function what became of a body that is no JSON.
const ENCODING: &str = "walpost-body-encoding";
/// Headers of this delivery alone.
const OF_THE_DELIVERY: [&str; 3] = ["subscription", "ack", "content-length"];

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// JSON, and goes as it is.
    Json,
    /// Nothing at all; JSON `null`.
    Empty,
    /// Text: a JSON string.
    Text,
    /// Anything: a JSON string in base64.
    Base64,
}

impl Encoding {
    pub(super) fn name(self) -> &'static str {
        match self {
            Encoding::Json => "json",
            Encoding::Empty => "empty",
            Encoding::Text => "text",
            Encoding::Base64 => "base64",
        }
    }
}

/// A message.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// Its identity.
    pub(super) id: String,
    /// Where it was sent to.
    pub(super) destination: String,
    /// Its headers, each name once, without those of the delivery.
    pub(super) headers: Vec<(String, String)>,
    /// Its body.
    pub(super) body: Bytes,
    /// How it is answered.
    pub(super) handle: Handle,
    encoding: Encoding,
}

impl Message {
    /// A MESSAGE; none: it can't be answered, so it is none.
    pub(super) fn of(frame: Frame) -> Option<Message> {
        let handle = Handle::of(&frame)?;
        let id = IDS.iter().find_map(|name| frame.header(name).filter(|id| !id.is_empty()));
        let id = id.unwrap_or_else(|| handle.message_id()).to_owned();
        let destination = frame.header("destination").unwrap_or_default().to_owned();
        let mut headers: Vec<(String, String)> = Vec::with_capacity(frame.headers.len());
        for (name, value) in frame.headers {
            let is_known = headers.iter().any(|(known, _)| *known == name);
            if !is_known && !OF_THE_DELIVERY.contains(&name.as_str()) {
                headers.push((name, value));
            }
        }
        let encoding = encoding(&frame.body);
        Some(Message { id, destination, headers, body: frame.body, handle, encoding })
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// Messages with the same key are handled in their order.
    pub(super) fn key(&self) -> &str {
        self.header(KEY).unwrap_or(&self.id)
    }

    /// Whether it is handled again although it is known.
    pub(super) fn is_forced(&self) -> bool {
        self.header(REPLAY).is_some_and(|value| value.trim() == "true")
    }

    pub(super) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// `jsonb` does not take it: it has limits that JSON has not.
    pub(super) fn is_no_jsonb(&mut self) {
        self.encoding = text_or_bytes(&self.body);
    }

    /// The headers as a JSON object.
    fn headers_json(&self, encoding: Option<Encoding>) -> String {
        let text = |value: &str| Value::String(value.to_owned());
        let mut map: Map<String, Value> =
            self.headers.iter().map(|(name, value)| (name.clone(), text(value))).collect();
        if let Some(encoding) = encoding {
            map.insert(ENCODING.to_owned(), text(encoding.name()));
        }
        Value::Object(map).to_string()
    }

    /// The body as JSON, whatever it is.
    fn body_json(&self) -> String {
        match self.encoding {
            Encoding::Json => String::from_utf8_lossy(&self.body).into_owned(),
            Encoding::Empty => "null".to_owned(),
            Encoding::Text => {
                Value::String(String::from_utf8_lossy(&self.body).into_owned()).to_string()
            }
            Encoding::Base64 => Value::String(base64(&self.body)).to_string(),
        }
    }

    /// What goes into SQL.
    pub(super) fn texts(&self) -> Texts {
        let named = (self.encoding != Encoding::Json).then_some(self.encoding);
        Texts {
            headers: self.headers_json(None),
            argument_headers: self.headers_json(named),
            body: self.body_json(),
        }
    }

    /// As the inbox wants it.
    pub(super) fn received<'a>(&'a self, texts: &'a Texts) -> Received<'a> {
        Received {
            id: &self.id,
            destination: &self.destination,
            headers: &texts.headers,
            json: (self.encoding == Encoding::Json).then_some(texts.body.as_str()),
            bytes: match self.encoding {
                Encoding::Json | Encoding::Empty => None,
                Encoding::Text | Encoding::Base64 => Some(&self.body),
            },
            replay: self.is_forced(),
            arguments: (&texts.body, &texts.argument_headers),
        }
    }

    /// One line of JSON, for whoever reads standard output.
    pub(super) fn line(&self) -> String {
        #[derive(serde::Serialize)]
        struct Line<'a> {
            id: &'a str,
            destination: &'a str,
            headers: &'a RawValue,
            encoding: &'static str,
            body: &'a RawValue,
        }
        let (headers, body) = (self.headers_json(None), one_line(self.body_json()));
        let raw = |text: String| RawValue::from_string(text).unwrap_or_default();
        let (headers, body) = (raw(headers), raw(body));
        let line = Line {
            id: &self.id,
            destination: &self.destination,
            headers: &headers,
            encoding: self.encoding.name(),
            body: &body,
        };
        serde_json::to_string(&line).unwrap_or_default()
    }
}

/// A message's JSON texts.
pub(super) struct Texts {
    headers: String,
    argument_headers: String,
    body: String,
}

fn encoding(body: &[u8]) -> Encoding {
    if body.is_empty() {
        return Encoding::Empty;
    }
    // Syntax alone: numbers of any size pass.
    match serde_json::from_slice::<IgnoredAny>(body) {
        Ok(_) if std::str::from_utf8(body).is_ok() => Encoding::Json,
        _ => text_or_bytes(body),
    }
}

fn text_or_bytes(body: &[u8]) -> Encoding {
    // A text of PostgreSQL holds no NUL, and jsonb does not either.
    match std::str::from_utf8(body) {
        Ok(text) if !text.contains('\0') => Encoding::Text,
        _ => Encoding::Base64,
    }
}

/// JSON may hold line ends between its tokens, and nowhere else.
fn one_line(json: String) -> String {
    if json.contains(['\n', '\r']) { json.replace(['\n', '\r'], " ") } else { json }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;
    use crate::stomp::Command;

    pub(crate) fn message(headers: &[(&str, &str)], body: &[u8]) -> Message {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Message::of(Frame {
            command: Command::Message,
            headers: headers.iter().map(own).chain([own(&("message-id", "T_0"))]).collect(),
            body: Bytes::copy_from_slice(body),
        })
        .unwrap()
    }

    #[test]
    fn the_identity_is_the_senders_where_there_is_one() {
        let id = |headers: &[(&str, &str)]| message(headers, b"").id;
        assert_eq!(id(&[("msg-id", "m"), ("dop-msg-id", "d"), ("cap-msg-id", "c")]), "c");
        assert_eq!(id(&[("msg-id", "m"), ("dop-msg-id", "d")]), "d");
        assert_eq!(id(&[("msg-id", "m"), ("cap-msg-id", "")]), "m");
        assert_eq!(id(&[("ack", "x")]), "T_0");
    }

    #[test]
    fn headers_come_once_and_without_those_of_the_delivery() {
        let message =
            message(&[("a", "1:\n"), ("a", "2"), ("ack", "x"), ("subscription", "0")], b"");
        assert_eq!(message.texts().headers, r#"{"a":"1:\n","message-id":"T_0"}"#);
        assert!(!message.is_forced());
        assert_eq!(message.key(), "T_0");
    }

    #[test]
    fn any_body_is_json_in_the_end() {
        for (body, encoding, json) in [
            (&b""[..], Encoding::Empty, "null"),
            (br#"{"a": 1}"#, Encoding::Json, r#"{"a": 1}"#),
            (b"1e400000", Encoding::Json, "1e400000"),
            (b"it's: \"no\" JSON", Encoding::Text, r#""it's: \"no\" JSON""#),
            (b"a\0b", Encoding::Base64, "\"YQBi\""),
            (&[0xff, 0xfe], Encoding::Base64, "\"//4=\""),
            (b"\"\xff\"", Encoding::Base64, "\"Iv8i\""),
        ] {
            let message = message(&[], body);
            assert_eq!((message.encoding, message.body_json().as_str()), (encoding, json));
            let texts = message.texts();
            let received = message.received(&texts);
            assert_eq!(received.json.is_some(), encoding == Encoding::Json);
            let named = texts.argument_headers.contains(ENCODING);
            assert_eq!(named, encoding != Encoding::Json, "{}", texts.argument_headers);
            assert!(!texts.headers.contains(ENCODING));
        }
        let mut message = message(&[], br#""\u0000""#);
        assert_eq!(message.encoding, Encoding::Json);
        message.is_no_jsonb();
        assert_eq!(
            (message.encoding, message.body_json().as_str()),
            (Encoding::Text, r#""\"\\u0000\"""#)
        );
    }

    #[test]
    fn a_line_is_one_line() {
        let line = message(&[("destination", "/queue/q")], b"{\"a\":\r\n [1]}").line();
        assert_eq!(
            line,
            "{\"id\":\"T_0\",\"destination\":\"/queue/q\",\"headers\":{\"destination\":\"/queue/q\",\
             \"message-id\":\"T_0\"},\"encoding\":\"json\",\"body\":{\"a\":   [1]}}"
        );
    }

    proptest! {
        #[test]
        fn base64_is_the_usual_one(bytes: Vec<u8>) {
            prop_assert_eq!(base64(&bytes), STANDARD.encode(&bytes));
        }

        #[test]
        fn any_message_makes_a_line_of_json(body: Vec<u8>, name in "[^\0]{1,9}", value in "[^\0]{0,9}") {
            let message = message(&[(&name, &value)], &body);
            let line: Value = serde_json::from_str(&message.line()).unwrap();
            prop_assert_eq!(line["encoding"].as_str(), Some(message.encoding().name()));
            prop_assert!(!message.line().contains('\n'));
            let texts = message.texts();
            prop_assert!(serde_json::from_str::<Value>(&texts.body).is_ok());
        }
    }
}
