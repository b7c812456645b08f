//! One STOMP connection: CONNECT, the agreed version and heart-beats, and what the broker says
//! (chapters "Connecting", "Heart-beating", "Server Frames").
//!
//! Times are `Duration`s since an epoch of the caller's choice. How long CONNECTED may take is the
//! caller's to limit: nothing is agreed before it, so the heart-beat clock stands still.

use std::time::Duration;

use bytes::BytesMut;

use super::decode::{DecodeError, Decoder, Inbound, Limits};
use super::encode::{self, Connect, EncodeError};
use super::error_frame::ErrorFrame;
use super::frame::{Command, Frame};
use super::heartbeat::{Agreed, Clock, agree, millis};
use super::printable::printable;
use super::version::Version;
use crate::secret::Secret;

#[cfg(test)]
mod tests;

/// Characters of the broker's words that an error shows.
const SHOWN: usize = 60;

/// What CONNECT says, and caps on what comes back.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// The `host` header: RabbitMQ's virtual host.
    pub host: String,
    /// The user.
    pub login: Option<String>,
    /// Its password.
    pub passcode: Option<Secret>,
    /// The `client-id` header, by which the two ActiveMQ know a durable subscription again.
    pub client_id: Option<String>,
    /// Escape host, login and passcode in CONNECT as 1.2 escapes other headers. The specification
    /// forbids it, but RabbitMQ (seen with 3.10.8) undoes escapes there: sent as it is, a backslash
    /// makes it close the connection without a word, or read another passcode. So: true for
    /// RabbitMQ; for others false. It matters only where [`SessionSettings::has_escapes`].
    pub escape_connect: bool,
    /// How often we can let the broker hear something; zero: not at all.
    pub heartbeat_send: Duration,
    /// How often we want to hear something; zero: no matter.
    pub heartbeat_expect: Duration,
    /// Caps on what the broker sends.
    pub limits: Limits,
}

/// One connection, from CONNECT to its end. A new connection needs a new session.
#[derive(Debug)]
pub struct Session {
    settings: SessionSettings,
    decoder: Decoder,
    state: State,
    clock: Clock,
    version: Version,
    /// Bytes that the last `receive` left in the buffer: more than that is news from the peer.
    left: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    New,
    Connecting,
    Connected,
    Refused,
}

/// What the broker said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The connection stands.
    Connected(Connected),
    /// The receipt with this number came.
    Receipt(u64),
    /// A receipt came whose id is no number as we write them.
    OtherReceipt(String),
    /// Something was refused. The broker may or may not close the connection.
    Error(ErrorFrame),
    /// A message for a subscription.
    Message(Frame),
}

/// The broker's CONNECTED.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected {
    /// The agreed version.
    pub version: Version,
    /// Its `server` header, such as `RabbitMQ/3.10.8`.
    pub server: Option<String>,
    /// Its `session` header.
    pub session: Option<String>,
    /// The agreed heart-beats: ours, and the broker's. Zero: none.
    pub heartbeat: (Duration, Duration),
}

