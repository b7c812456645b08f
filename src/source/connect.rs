//! From nothing to a logged-in replication connection to the server that accepts writes.

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tracing::debug;

use super::command::{Origin, Replication, fill};
use super::error::SourceError;
use super::feedback::sender_timeout;
use super::settings::{ChannelBinding, Settings};
use super::timeline;
use crate::net::{self, Address, ConnectError, Stream};
use crate::pgwire::frame::{Frames, Limits};
use crate::pgwire::login::{Login, LoginSettings, LoginStep};

/// The longest message other than CopyData: errors and notices.
const OTHER: usize = 1024 * 1024;
/// How much of a row too long to be read is kept, to name it.
const KEPT: usize = 64 * 1024;

/// Connects to the first host that accepts writes.
///
/// # Errors
/// The last host's [`SourceError`].
pub async fn connect(settings: &Settings) -> Result<Replication, SourceError> {
    let mut last = SourceError::Closed;
    for address in &settings.hosts {
        match connect_to(settings, address).await {
            Ok(connection) => return Ok(connection),
            // The host that says what an operator must do is not hidden by a standby beside it.
            Err(SourceError::ReadOnly(_)) if !matches!(last, SourceError::Closed) => {}
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn connect_to(settings: &Settings, address: &Address) -> Result<Replication, SourceError> {
    let timeout = settings.connect_timeout;
    let stream = net::connect_postgres(address, &settings.tls, timeout).await?;
    let (cipher, words) = (stream.cipher(), stream.words().cloned());
    debug!(host = %address, tls = cipher.as_deref(), "connected to PostgreSQL; logging in");
    let login = tokio::time::timeout(timeout, log_in(settings, address, stream));
    match login.await.map_err(|_| SourceError::LoginTimedOut(timeout))? {
        // A server refuses a certificate of ours only now.
        Err(SourceError::Io(error)) => match words.and_then(|words| words.of(&error)) {
            Some(error) => Err(ConnectError::Tls { address: address.clone(), error }.into()),
            None => Err(SourceError::Io(error)),
        },
        connected => connected,
    }
}

async fn log_in(
    settings: &Settings,
    address: &Address,
    mut stream: Stream,
) -> Result<Replication, SourceError> {
    let mut frames = Frames::new(Limits { copy_data: settings.max_row, other: OTHER, kept: KEPT });
    let mut login = Login::new(LoginSettings {
        user: settings.user.clone(),
        database: settings.database.clone(),
        password: settings.password.clone(),
        parameters: parameters(settings),
        end_point: match settings.channel_binding {
            ChannelBinding::Never => None,
            ChannelBinding::Offered | ChannelBinding::Always => stream.end_point(),
        },
        must_bind: settings.channel_binding == ChannelBinding::Always,
    });
    let mut out = BytesMut::new();
    login.start(&mut out)?;
    let process_id = loop {
        stream.write_all(&out).await?;
        stream.flush().await?;
        out.clear();
        let step = match frames.next()? {
            Some(frame) => login.on_frame(frame.tag, frame.body, &mut out)?,
            None => {
                fill(&mut stream, &mut frames).await?;
                LoginStep::Continue
            }
        };
        if let LoginStep::Done { process_id, .. } = step {
            break process_id;
        }
    };
    if login.sent_cleartext() {
        let remedy = "set postgres.tls.mode to verify-full (docs/configuration.md, 'TLS'), or have the \
            server ask by scram-sha-256 (pg_hba.conf)";
        settings.plain_password.sent(&stream, address, remedy);
    }
    let mut connection = Replication {
        address: address.clone(),
        process_id,
        origin: Origin::default(),
        stream,
        frames,
    };
    let read_only = connection.value("SHOW", "SHOW transaction_read_only").await?;
    if read_only.as_deref() == Some("on") {
        return Err(SourceError::ReadOnly(address.to_string()));
    }
    connection.origin = timeline::identify(&mut connection).await?;
    Ok(connection)
}

/// Pinned, since they change what is read.
fn parameters(settings: &Settings) -> Vec<(String, String)> {
    let sender_timeout = sender_timeout(settings.status_interval);
    let mut parameters: Vec<(String, String)> = [
        ("replication", "database"),
        ("application_name", "walpost"),
        ("client_encoding", "UTF8"),
        ("datestyle", "ISO"),
        ("intervalstyle", "postgres"),
        ("timezone", "UTC"),
        ("extra_float_digits", "1"),
        ("bytea_output", "hex"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    parameters.push(("wal_sender_timeout".to_owned(), format!("{}ms", sender_timeout.as_millis())));
    if let Some(options) = &settings.options {
        parameters.push(("options".to_owned(), options.clone()));
    }
    parameters
}
