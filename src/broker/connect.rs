//! From nothing to a connection that the broker has accepted: one host, one attempt.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::Instant;
use tracing::debug;

use super::connection::Connection;
use super::grouping::Grouping;
use super::output::Output;
use super::profile::Kind;
use super::settings::Settings;
use crate::net::tls::TlsError;
use crate::net::{self, Address, ConnectError, Stream};
use crate::stomp::decode::Limits;
use crate::stomp::session::{Connected, Event, Session, SessionError, SessionSettings};

/// What a broker may send us: receipts, and ERRORs with some words.
const LIMITS: Limits = Limits { header_line: 16 * 1024, headers: 200, body: 256 * 1024 };

/// Why a host did not take us.
#[derive(Debug, thiserror::Error)]
#[error("{address}: {kind}")]
pub struct HostError {
    /// Which host.
    pub address: Address,
    /// What happened there.
    pub kind: HostErrorKind,
}

/// What happened at a host, told apart for the log and the status.
#[derive(Debug, thiserror::Error)]
pub enum HostErrorKind {
    /// Nothing listens there, or it can't be reached.
    #[error("{0}")]
    Down(String),
    /// The broker said no: a wrong login, an unknown virtual host.
    #[error(
        "login refused: {0}; check broker.username, broker.passcode, broker.vhost and the user's permissions there"
    )]
    Refused(String),
    /// One of the two does not take the other's certificate, or there is no TLS.
    #[error("{0}")]
    Tls(TlsError),
    /// `broker.delivery: transactions` is no way to this broker.
    #[error("{0}; write auto or receipts for broker.delivery")]
    NoTransactions(&'static str),
    /// It closed the connection or said nothing in answer to CONNECT.
    #[error("no answer to CONNECT: {0}; does this port speak STOMP, with the right TLS setting?")]
    NoAnswer(String),
    /// What answers there is no STOMP broker.
    #[error("does not speak STOMP: {0}")]
    NoStomp(String),
}

impl HostErrorKind {
    /// Whether trying again changes nothing, unless somebody is just changing it.
    #[must_use]
    pub fn needs_an_operator(&self) -> bool {
        match self {
            Self::Refused(_) | Self::NoTransactions(_) => true,
            Self::Tls(error) => error.is_refusal(),
            Self::Down(_) | Self::NoAnswer(_) | Self::NoStomp(_) => false,
        }
    }
}

/// A connection that the broker has accepted, for whatever it is used.
pub(super) struct Opened {
    pub(super) kind: Kind,
    pub(super) connected: Connected,
    pub(super) stream: Stream,
    pub(super) session: Session,
    pub(super) input: BytesMut,
}

/// Connects to one host for sending. `epoch` is the relay's zero of time.
pub(super) async fn connect(
    settings: &Settings,
    address: &Address,
    epoch: Instant,
) -> Result<Connection, HostError> {
    let failed = |kind| HostError { address: address.clone(), kind };
    let opened = open(settings, address, epoch, LIMITS, None).await?;
    let Opened { kind, connected, stream, session, input } = opened;
    let transactions = kind
        .transactions(settings.delivery)
        .map_err(|reason| failed(HostErrorKind::NoTransactions(reason)))?;
    // Nothing tells when the broker has read the former connection to its end; what is agreed on
    // heart-beats is kept meanwhile.
    let (send, _) = connected.heartbeat;
    let within_a_beat = if send.is_zero() { Duration::MAX } else { send / 2 };
    // So it is time alone that is waited for.
    tokio::time::sleep(kind.settles().min(within_a_beat)).await;
    Ok(Connection {
        address: address.clone(),
        kind,
        server: connected.server,
        stream,
        session,
        input,
        output: Output::default(),
        content_length: settings.content_length,
        amqp_message_id: settings.amqp_message_id,
        probes: 0,
        grouping: transactions.then(Grouping::default),
    })
}

