//! A small STOMP 1.2 parser and writer, independent of walpost's own on purpose: the two judge each other.

use memchr::memchr;

/// A frame with its headers unescaped, in the order of the wire; repeated ones are all there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// `SEND`, `MESSAGE`, …
    pub command: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// The body's bytes.
    pub body: Vec<u8>,
}

impl Frame {
    /// A frame without body.
    #[must_use]
    pub fn new(command: &str, headers: &[(&str, &str)]) -> Self {
        Self {
            command: command.to_owned(),
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            body: Vec::new(),
        }
    }

    /// The same frame with a body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The value of the first header `name`, which is the one that counts.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The bytes of the frame, with a content-length where it has a body and none is given.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.command.clone();
        out.push('\n');
        // CONNECT and CONNECTED are never escaped.
        let plain = self.command.starts_with("CONNECT");
        for (name, value) in &self.headers {
            if plain {
                out += &format!("{name}:{value}\n");
            } else {
                out += &format!("{}:{}\n", escape(name), escape(value));
            }
        }
        if !self.body.is_empty() && self.header("content-length").is_none() {
            out += &format!("content-length:{}\n", self.body.len());
        }
        let mut out = out.into_bytes();
        out.push(b'\n');
        out.extend_from_slice(&self.body);
        out.push(0);
        out
    }
}

/// A frame as it lies in the buffer.
#[derive(Debug)]
pub struct Raw<'a> {
    /// The command line.
    pub command: &'a [u8],
    /// The value of the first `receipt` header, still escaped.
    pub receipt: Option<&'a [u8]>,
    head: &'a [u8],
    body: &'a [u8],
}

impl Raw<'_> {
    /// The frame, decoded.
    ///
    /// # Errors
    /// A head that is no UTF-8, a header line without colon, an undefined escape.
    pub fn decode(&self) -> Result<Frame, String> {
        let text =
            |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|error| error.to_string());
        let command = text(self.command)?;
        let plain = command.starts_with("CONNECT") || command == "STOMP";
        let mut headers = Vec::new();
        for line in text(self.head)?.lines() {
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| format!("a header line without colon: {line}"))?;
            if plain {
                headers.push((name.to_owned(), value.to_owned()));
            } else {
                headers.push((unescape(name)?, unescape(value)?));
            }
        }
        Ok(Frame { command, headers, body: self.body.to_vec() })
    }
}

/// Takes bytes as they come, gives frames. Bare newlines between frames (heart-beats) are counted.
#[derive(Debug, Default)]
pub struct Parser {
    buffer: Vec<u8>,
    start: usize,
    /// Heart-beats seen.
    pub heartbeats: u64,
}

impl Parser {
    /// Adds bytes read from a socket.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, or `None` if more bytes are needed.
    ///
    /// # Errors
    /// A content-length that is no number, or a body not followed by NUL.
    #[allow(clippy::should_implement_trait, reason = "a frame borrows from the parser")]
    pub fn next(&mut self) -> Result<Option<Raw<'_>>, String> {
        while self.buffer.get(self.start).is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            self.heartbeats += 1;
            self.start += 1;
        }
        let bytes = &self.buffer[self.start..];
        let Some(line) = memchr(b'\n', bytes) else {
            return Ok(None);
        };
        let command = trimmed(&bytes[..line]);
        let (mut at, mut length, mut receipt) = (line + 1, None, None);
        loop {
            let Some(line) = memchr(b'\n', &bytes[at..]) else {
                return Ok(None);
            };
            let header = trimmed(&bytes[at..at + line]);
            at += line + 1;
            if header.is_empty() {
                break;
            } else if let Some(value) = header.strip_prefix(b"receipt:") {
                receipt = receipt.or(Some(value));
            } else if let Some(value) = header.strip_prefix(b"content-length:") {
                length = length.or(Some(number(value)?));
            }
        }
        let Some(length) = length.or_else(|| memchr(0, &bytes[at..])) else {
            return Ok(None);
        };
        let end = at + length;
        match bytes.get(end) {
            None => Ok(None),
            Some(0) => {
                self.start += end + 1;
                Ok(Some(Raw {
                    command,
                    receipt,
                    head: &bytes[command_end(bytes)..at],
                    body: &bytes[at..end],
                }))
            }
            Some(byte) => Err(format!("the body is followed by {byte:#04x}, not by NUL")),
        }
    }
}

fn command_end(bytes: &[u8]) -> usize {
    memchr(b'\n', bytes).map_or(0, |at| at + 1)
}

fn trimmed(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn number(value: &[u8]) -> Result<usize, String> {
    let text = std::str::from_utf8(value).map_err(|error| error.to_string())?;
    text.trim().parse().map_err(|_| format!("content-length {text}"))
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r").replace(':', "\\c")
}

fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            out.push(letter);
            continue;
        }
        out.push(match letters.next() {
            Some('\\') => '\\',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('c') => ':',
            other => return Err(format!("undefined escape {other:?} in {text}")),
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::{Frame, Parser};

    #[test]
    fn frames_survive_the_wire_in_any_pieces() {
        let frames = [
            Frame::new("SEND", &[("destination", "/queue/a:b\\c\nd"), ("receipt", "7")])
                .with_body(*b"a\0b"),
            Frame::new("DISCONNECT", &[]),
            Frame::new("MESSAGE", &[("x", ""), ("x", "2")]).with_body("\u{1f600}".as_bytes()),
        ];
        let mut wire = b"\n\n".to_vec();
        frames.iter().for_each(|frame| wire.extend(frame.encode()));
        for piece in 1..wire.len() {
            let mut parser = Parser::default();
            let mut got = Vec::new();
            for bytes in wire.chunks(piece) {
                parser.push(bytes);
                while let Some(raw) = parser.next().expect("well-formed") {
                    got.push(raw.decode().expect("well-formed"));
                }
            }
            assert_eq!(parser.heartbeats, 2);
            assert_eq!(got.len(), frames.len());
            for (got, sent) in got.iter().zip(&frames) {
                assert_eq!((&got.command, &got.body), (&sent.command, &sent.body));
                assert!(got.headers.starts_with(&sent.headers));
            }
        }
    }

    #[test]
    fn what_is_malformed_is_said() {
        let refuse = |wire: &[u8]| {
            let mut parser = Parser::default();
            parser.push(wire);
            match parser.next() {
                Ok(Some(raw)) => raw.decode().is_err(),
                Ok(None) => false,
                Err(_) => true,
            }
        };
        assert!(refuse(b"SEND\ncontent-length:1\n\nabc\0"));
        assert!(refuse(b"SEND\ncontent-length:x\n\nabc\0"));
        assert!(refuse(b"SEND\nno colon\n\n\0"));
        assert!(refuse(b"SEND\na:\\t\n\n\0"));
        assert!(refuse(b"SEND\na:\xff\n\n\0"));
        assert!(!refuse(b"SEND\na:b\n\n\0"));
    }
}
