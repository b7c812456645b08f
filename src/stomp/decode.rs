//! What the broker sent, out of a buffer that may end anywhere (chapters "STOMP Frames" and
//! "Augmented BNF").
//!
//! Lines are taken out of the buffer as they become whole, and the decoder remembers how far it
//! has looked for the end of a line or body, so that no byte is scanned twice however it arrives.

use bytes::{Buf, Bytes, BytesMut};

use super::Version;
use super::escape::unescape;
use super::frame::{Command, Frame, first};
use super::printable::printable_bytes;
use super::receipt;

#[cfg(test)]
mod tests;

/// Characters of the peer's line that an error shows.
const SHOWN: usize = 60;

/// Caps on what the peer sends, so that it cannot fill our memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one header line, its end not counted.
    pub header_line: usize,
    /// Header lines of one frame.
    pub headers: usize,
    /// Bytes of a body.
    pub body: usize,
}

impl Default for Limits {
    /// Enough for a connection that only publishes: receipts and errors.
    fn default() -> Self {
        Limits { header_line: 16 * 1024, headers: 128, body: 256 * 1024 }
    }
}

/// One thing out of the buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// One or more line ends between frames.
    HeartBeat,
    /// A RECEIPT whose receipt id is a number as we write them.
    Receipt(u64),
    /// Any other frame.
    Frame(Frame),
}

/// Bytes that are not STOMP, or more of them than we take. The connection cannot be read further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The peer's first line is no STOMP command: probably another protocol.
    #[error("'{0}' is no STOMP command; does this port speak STOMP, with the right TLS setting?")]
    UnknownCommand(String),
    /// A NUL before the blank line that ends the headers.
    #[error("a NUL among the headers of a frame")]
    NulInHead,
    /// A header line longer than [`Limits::header_line`].
    #[error("a header line of more than {limit} bytes")]
    LineTooLong {
        /// The limit.
        limit: usize,
    },
    /// More header lines than [`Limits::headers`].
    #[error("a frame with more than {limit} headers")]
    TooManyHeaders {
        /// The limit.
        limit: usize,
    },
    /// A header line without a colon.
    #[error("the header line '{0}' has no colon")]
    NoColon(String),
    /// A header line that begins with the colon.
    #[error("a header without a name")]
    EmptyName,
    /// A backslash that begins no escape of the version.
    #[error("an undefined escape in header '{header}'")]
    UndefinedEscape {
        /// The header's name, cleaned for a log.
        header: String,
    },
    /// A header that is not UTF-8.
    #[error("header '{header}' is not UTF-8")]
    NotUtf8 {
        /// The header's name, cleaned for a log.
        header: String,
    },
    /// A `content-length` that is no number.
    #[error("a content-length that is no number")]
    BadContentLength,
    /// A body longer than [`Limits::body`].
    #[error("a body of more than {limit} bytes")]
    BodyTooLong {
        /// The limit.
        limit: usize,
    },
    /// No NUL where `content-length` says that the body ends.
    #[error("no NUL behind the {length} bytes that content-length promised")]
    Unterminated {
        /// The promised length.
        length: usize,
    },
}

/// The decoder of one connection. Until [`Decoder::set_version`] it reads version 1.2.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    version: Version,
    state: State,
    /// Bytes at the beginning of the buffer in which the end was looked for in vain.
    scanned: usize,
    failed: Option<DecodeError>,
}

#[derive(Debug)]
enum State {
    /// Between frames, or in a command line.
    Command,
    Headers(Command, Vec<(String, String)>),
    /// With the `content-length`, if there is one.
    Body(Command, Vec<(String, String)>, Option<usize>),
}

impl Decoder {
    /// A decoder at the beginning of a connection.
    #[must_use]
    pub fn new(limits: Limits) -> Decoder {
        Decoder { limits, version: Version::V1_2, state: State::Command, scanned: 0, failed: None }
    }

    /// From the next frame on the peer speaks `version`.
    pub fn set_version(&mut self, version: Version) {
        self.version = version;
    }

