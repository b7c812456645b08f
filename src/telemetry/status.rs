//! The snapshot behind `/status.json`, `/readyz` and the page.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::consumers::Consumer;
use crate::lsn::Lsn;

/// How long the confirmed position may stand still with something behind it, and no receipt
/// come, before `/readyz` fails. Twice the default `receipt_timeout`: by then the relay has
/// itself given up on a broker that does not answer.
pub const STALL_LIMIT: Duration = Duration::from_secs(60);

/// Everything there is to say about a relay at one moment. Serialised as it is written here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The version of walpost.
    pub version: String,
    /// When the process started, RFC 3339 in UTC.
    pub started_at: String,
    /// When this snapshot was taken, RFC 3339 in UTC.
    pub as_of: String,
    /// What the relay is doing.
    pub phase: Phase,
    /// How far the rows are published that wait in the table; nothing unless `phase` is
    /// `recovering`, or was when it was told to stop.
    pub recovery: Option<Recovery>,
    /// The PostgreSQL side.
    pub source: Source,
    /// The broker side.
    pub broker: Broker,
    /// What is in the window.
    pub in_flight: InFlight,
    /// Published rows that are to be marked or deleted still.
    pub marking: Marking,
    /// Messages that the broker refuses.
    pub undelivered: Undelivered,
    /// The consumers of `walpost run`.
    pub consumers: Vec<Consumer>,
    /// Totals since the process started, as in `/metrics`.
    pub counters: Counters,
}

/// What the relay is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nothing is connected yet.
    Starting,
    /// Another instance has the slot; this one takes over when it is free.
    Standby,
    /// Opening the replication stream, for the first time or again.
    Connecting,
    /// The slot is held, and rows that it does not bring are being published out of the table.
    Recovering,
    /// The stream is open.
    Streaming,
    /// Told to stop: reading nothing more, waiting for the outstanding receipts.
    Draining,
    /// The relay has ended.
    Stopped,
}

/// Rows that the slot does not bring, on their way out of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// The table that is being read, as `schema.name`; nothing before the first.
    pub table: Option<String>,
    /// Messages made of its rows and of those before it, since this session has the slot.
    pub published: u64,
    /// When the last of these rows was made, RFC 3339 in UTC: rows go in this order. Nothing where
    /// the table does not tell.
    pub up_to: Option<String>,
}

/// The PostgreSQL side.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// Whether the replication connection stands.
    pub connected: bool,
    /// `host:port` of the server connected to, or last tried.
    pub host: Option<String>,
    /// The slot's name.
    pub slot: String,
    /// The publication's name.
    pub publication: String,
    /// The position confirmed to PostgreSQL.
    #[serde(with = "lsn_text")]
    pub confirmed_lsn: Option<Lsn>,
    /// The server's present WAL position, as last heard.
    #[serde(with = "lsn_text")]
    pub server_lsn: Option<Lsn>,
    /// The end of WAL a moment ago: an idle relay that has reached it was caught up then, since what
    /// was written in this moment can't have been looked through yet.
    #[serde(skip)]
    pub settled: Option<Settled>,
    /// Bytes of WAL between these two, never negative. Of every database of the server: a busy
    /// neighbour counts.
    pub lag_bytes: Option<u64>,
    /// Age of the oldest unconfirmed commit in seconds; 0 when everything is confirmed. Nothing on
    /// a standby: the instance that holds the slot knows.
    pub lag_seconds: Option<f64>,
    /// Seconds since the confirmed position, or the number of receipts, last moved; nothing
    /// while caught up.
    pub stalled_seconds: Option<f64>,
    /// The slot's `wal_status`: `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// Bytes of WAL that the slot makes the server keep.
    pub retained_bytes: Option<u64>,
    /// The slot's `safe_wal_size`: bytes that can still be written before the slot may be lost;
    /// nothing where the server sets no limit.
    pub safe_bytes: Option<i64>,
    /// Seconds until these bytes are written at the present rate of WAL; nothing where that is not known.
    pub slot_seconds_left: Option<f64>,
    /// For which standbys the server keeps back what the slot is to bring, and what to type.
    pub held_back: Option<String>,
    /// The last error on this side, in one line, until it is connected again.
    pub last_error: Option<String>,
}