/// Connects to one host and waits for CONNECTED. `limits` caps what the broker sends afterwards.
pub(super) async fn open(
    settings: &Settings,
    address: &Address,
    epoch: Instant,
    limits: Limits,
    client_id: Option<&str>,
) -> Result<Opened, HostError> {
    let failed = |kind| HostError { address: address.clone(), kind };
    let connected = net::connect(address, settings.tls.as_ref(), settings.connect_timeout).await;
    let mut stream = connected.map_err(|error| failed(unreachable(error)))?;
    if !settings.username.is_empty() && !settings.passcode.is_empty() {
        let remedy = "set broker.tls.enabled, and the broker's port for TLS in broker.hosts";
        settings.plain_password.sent(&stream, address, remedy);
    }
    let answer = tokio::time::timeout(
        settings.connect_timeout,
        log_in(settings, address, &mut stream, epoch, (limits, client_id)),
    );
    let (session, input, connected) = match answer.await {
        Ok(Ok(connected)) => connected,
        Ok(Err(kind)) => return Err(failed(kind)),
        Err(_) => {
            let waited = format!("nothing within {:?}", settings.connect_timeout);
            return Err(failed(HostErrorKind::NoAnswer(waited)));
        }
    };
    let kind = settings.kind.unwrap_or_else(|| Kind::of_server(connected.server.as_deref()));
    Ok(Opened { kind, connected, stream, session, input })
}

/// The address is said by the caller.
fn unreachable(error: ConnectError) -> HostErrorKind {
    HostErrorKind::Down(match error {
        ConnectError::Tls { error, .. } => return HostErrorKind::Tls(error),
        ConnectError::TimedOut { timeout, .. } => format!("no answer within {timeout:?}"),
        ConnectError::Io { error, .. } if error.kind() == io::ErrorKind::ConnectionRefused => {
            format!(
                "{error}; is it up, with its STOMP listener (RabbitMQ: rabbitmq-plugins enable rabbitmq_stomp)?"
            )
        }
        ConnectError::Io { error, .. } => error.to_string(),
    })
}

/// A connection that ended before CONNECTED. A broker refuses a certificate of ours only now.
fn lost(error: &io::Error, stream: &Stream) -> HostErrorKind {
    match stream.words().and_then(|words| words.of(error)) {
        Some(error) => HostErrorKind::Tls(error),
        None => HostErrorKind::NoAnswer(error.to_string()),
    }
}

async fn log_in(
    settings: &Settings,
    address: &Address,
    stream: &mut Stream,
    epoch: Instant,
    (limits, client_id): (Limits, Option<&str>),
) -> Result<(Session, BytesMut, Connected), HostErrorKind> {
    let mut session = Session::new(
        SessionSettings {
            host: settings.vhost.clone(),
            login: Some(settings.username.clone()).filter(|login| !login.is_empty()),
            passcode: Some(settings.passcode.clone()).filter(|_| !settings.username.is_empty()),
            client_id: client_id.map(str::to_owned),
            // Unknown before CONNECTED unless configured: RabbitMQ then.
            escape_connect: settings.kind.is_none_or(|kind| kind == Kind::RabbitMq),
            heartbeat_send: settings.heartbeat_send,
            heartbeat_expect: settings.heartbeat_expect,
            limits,
        },
        epoch.elapsed(),
    );
    debug!(
        host = %address, vhost = settings.vhost, login = settings.username,
        send = ?settings.heartbeat_send, expect = ?settings.heartbeat_expect, "CONNECT"
    );
    let mut output = Output::default();
    session.connect(output.buffer()).map_err(|error| HostErrorKind::NoStomp(error.to_string()))?;
    let mut input = BytesMut::with_capacity(4096);
    let mut wrote = false;
    let written = poll_fn(|cx| output.poll_write(stream, cx, &mut wrote)).await;
    written.map_err(|error| lost(&error, stream))?;
    session.wrote(epoch.elapsed());
    loop {
        match session.receive(&mut input, epoch.elapsed()) {
            Ok(Some(Event::Connected(connected))) => {
                let (send, expect) = connected.heartbeat;
                debug!(
                    host = %address, version = connected.version.as_str(), ?send, ?expect,
                    server = connected.server.as_deref(),
                    "CONNECTED"
                );
                return Ok((session, input, connected));
            }
            Ok(Some(_)) => {}
            Ok(None) => {
                input.reserve(4096);
                let read = poll_fn(|cx| {
                    tokio_util::io::poll_read_buf(std::pin::Pin::new(&mut *stream), cx, &mut input)
                });
                let read = read.await.map_err(|error| lost(&error, stream))?;
                if read == 0 {
                    return Err(HostErrorKind::NoAnswer("it closed the connection".to_owned()));
                }
            }
            Err(SessionError::Refused(error)) => {
                return Err(HostErrorKind::Refused(error.to_string()));
            }
            Err(error) => return Err(HostErrorKind::NoStomp(error.to_string())),
        }
    }
}