/// Why the connection cannot be used further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The broker sent what is not STOMP, or too much of it.
    #[error("cannot read what the broker sent: {0}")]
    Decode(#[from] DecodeError),
    /// Host, login or passcode has a character that CONNECT cannot carry.
    #[error("cannot log in: {0}")]
    Settings(#[from] EncodeError),
    /// Nothing was heard for three times the agreed interval.
    #[error("the broker has been silent for {silent_for:.1?} (allowed: {allowed:.1?})")]
    PeerSilent {
        /// How long it has been silent.
        silent_for: Duration,
        /// How long it may be.
        allowed: Duration,
    },
    /// ERROR in answer to CONNECT: wrong login, unknown virtual host, no common version.
    #[error("the broker refused the connection: {0}")]
    Refused(ErrorFrame),
    /// A frame came before CONNECT was sent or after the broker had refused it.
    #[error("the broker sent {0} on a connection that is not open")]
    NotConnected(&'static str),
    /// CONNECTED names a version that was not offered.
    #[error("the broker chose STOMP version '{0}', which was not offered")]
    UnsupportedVersion(String),
    /// CONNECTED has a `heart-beat` header that is not two numbers.
    #[error("the broker's heart-beat header '{0}' is not two numbers")]
    BadHeartBeat(String),
    /// A frame that may not come now.
    #[error("the broker sent {frame} {why}")]
    Unexpected {
        /// Its command.
        frame: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl SessionSettings {
    /// Whether host, login or passcode has a backslash, so that brokers read CONNECT differently.
    /// Where the kind of broker is not known, one attempt each way tells.
    #[must_use]
    pub fn has_escapes(&self) -> bool {
        let passcode = self.passcode.as_ref().map_or("", Secret::expose);
        [&self.host, self.login.as_deref().unwrap_or_default(), passcode]
            .iter()
            .any(|text| text.contains('\\'))
    }
}

impl Session {
    /// A session for a connection that was just made.
    #[must_use]
    pub fn new(settings: SessionSettings, now: Duration) -> Session {
        Session {
            decoder: Decoder::new(settings.limits),
            settings,
            state: State::New,
            clock: Clock::new(now),
            version: Version::V1_2,
            left: 0,
        }
    }

    /// Writes CONNECT, to be called once and first.
    ///
    /// # Errors
    /// [`SessionError::Settings`] if host, login or passcode cannot be carried; nothing is written
    /// then.
    pub fn connect(&mut self, out: &mut BytesMut) -> Result<(), SessionError> {
        let settings = &self.settings;
        encode::connect(
            out,
            &Connect {
                host: &settings.host,
                login: settings.login.as_deref(),
                passcode: settings.passcode.as_ref().map(Secret::expose),
                client_id: settings.client_id.as_deref(),
                heart_beat: offered(settings),
                escaped: settings.escape_connect,
            },
        )?;
        self.state = State::Connecting;
        Ok(())
    }

    /// Takes the next event out of `input`, which the caller only appends to. To be called until
    /// it gives `None` after each read from the socket: any byte counts as a sign of life.
    ///
    /// # Errors
    /// See [`SessionError`]. The connection is then to be closed.
    #[inline]
    pub fn receive(
        &mut self,
        input: &mut BytesMut,
        now: Duration,
    ) -> Result<Option<Event>, SessionError> {
        if input.len() > self.left {
            self.clock.heard(now);
        }
        let event = self.next_event(input);
        self.left = input.len();
        event
    }

    fn next_event(&mut self, input: &mut BytesMut) -> Result<Option<Event>, SessionError> {
        while let Some(inbound) = self.decoder.decode(input)? {
            let event = match (self.state, inbound) {
                (_, Inbound::HeartBeat) => continue,
                (State::Connected, Inbound::Receipt(number)) => Event::Receipt(number),
                (State::Connected, Inbound::Frame(frame)) => self.connected(frame)?,
                (State::Connecting, Inbound::Frame(frame)) => self.answer(&frame)?,
                (State::Connecting, Inbound::Receipt(_)) => {
                    return Err(unexpected(Command::Receipt, "before CONNECTED"));
                }
                (State::New | State::Refused, Inbound::Frame(frame)) => {
                    return Err(SessionError::NotConnected(frame.command.as_str()));
                }
                (State::New | State::Refused, Inbound::Receipt(_)) => {
                    return Err(SessionError::NotConnected(Command::Receipt.as_str()));
                }
            };
            return Ok(Some(event));
        }
        Ok(None)
    }

    /// A frame after CONNECTED.
    fn connected(&self, frame: Frame) -> Result<Event, SessionError> {
        match frame.command {
            Command::Message => Ok(Event::Message(frame)),
            Command::Error => Ok(Event::Error(self.error_frame(&frame))),
            Command::Receipt => match frame.header("receipt-id") {
                Some(id) => Ok(Event::OtherReceipt(id.to_owned())),
                None => Err(unexpected(frame.command, "without a receipt-id")),
            },
            Command::Connected => Err(unexpected(frame.command, "twice")),
            Command::Client(_) => Err(unexpected(frame.command, "which only clients send")),
        }
    }

    /// A frame in answer to CONNECT.
    fn answer(&mut self, frame: &Frame) -> Result<Event, SessionError> {
        match frame.command {
            Command::Connected => {}
            Command::Error => {
                self.state = State::Refused;
                return Err(SessionError::Refused(self.error_frame(frame)));
            }
            Command::Client(_) => {
                return Err(unexpected(frame.command, "which only clients send"));
            }
            _ => return Err(unexpected(frame.command, "before CONNECTED")),
        }
        let version = match frame.header("version") {
            // Only 1.0 does not say it.
            None => Version::V1_0,
            Some(text) => Version::parse(text)
                .ok_or_else(|| SessionError::UnsupportedVersion(printable(text, SHOWN)))?,
        };
        let header = match version {
            // Not known there, so no side may count on it.
            Version::V1_0 => None,
            _ => frame.header("heart-beat"),
        };
        let agreed = agree(offered(&self.settings), header).ok_or_else(|| {
            SessionError::BadHeartBeat(printable(header.unwrap_or_default(), SHOWN))
        })?;
        self.clock.agreed = agreed;
        self.version = version;
        self.decoder.set_version(version);
        self.state = State::Connected;
        let text = |name| frame.header(name).map(str::to_owned);
        let Agreed { send, expect } = agreed;
        Ok(Event::Connected(Connected {
            version,
            server: text("server"),
            session: text("session"),
            heartbeat: (send, expect),
        }))
    }

    /// The broker's words, without the passcode. One that equals the login, as in RabbitMQ's
    /// `guest`, is no secret, and the words would be hard to read without the user's name.
    fn error_frame(&self, frame: &Frame) -> ErrorFrame {
        let passcode = self.settings.passcode.as_ref().map(Secret::expose);
        let secret = passcode
            .filter(|text| !text.is_empty() && Some(*text) != self.settings.login.as_deref());
        ErrorFrame::new(frame, secret)
    }

    /// Bytes went out at `now`: the next heart-beat is due an interval later.
    #[inline]
    pub fn wrote(&mut self, now: Duration) {
        self.clock.wrote(now);
    }

    /// The peer's silence counts from `now` on: we were not there to hear it.
    pub fn excuse(&mut self, now: Duration) {
        self.clock.heard(now);
    }

    /// When [`Session::tick`] wants to be called; `None` while nothing is agreed.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        match (self.clock.beat_at(), self.clock.dead_at()) {
            (Some(beat), Some(dead)) => Some(beat.min(dead)),
            (beat, dead) => beat.or(dead),
        }
    }

    /// Writes a heart-beat if one is due. Before it says that the peer is silent, what the socket
    /// holds must have been received: a process that was stopped for a while would otherwise blame
    /// the broker.
    ///
    /// # Errors
    /// [`SessionError::PeerSilent`].
    pub fn tick(&mut self, now: Duration, out: &mut BytesMut) -> Result<(), SessionError> {
        if let Some(allowed) = self.clock.silence_allowed() {
            let silent_for = self.clock.silent_for(now);
            if silent_for >= allowed {
                return Err(SessionError::PeerSilent { silent_for, allowed });
            }
        }
        if self.clock.beat_at().is_some_and(|due| now >= due) {
            out.extend_from_slice(b"\n");
            // Not again before half an interval, even while the socket takes nothing.
            self.clock.wrote(now);
        }
        Ok(())
    }

    /// The agreed version; 1.2 before CONNECTED.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whether the broker has agreed to send heart-beats, so that its silence says something.
    #[must_use]
    pub fn heartbeats_expected(&self) -> bool {
        !self.clock.agreed.expect.is_zero()
    }
}

/// The `heart-beat` header of CONNECT.
fn offered(settings: &SessionSettings) -> (u64, u64) {
    (millis(settings.heartbeat_send), millis(settings.heartbeat_expect))
}

fn unexpected(frame: Command, why: &'static str) -> SessionError {
    SessionError::Unexpected { frame: frame.as_str(), why }
}