/// Where the WAL ended when the server was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The end of what was on disk.
    pub lsn: Lsn,
    /// When it was asked, since the Unix epoch.
    pub at: Duration,
}

/// Published rows that are to be marked or deleted still (`outbox.after_publish`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marking {
    /// How many; they are in the window.
    pub owed: usize,
    /// Why the last of them were not, in one line; nothing when they were.
    pub last_error: Option<String>,
}

/// Messages that the broker refuses, or that can't be sent: what is in `walpost.undelivered`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undelivered {
    /// Destinations whose messages are kept there.
    pub parked: usize,
    /// Messages that are sent again.
    pub retrying: u64,
    /// Dead letters.
    pub dead: u64,
    /// As many are kept as may be (`retry.max_parked`): the stream is held.
    pub full: bool,
    /// Why the table can't be read or written, in one line, once that lasts.
    pub last_error: Option<String>,
}

/// The broker side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broker {
    /// What the broker is: `rabbitmq`, `activemq`, `artemis`, `other`; nothing before CONNECTED.
    pub kind: Option<String>,
    /// Its version, where it tells.
    pub version: Option<String>,
    /// Its connections, but for the one on which refused destinations are tried.
    pub lanes: Vec<Lane>,
    /// Destinations that it refuses, or is suspected to; not more than [`REFUSED`] of them.
    pub refused: Vec<Refused>,
}

/// So many destinations are told of.
pub const REFUSED: usize = 20;

/// A destination that the broker refuses, or may refuse: its messages wait, others flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Its name.
    pub destination: String,
    /// How often in a row its oldest message was refused; 0: it is only suspected.
    pub attempts: u32,
    /// Its messages that wait, in the window.
    pub waiting: usize,
    /// Its messages that are kept in `walpost.undelivered` to be sent again; nothing: it is not parked.
    pub kept: Option<u64>,
    /// It is given up: what comes for it is a dead letter.
    pub condemned: bool,
    /// Seconds until its oldest message is tried again.
    pub next_in_seconds: Option<u64>,
    /// The broker's words, in one line.
    pub last_error: String,
}

/// One connection to the broker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lane {
    /// `host:port` connected to, or last tried.
    pub host: Option<String>,
    /// Whether CONNECTED has come and the connection stands.
    pub connected: bool,
    /// Whether the broker is up but answers nothing: a memory or disk alarm.
    pub blocked: bool,
    /// Messages read for it and not receipted.
    pub in_flight: usize,
    /// The last error on it, in one line, until it is connected again.
    pub last_error: Option<String>,
}

/// What is in the window: read and not receipted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlight {
    /// Messages.
    pub messages: usize,
    /// Their bytes.
    pub bytes: usize,
    /// `broker.in_flight.messages`.
    pub max_messages: usize,
    /// `broker.in_flight.bytes`.
    pub max_bytes: usize,
}

/// Totals since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Messages sent for the first time.
    pub sent: u64,
    /// Messages sent again.
    pub resent: u64,
    /// Receipts.
    pub receipts: u64,
    /// Refusals by the broker, of every kind.
    pub rejections: u64,
    /// Changes in the stream that were no message.
    pub skipped: u64,
}

