//! A frame as it came.

use std::fmt;

use bytes::Bytes;

/// A frame's command. All of STOMP's are known, so that a peer that echoes or mixes up the sides
/// gets a precise complaint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// The broker accepted the connection.
    Connected,
    /// A message for a subscription.
    Message,
    /// A frame that asked for a receipt has been handled.
    Receipt,
    /// Something was refused.
    Error,
    /// One of the commands that only clients send, by its name.
    Client(&'static str),
}

/// A whole frame.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// The command.
    pub command: Command,
    /// The headers in the order of the wire, unescaped. A name may come more than once.
    pub headers: Vec<(String, String)>,
    /// The body, without the NUL behind it. It shares the buffer that it was read into.
    pub body: Bytes,
}

const CLIENT: [&str; 11] = [
    "SEND",
    "CONNECT",
    "STOMP",
    "SUBSCRIBE",
    "UNSUBSCRIBE",
    "ACK",
    "NACK",
    "BEGIN",
    "COMMIT",
    "ABORT",
    "DISCONNECT",
];

impl Command {
    /// Bytes of the longest command, `UNSUBSCRIBE`.
    pub(super) const LONGEST: usize = 11;

    pub(super) fn parse(line: &[u8]) -> Option<Command> {
        match line {
            b"CONNECTED" => Some(Command::Connected),
            b"MESSAGE" => Some(Command::Message),
            b"RECEIPT" => Some(Command::Receipt),
            b"ERROR" => Some(Command::Error),
            _ => {
                CLIENT.iter().find(|name| name.as_bytes() == line).map(|name| Command::Client(name))
            }
        }
    }

    /// As it is on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Command::Connected => "CONNECTED",
            Command::Message => "MESSAGE",
            Command::Receipt => "RECEIPT",
            Command::Error => "ERROR",
            Command::Client(name) => name,
        }
    }

    /// Whether headers of this frame are never escaped (chapter "Value Encoding").
    pub(super) fn is_unescaped(self) -> bool {
        matches!(self, Command::Connected | Command::Client("CONNECT" | "STOMP"))
    }
}

impl Frame {
    /// The value of a header. Where a name is repeated the first one counts (chapter "Repeated
    /// Header Entries").
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        first(&self.headers, name)
    }
}

/// The first header of that name.
pub(super) fn first<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

impl fmt::Debug for Frame {
    /// Without the body, which is the application's, and without a passcode that came back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Headers<'a>(&'a [(String, String)]);
        impl fmt::Debug for Headers<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_map()
                    .entries(self.0.iter().map(|(name, value)| {
                        (name, if name == "passcode" { "***" } else { value.as_str() })
                    }))
                    .finish()
            }
        }
        f.debug_struct("Frame")
            .field("command", &self.command)
            .field("headers", &Headers(&self.headers))
            .field("body_len", &self.body.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_what_they_are_called() {
        for name in CLIENT.into_iter().chain(["CONNECTED", "MESSAGE", "RECEIPT", "ERROR"]) {
            assert_eq!(Command::parse(name.as_bytes()).unwrap().as_str(), name);
            assert!(name.len() <= Command::LONGEST);
        }
        for name in ["", "send", "SEND ", "RECEIPTS", "HTTP/1.1 400 Bad Request"] {
            assert_eq!(Command::parse(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn the_first_header_counts_and_debug_hides() {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let frame = Frame {
            command: Command::Message,
            headers: vec![header("a", "1"), header("a", "2"), header("passcode", "hush")],
            body: Bytes::from_static(b"private"),
        };
        assert_eq!(frame.header("a"), Some("1"));
        assert_eq!(frame.header("b"), None);
        let shown = format!("{frame:?}");
        assert!(!shown.contains("hush") && !shown.contains("private"), "{shown}");
        assert!(shown.contains("body_len: 7"), "{shown}");
    }
}
