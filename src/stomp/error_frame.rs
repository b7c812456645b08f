//! What an ERROR frame says.

use std::fmt;

use super::frame::Frame;
use super::printable::{beginning, printable};

/// Bytes of the `message` header that are kept.
const MESSAGE_KEPT: usize = 1024;
/// Bytes of the body that are kept.
const BODY_KEPT: usize = 4096;
/// Characters of either that one line shows.
const SHOWN: usize = 300;

/// An ERROR frame. Its `Display` is one line, `message: first line of the body`.
///
/// RabbitMQ leaves the connection open after some of them and closes it after others; it names no
/// receipt id. See chapter "ERROR".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorFrame {
    /// The receipt id of the frame that was refused, where the broker names it.
    pub receipt_id: Option<String>,
    /// The `message` header, at most 1 KiB of it; empty where there is none.
    pub message: String,
    /// The body, at most 4 KiB of it; what is not UTF-8 is replaced.
    pub body: String,
}

impl ErrorFrame {
    /// Reads it from a frame. `secret` is taken out of the broker's words.
    pub(super) fn new(frame: &Frame, secret: Option<&str>) -> ErrorFrame {
        let clean = |text: &str, limit| match secret {
            // Replaced before the cut, which could leave the half of a secret.
            Some(secret) => beginning(&text.replace(secret, "***"), limit).to_owned(),
            None => beginning(text, limit).to_owned(),
        };
        ErrorFrame {
            receipt_id: frame.header("receipt-id").map(|id| clean(id, MESSAGE_KEPT)),
            message: clean(frame.header("message").unwrap_or_default(), MESSAGE_KEPT),
            body: clean(&String::from_utf8_lossy(&frame.body), BODY_KEPT),
        }
    }
}

impl fmt::Display for ErrorFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = printable(self.message.trim(), SHOWN);
        let detail = self.body.lines().map(str::trim).find(|line| !line.is_empty());
        let detail = printable(detail.unwrap_or_default(), SHOWN);
        match (message.as_str(), detail.as_str()) {
            ("", "") => f.write_str("ERROR without a word of explanation"),
            (words, "") | ("", words) => f.write_str(words),
            // Some brokers say the same twice.
            (message, detail) if message == detail => f.write_str(message),
            (message, detail) => write!(f, "{message}: {detail}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::Command;
    use super::*;
    use bytes::Bytes;

    fn error(message: Option<&str>, body: &str) -> Frame {
        Frame {
            command: Command::Error,
            headers: message
                .map(|text| ("message".to_owned(), text.to_owned()))
                .into_iter()
                .collect(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    #[test]
    fn one_line_for_the_operator() {
        let line = |message, body| ErrorFrame::new(&error(message, body), None).to_string();
        assert_eq!(
            line(Some("not_found"), "NOT_FOUND - no exchange 'x'\nmore\n"),
            "not_found: NOT_FOUND - no exchange 'x'"
        );
        assert_eq!(line(Some("a\nb\u{7}c"), "\r\n\r\n  c\td\r\n"), "a b c: c d");
        assert_eq!(line(None, "only a body"), "only a body");
        assert_eq!(line(Some("only a message"), ""), "only a message");
        assert_eq!(line(Some("same"), "same\n"), "same");
        assert_eq!(line(None, " \n"), "ERROR without a word of explanation");
        assert!(line(Some(&"m".repeat(9000)), &"b".repeat(9000)).len() < 700);
    }

    #[test]
    fn long_texts_are_cut_and_secrets_taken_out() {
        let frame = error(Some(&"ä".repeat(2000)), &"x".repeat(10_000));
        let cut = ErrorFrame::new(&frame, None);
        assert_eq!((cut.message.len(), cut.body.len()), (MESSAGE_KEPT, BODY_KEPT));

        let body = format!("{}hush-hush", "x".repeat(BODY_KEPT - 4));
        let cut =
            ErrorFrame::new(&error(Some("passcode hush-hush is wrong"), &body), Some("hush-hush"));
        assert_eq!(cut.message, "passcode *** is wrong");
        assert!(!cut.body.contains("hush"), "{}", &cut.body[BODY_KEPT - 9..]);
    }
}