impl Status {
    /// A relay that has just started, at `started_at` (RFC 3339).
    #[must_use]
    pub fn new(slot: &str, publication: &str, started_at: &str) -> Self {
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: started_at.to_owned(),
            as_of: started_at.to_owned(),
            phase: Phase::Starting,
            recovery: None,
            source: Source {
                slot: slot.to_owned(),
                publication: publication.to_owned(),
                ..Source::default()
            },
            broker: Broker::default(),
            in_flight: InFlight::default(),
            marking: Marking::default(),
            undelivered: Undelivered::default(),
            consumers: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// `/readyz`: both ends connected and the confirmed position moving or caught up, or a
    /// standby waiting for the slot.
    ///
    /// # Errors
    /// The reason why not, in one line for an operator.
    pub fn readiness(&self) -> Result<(), String> {
        self.phase_readiness().map_err(|reason| one_line(&reason))
    }

    fn phase_readiness(&self) -> Result<(), String> {
        match self.phase {
            Phase::Standby => Ok(()),
            Phase::Draining => Err(format!(
                "shutting down: {} messages wait for their receipts",
                self.in_flight.messages
            )),
            Phase::Stopped => Err(format!("the relay has stopped{}", why(&self.source.last_error))),
            Phase::Starting | Phase::Connecting | Phase::Recovering | Phase::Streaming => {
                self.source.readiness()?;
                self.broker.readiness()?;
                self.marking.readiness()?;
                self.undelivered.readiness()?;
                if !matches!(self.phase, Phase::Recovering | Phase::Streaming) {
                    return Err("the replication stream is not open yet".to_owned());
                }
                self.source.progress(self.phase).map_err(|stalled| match self.broker.refused.first() {
                    Some(Refused { destination, last_error, .. }) => {
                        format!("{stalled}; the broker refuses what goes to {destination}: {last_error}")
                    }
                    None => stalled,
                })
            }
        }
    }
}

impl Undelivered {
    fn readiness(&self) -> Result<(), String> {
        if self.full {
            return Err(format!(
                "retry.max_parked messages are kept ({}), so that the stream is held; mend the destination, or \
                 discard some (walpost undelivered list)",
                self.retrying
            ));
        }
        self.last_error.clone().map_or(Ok(()), Err)
    }
}

impl Marking {
    fn readiness(&self) -> Result<(), String> {
        self.last_error.clone().map_or(Ok(()), Err)
    }
}

impl Source {
    fn readiness(&self) -> Result<(), String> {
        if self.connected {
            return self.held_back.clone().map_or(Ok(()), Err);
        }
        let host = at(&self.host);
        Err(format!("not streaming from PostgreSQL{host}{}", why(&self.last_error)))
    }

    fn progress(&self, phase: Phase) -> Result<(), String> {
        match self.stalled_seconds {
            Some(seconds) if seconds >= STALL_LIMIT.as_secs_f64() && phase == Phase::Recovering => {
                Err(format!(
                    "publishing the rows that wait, and no receipt came for {seconds:.0} s: PostgreSQL \
                     sorts them, or the broker does not answer{}",
                    why(&self.last_error)
                ))
            }
            Some(seconds) if seconds >= STALL_LIMIT.as_secs_f64() => Err(format!(
                "nothing was confirmed and no receipt came for {seconds:.0} s; {} bytes behind{}",
                self.lag_bytes.unwrap_or(0),
                why(&self.last_error)
            )),
            _ => Ok(()),
        }
    }
}

impl Broker {
    fn readiness(&self) -> Result<(), String> {
        if self.lanes.is_empty() {
            return Err("the broker is not connected".to_owned());
        }
        for lane in &self.lanes {
            let host = at(&lane.host);
            if !lane.connected {
                let why = why(&lane.last_error);
                return Err(format!("the broker{host} is not connected{why}"));
            }
            if lane.blocked {
                return Err(format!(
                    "the broker{host} is connected but takes nothing (memory or disk alarm?); \
                     {} messages wait for their receipts",
                    lane.in_flight
                ));
            }
        }
        Ok(())
    }
}

fn at(host: &Option<String>) -> String {
    host.as_ref().map_or_else(String::new, |host| format!(" at {host}"))
}

fn why(error: &Option<String>) -> String {
    error.as_ref().map_or_else(String::new, |error| format!(": {error}"))
}

/// What a peer said may hold line ends and other controls; a probe's answer is one line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// LSNs as PostgreSQL prints them, `16/B374D848`.
mod lsn_text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::lsn::Lsn;

    #[expect(clippy::ref_option, reason = "the signature that serde asks for")]
    pub(super) fn serialize<S: Serializer>(lsn: &Option<Lsn>, to: S) -> Result<S::Ok, S::Error> {
        lsn.map(|lsn| lsn.to_string()).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Lsn>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| text.parse().map_err(serde::de::Error::custom)).transpose()
    }
}
