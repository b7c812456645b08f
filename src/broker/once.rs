//! One message, straight to the broker: no engine, no retries.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::connect::{self, HostError};
use super::connection::{Connection, LaneError, LaneEvent};
use super::profile::Kind;
use super::settings::Settings;
use crate::engine::Receipt;
use crate::net::Address;
use crate::outbox::Message;
use crate::stomp::ErrorFrame;

/// The only message's.
const RECEIPT: Receipt = Receipt(1);
/// How long the broker may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// Who has stored the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Which host.
    pub address: Address,
    /// Which broker that is.
    pub kind: Kind,
}

/// Why the message is not known to be stored.
#[derive(Debug, thiserror::Error)]
pub enum OnceError {
    /// No host took us.
    #[error("no broker took us: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Hosts(Vec<HostError>),
    /// The broker said no.
    #[error("the broker refused it: {0}")]
    Refused(ErrorFrame),
    /// The connection ended before the receipt.
    #[error("whether it is stored is not known: {0}")]
    Lost(#[from] LaneError),
    /// There was no answer.
    #[error("whether it is stored is not known: no receipt within {0:?}")]
    NoReceipt(Duration),
}

/// Sends the message to the first host that takes us, and waits for its receipt.
///
/// # Errors
/// [`OnceError`].
pub async fn send_once(
    settings: &Arc<Settings>,
    message: &Message,
    patience: Duration,
) -> Result<Stored, OnceError> {
    let epoch = Instant::now();
    let mut connection = connection(settings, epoch).await?;
    connection.send(RECEIPT, message)?;
    let answer = poll_fn(|cx| poll_receipt(&mut connection, cx, epoch.elapsed()));
    timeout(patience, answer).await.map_err(|_| OnceError::NoReceipt(patience))??;
    let stored = Stored { address: connection.address.clone(), kind: connection.kind };
    // The message is stored, whatever becomes of the connection.
    let _ = timeout(GOODBYE, connection.leave()).await;
    Ok(stored)
}

async fn connection(settings: &Arc<Settings>, epoch: Instant) -> Result<Connection, OnceError> {
    let mut refused = Vec::new();
    for address in &settings.hosts {
        match connect::connect(settings, address, epoch).await {
            Ok(connection) => return Ok(connection),
            Err(error) => refused.push(error),
        }
    }
    Err(OnceError::Hosts(refused))
}

fn poll_receipt(
    connection: &mut Connection,
    cx: &mut Context<'_>,
    now: Duration,
) -> Poll<Result<(), OnceError>> {
    if let Poll::Ready(Err(error)) = connection.poll_flush(cx, now) {
        return Poll::Ready(Err(error.into()));
    }
    loop {
        match connection.poll_event(cx, now) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(LaneEvent::Receipt(RECEIPT))) => return Poll::Ready(Ok(())),
            Poll::Ready(Ok(LaneEvent::Error(error))) => {
                return Poll::Ready(Err(OnceError::Refused(error)));
            }
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
        }
    }
}
