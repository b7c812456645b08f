//! A STOMP connection by hand: frames and bytes out, whatever the broker says in.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::stomp::{Frame, Parser};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// What a broker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// A frame.
    Frame(Frame),
    /// It closed or reset the connection.
    Closed,
}

/// A connection that the broker has accepted.
#[derive(Debug)]
pub struct Session {
    stream: TcpStream,
    parser: Parser,
    connected: Frame,
    // A broker that resets a connection does not say so twice.
    closed: bool,
}

impl Session {
    /// Connects to 127.0.0.1:`port` without heart-beats, as user `guest`.
    #[must_use]
    #[track_caller]
    pub fn connect(port: u16, vhost: &str) -> Self {
        Self::try_connect(port, vhost).unwrap_or_else(|why| panic!("no CONNECTED: {why}"))
    }

    /// The same with heart-beats: `SEND,EXPECT` in milliseconds.
    #[must_use]
    #[track_caller]
    pub fn connect_with_heartbeats(port: u16, vhost: &str, heartbeats: &str) -> Self {
        Self::open(port, vhost, heartbeats).unwrap_or_else(|why| panic!("no CONNECTED: {why}"))
    }

    /// As [`Session::connect`].
    ///
    /// # Errors
    /// What the broker did in place of CONNECTED.
    pub fn try_connect(port: u16, vhost: &str) -> Result<Self, String> {
        Self::open(port, vhost, "0,0")
    }

    fn open(port: u16, vhost: &str, heartbeats: &str) -> Result<Self, String> {
        let stream = TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let mut session =
            Self { stream, parser: Parser::default(), connected: Frame::default(), closed: false };
        session.send(&Frame::new(
            "CONNECT",
            &[
                ("accept-version", "1.2"),
                ("host", vhost),
                ("login", "guest"),
                ("passcode", "guest"),
                ("heart-beat", heartbeats),
            ],
        ));
        match session.next(CONNECT_TIMEOUT) {
            Some(Said::Frame(frame)) if frame.command == "CONNECTED" => {
                session.connected = frame;
                Ok(session)
            }
            other => Err(format!("{other:?}")),
        }
    }

    /// The broker's CONNECTED.
    #[must_use]
    pub fn connected(&self) -> &Frame {
        &self.connected
    }

    /// How many heart-beats came so far.
    #[must_use]
    pub fn heartbeats(&self) -> u64 {
        self.parser.heartbeats
    }

    /// Sends a frame. That the connection is closed is no error here: it will be read.
    pub fn send(&mut self, frame: &Frame) {
        self.write(&frame.encode());
    }

    /// Sends bytes, which need not be a frame.
    pub fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// The next thing that the broker says, or `None` if it says nothing within `timeout`. Panics where that is no STOMP.
    #[track_caller]
    pub fn next(&mut self, timeout: Duration) -> Option<Said> {
        let deadline = Instant::now() + timeout;
        let mut chunk = [0; 16 * 1024];
        loop {
            if let Some(frame) = self.parsed() {
                return Some(Said::Frame(frame));
            }
            if self.closed {
                return Some(Said::Closed);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.stream.set_read_timeout(Some(left)).expect("a timeout can be set");
            match self.stream.read(&mut chunk) {
                Ok(0) => self.closed = true,
                Ok(count) => self.parser.push(&chunk[..count]),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                    _ => self.closed = true,
                },
            }
        }
    }

    #[track_caller]
    fn parsed(&mut self) -> Option<Frame> {
        let raw = self.parser.next().unwrap_or_else(|why| panic!("no STOMP: {why}"));
        raw.map(|raw| raw.decode().unwrap_or_else(|why| panic!("no STOMP: {why}")))
    }
}
