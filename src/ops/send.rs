//! `walpost send`: one message straight to the broker, made as `walpost.emit` and the relay would make it.

use std::sync::Arc;
use std::time::Duration;

use serde::de::IgnoredAny;
use uuid::Uuid;

use crate::broker::{self, OnceError};
use crate::lsn::Lsn;
use crate::outbox::{self, Context, Outbox, Row, SettingsError, Shard, UnfitReason};
use crate::pgoutput::{Logical, PgTime};
use crate::template::{Template, TemplateError};

/// A prefix that nothing else has here.
const PREFIX: &str = "walpost send";

/// What is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Where to.
    pub destination: String,
    /// Goes behind the destination, after a dot.
    pub version: Option<String>,
    /// Headers of its own; of a name that comes twice the last one holds.
    pub headers: Vec<(String, String)>,
    /// The body; what is no JSON is sent as bytes.
    pub body: Vec<u8>,
}

/// Why it was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The configuration does not let a message be made.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A template of ours that is none.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// It can't be a message.
    #[error("it can't be sent: {0}")]
    Unfit(UnfitReason),
    /// What was made of it is no message.
    #[error("it can't be sent")]
    NoMessage,
    /// The broker did not take it.
    #[error(transparent)]
    Broker(#[from] OnceError),
}

/// Sends it and waits for the receipt. Answers a line for people.
///
/// # Errors
/// [`SendError`].
pub async fn send(
    broker: &Arc<broker::Settings>,
    mapping: outbox::Settings,
    patience: Duration,
    now: PgTime,
    letter: &Letter,
) -> Result<String, SendError> {
    let mut outbox = Outbox::new(outbox::Settings {
        emitted: (Template::parse("{destination}[.{version}]")?, Template::parse("")?),
        logical_prefix: Some(PREFIX.to_owned()),
        shard: Shard::ALL,
        ..mapping
    })?;
    let content = content(letter);
    let logical =
        Logical { transactional: true, lsn: Lsn::INVALID, prefix: PREFIX, content: &content };
    let nowhere = Context { commit_lsn: Lsn::INVALID, xid: 0, commit_time: now, now };
    let (message, dropped) = match outbox.logical(&logical, &nowhere) {
        Row::Message(message, dropped) => (message, dropped.0),
        Row::Unfit(unfit) => return Err(SendError::Unfit(unfit.reason)),
        Row::Skipped(_) => return Err(SendError::NoMessage),
    };
    let stored = broker::send_once(broker, &message, patience).await?;
    let left_out = match dropped {
        0 => String::new(),
        some => format!(" without {some} of its headers, which only walpost may set"),
    };
    Ok(format!(
        "sent {} to {}{left_out}: stored by {} ({})\n",
        message.id(),
        message.destination(),
        stored.address,
        stored.kind
    ))
}

/// As `walpost.emit` writes it.
fn content(letter: &Letter) -> Vec<u8> {
    let Letter { destination, version, headers, body } = letter;
    let headers: serde_json::Map<String, serde_json::Value> =
        headers.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    let head = serde_json::json!({
        "id": Uuid::now_v7().to_string(),
        "destination": destination,
        "version": version,
        "headers": headers,
        "bytes": !body.is_empty() && serde_json::from_slice::<IgnoredAny>(body).is_err(),
    });
    let mut content = head.to_string().into_bytes();
    content.push(b'\n');
    content.extend_from_slice(body);
    content
}