    /// Takes the next thing out of `input`; `None` when more bytes are needed. Between two calls
    /// the caller may only append to `input`.
    ///
    /// # Errors
    /// See [`DecodeError`]. After an error the decoder returns the same one for ever.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Inbound>, DecodeError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.step(input).inspect_err(|error| self.failed = Some(error.clone()))
    }

    fn step(&mut self, input: &mut BytesMut) -> Result<Option<Inbound>, DecodeError> {
        if matches!(self.state, State::Command) {
            if self.scanned == 0 {
                if skip_line_ends(input) {
                    return Ok(Some(Inbound::HeartBeat));
                }
                if let Some((number, length)) = receipt::parse(input, self.crlf(), &self.limits) {
                    input.advance(length);
                    return Ok(Some(Inbound::Receipt(number)));
                }
                if input[..] == *b"\r" {
                    // The beginning of a heart-beat, not of a command line.
                    return Ok(None);
                }
            }
            match self.command(input)? {
                Some(command) => self.state = State::Headers(command, Vec::new()),
                None => return Ok(None),
            }
        }
        if !self.headers(input)? {
            return Ok(None);
        }
        Ok(self.body(input)?.map(finish))
    }

    /// Only 1.2 lets the lines of a frame end in CR LF; before it a CR is part of a header.
    fn crlf(&self) -> bool {
        self.version == Version::V1_2
    }

    /// Finds the next line: its length, and that of its end. `None` when it is not whole yet.
    fn line(&mut self, input: &[u8]) -> Result<Option<(usize, usize)>, DecodeError> {
        match memchr::memchr2(b'\n', 0, &input[self.scanned..]) {
            None => {
                self.scanned = input.len();
                Ok(None)
            }
            Some(at) => {
                let end = self.scanned + at;
                if input[end] == 0 {
                    return Err(DecodeError::NulInHead);
                }
                self.scanned = 0;
                let cr = self.crlf() && input[..end].ends_with(b"\r");
                Ok(Some((end - usize::from(cr), 1 + usize::from(cr))))
            }
        }
    }

    fn command(&mut self, input: &mut BytesMut) -> Result<Option<Command>, DecodeError> {
        let unknown = |line: &[u8]| DecodeError::UnknownCommand(printable_bytes(line, SHOWN));
        let found = self.line(input).map_err(|_| {
            // A binary protocol: show what came before its NUL.
            unknown(input[..].split(|byte: &u8| *byte == 0).next().unwrap_or_default())
        })?;
        match found {
            Some((length, end)) => {
                let line = &input[..length];
                let command = Command::parse(line).ok_or_else(|| unknown(line))?;
                input.advance(length + end);
                Ok(Some(command))
            }
            // One more for the CR.
            None if input.len() > Command::LONGEST + 1 => Err(unknown(input)),
            None => Ok(None),
        }
    }

    /// Reads headers up to the blank line; whether it has been reached.
    fn headers(&mut self, input: &mut BytesMut) -> Result<bool, DecodeError> {
        let too_long = DecodeError::LineTooLong { limit: self.limits.header_line };
        loop {
            if matches!(self.state, State::Body(..)) {
                return Ok(true);
            }
            let Some((length, end)) = self.line(input)? else {
                let partial = input.len() - usize::from(input.ends_with(b"\r"));
                return if partial > self.limits.header_line { Err(too_long) } else { Ok(false) };
            };
            let State::Headers(command, headers) = &mut self.state else {
                return Ok(false);
            };
            if length > self.limits.header_line {
                return Err(too_long);
            }
            if length == 0 {
                let body = content_length(headers, self.limits.body)?;
                self.state = State::Body(*command, std::mem::take(headers), body);
            } else if headers.len() == self.limits.headers {
                return Err(DecodeError::TooManyHeaders { limit: self.limits.headers });
            } else {
                headers.push(header(&input[..length], *command, self.version)?);
            }
            input.advance(length + end);
        }
    }

    /// Reads the body and its NUL.
    fn body(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, DecodeError> {
        let State::Body(command, headers, promised) = &mut self.state else {
            return Ok(None);
        };
        let length = match *promised {
            Some(length) => match input.get(length) {
                None => return Ok(None),
                Some(0) => length,
                Some(_) => return Err(DecodeError::Unterminated { length }),
            },
            None => {
                let end = memchr::memchr(0, &input[self.scanned..]).map(|at| self.scanned + at);
                self.scanned = input.len();
                if end.unwrap_or(input.len()) > self.limits.body {
                    return Err(DecodeError::BodyTooLong { limit: self.limits.body });
                }
                match end {
                    Some(end) => end,
                    None => return Ok(None),
                }
            }
        };
        // An empty body must not hold on to the buffer.
        let body = if length == 0 { Bytes::new() } else { input.split_to(length).freeze() };
        input.advance(1);
        let frame = Frame { command: *command, headers: std::mem::take(headers), body };
        self.state = State::Command;
        self.scanned = 0;
        Ok(Some(frame))
    }
}

/// Drops the line ends at the beginning of `input`; whether there were any. A CR is taken here in
/// any version: between frames it can mean nothing else.
fn skip_line_ends(input: &mut BytesMut) -> bool {
    let mut length = 0;
    loop {
        length += match &input[length..] {
            [b'\n', ..] => 1,
            [b'\r', b'\n', ..] => 2,
            _ => break,
        };
    }
    input.advance(length);
    length > 0
}

/// A RECEIPT with a number is the same whichever way it was read.
fn finish(frame: Frame) -> Inbound {
    let id = match frame.command {
        Command::Receipt => frame.header("receipt-id"),
        _ => None,
    };
    match id.and_then(|id| receipt::plain_decimal(id.as_bytes())) {
        Some(number) => Inbound::Receipt(number),
        None => Inbound::Frame(frame),
    }
}

fn content_length(
    headers: &[(String, String)],
    limit: usize,
) -> Result<Option<usize>, DecodeError> {
    let Some(text) = first(headers, "content-length") else {
        return Ok(None);
    };
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(DecodeError::BadContentLength);
    }
    match text.parse::<usize>() {
        Ok(length) if length <= limit => Ok(Some(length)),
        _ => Err(DecodeError::BodyTooLong { limit }),
    }
}

/// Reads a header line. An ERROR is read leniently: what it says must not be lost to a stray
/// backslash or byte in it.
fn header(
    line: &[u8],
    command: Command,
    version: Version,
) -> Result<(String, String), DecodeError> {
    let Some(colon) = memchr::memchr(b':', line) else {
        return Err(DecodeError::NoColon(printable_bytes(line, SHOWN)));
    };
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() {
        return Err(DecodeError::EmptyName);
    }
    let lenient = command == Command::Error;
    let escapes = if command.is_unescaped() { Version::V1_0 } else { version };
    let shown = || printable_bytes(name, SHOWN);
    let text = |bytes| {
        let plain = unescape(bytes, escapes, lenient)
            .map_err(|_| DecodeError::UndefinedEscape { header: shown() })?;
        match String::from_utf8(plain.into_owned()) {
            Ok(text) => Ok(text),
            Err(error) if lenient => Ok(String::from_utf8_lossy(error.as_bytes()).into_owned()),
            Err(_) => Err(DecodeError::NotUtf8 { header: shown() }),
        }
    };
    Ok((text(name)?, text(value)?))
}
