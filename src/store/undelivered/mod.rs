//! `walpost.undelivered`: messages that the broker refuses.
//!
//! What a relay writes ([`keep`], [`drain`], [`destination`]) goes with the slot: whoever no longer has it
//! writes nothing. What an operator asks ([`listing`]) and does ([`operator`]) changes states only, whether a relay runs or not.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::marking::{HELD, Holder};
use super::query::Param;
use crate::engine::ChangeId;
use crate::lsn::Lsn;
use crate::pgtime::PgTime;

pub mod destination;
pub mod drain;
pub mod keep;
pub mod listing;
pub mod operator;

mod dead_mark;
mod row;

pub use destination::{Parked, ParkedDestination};
pub use drain::{Attempt, Loaded};
pub use listing::{Counted, Filter, Listed, RowState, Shown};
pub use operator::{Discarded, Fact, Retried, Which};

use tokio_postgres::types::Type;

/// What a row is kept as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptState {
    /// It is tried again, in its turn.
    Retrying,
    /// It waits for an operator.
    Dead,
}

/// What identifies a message that came from the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The LSN of its transaction's commit record.
    pub commit_lsn: Lsn,
    /// The transaction's id.
    pub xid: u32,
    /// When that was committed.
    pub commit_time: PgTime,
    /// The change within the transaction.
    pub change: ChangeId,
}

/// A message to be kept. `Debug` hides the body.
#[derive(Clone, PartialEq, Eq)]
pub struct NewRow {
    /// None: it was read from the table, not from the slot.
    pub identity: Option<Identity>,
    /// What it is kept as; one without a destination is dead in any case.
    pub state: KeptState,
    /// Its `msg-id`; none: the row has none.
    pub message_id: Option<String>,
    /// Where to; none: it could not be made out.
    pub destination: Option<String>,
    /// The ordering key.
    pub key: Option<String>,
    /// As they are sent; each name once.
    pub headers: Vec<(String, String)>,
    /// As it is sent; none: it is too long to be kept.
    pub body: Option<Bytes>,
    /// It can't be sent as it is, so that nobody but an operator has it tried again.
    pub unfit: bool,
    /// What the broker said, or why it can't be sent.
    pub error: String,
    /// How often it was sent in vain.
    pub attempts: u32,
    /// After what time it is sent again.
    pub next_in: Option<Duration>,
    /// The outbox table: its oid, and its name as `schema.name`.
    pub table: Option<(u32, String)>,
}

/// A message that is kept. `Debug` hides the body.
#[derive(Clone, PartialEq, Eq)]
pub struct KeptRow {
    /// The row's number.
    pub id: i64,
    /// How often it was sent in vain; of [`Store::attempt`](super::Store::attempt), with the one that follows.
    pub attempts: u32,
    /// As in [`NewRow`].
    pub identity: Option<Identity>,
    /// As in [`NewRow`].
    pub message_id: Option<String>,
    /// As in [`NewRow`].
    pub destination: Option<String>,
    /// As in [`NewRow`].
    pub key: Option<String>,
    /// As in [`NewRow`], sorted by name.
    pub headers: Vec<(String, String)>,
    /// As in [`NewRow`].
    pub body: Option<Bytes>,
    /// As in [`NewRow`].
    pub table: Option<(u32, String)>,
}

impl NewRow {
    /// Whether it is not sent again.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.state == KeptState::Dead || self.destination.is_none()
    }
}

impl fmt::Debug for NewRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewRow")
            .field("identity", &self.identity)
            .field("state", &self.state)
            .field("message_id", &self.message_id)
            .field("destination", &self.destination)
            .field("body_bytes", &self.body.as_ref().map(Bytes::len))
            .field("error", &self.error)
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for KeptRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptRow")
            .field("id", &self.id)
            .field("attempts", &self.attempts)
            .field("identity", &self.identity)
            .field("message_id", &self.message_id)
            .field("destination", &self.destination)
            .field("body_bytes", &self.body.as_ref().map(Bytes::len))
            .finish_non_exhaustive()
    }
}

/// Whoever holds the slot, as a statement takes it.
struct Held<'a> {
    slot: &'a str,
    walsender: i32,
    epoch: i64,
}

impl<'a> Held<'a> {
    fn new(holder: Holder<'a>) -> Self {
        let Holder { slot, epoch, walsender } = holder;
        Held { slot, walsender: walsender.cast_signed(), epoch }
    }

    /// `$1` of the statement, and `$2` to `$4`, which [`HELD`] looks at.
    fn params<'p>(&'p self, first: Param<'p>) -> Vec<Param<'p>> {
        vec![
            first,
            (&self.slot, Type::TEXT),
            (&self.walsender, Type::INT4),
            (&self.epoch, Type::INT8),
        ]
    }
}

/// The beginning of each statement that goes with the slot: whether it is ours.
fn ours() -> String {
    format!("WITH ours AS MATERIALIZED (SELECT {HELD} AS held)")
}

/// The rows of the destination `$1` in a state, which is a literal: found by the index, whatever the length.
fn of_destination(state: &str) -> String {
    format!(
        "slot = $2 AND state = '{state}' AND destination_hash = hashtextextended($1, 0) AND destination = $1"
    )
}
