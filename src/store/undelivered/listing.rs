//! What an operator asks.

use std::time::Duration;

use bytes::Bytes;
use tokio_postgres::types::Type;

use super::row::headers_of;
use crate::lsn::Lsn;
use crate::store::connect::Store;
use crate::store::error::StoreError;
use crate::store::query::{Fields, Param};

/// The state of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowState {
    /// It is tried again, in its turn.
    Retrying,
    /// It waits for an operator.
    Dead,
    /// An operator has thrown it away.
    Discarded,
}

impl RowState {
    /// As the table has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            RowState::Retrying => "retrying",
            RowState::Dead => "dead",
            RowState::Discarded => "discarded",
        }
    }

    pub(super) fn from_text(what: &'static str, text: &str) -> Result<Self, StoreError> {
        let states = [RowState::Retrying, RowState::Dead, RowState::Discarded];
        let state = states.into_iter().find(|state| state.as_str() == text);
        state.ok_or_else(|| StoreError::Answer { what, cause: format!("state '{text}'") })
    }
}

/// Which rows are asked for.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this destination.
    pub destination: Option<String>,
    /// In this state; none: retrying or dead.
    pub state: Option<RowState>,
}

/// What a list says of a row.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its number.
    pub id: i64,
    /// Its state.
    pub state: RowState,
    /// Where to.
    pub destination: Option<String>,
    /// The message's id.
    pub message_id: Option<String>,
    /// The ordering key.
    pub key: Option<String>,
    /// How often it was sent in vain.
    pub attempts: i32,
    /// When it is sent again, UTC.
    pub next_attempt_at: Option<String>,
    /// How long that is from now; zero: it is due.
    pub next_in: Option<Duration>,
    /// When it was put here, UTC.
    pub failed_at: String,
    /// How long ago that is.
    pub age: Duration,
    /// Why.
    pub error: Option<String>,
    /// The position of its transaction's commit.
    pub lsn: Option<Lsn>,
    /// The outbox table.
    pub table: Option<String>,
    /// How long its body is; none: it has none.
    pub body_bytes: Option<i32>,
}

/// A row with everything.
#[derive(Clone)]
pub struct Shown {
    /// What a list says of it.
    pub listed: Listed,
    /// Headers.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Option<Bytes>,
    /// The transaction that inserted it.
    pub xid: Option<i64>,
    /// When that was committed, UTC.
    pub commit_time: Option<String>,
}

/// How many rows of a destination are in a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Where to.
    pub destination: Option<String>,
    /// The state.
    pub state: RowState,
    /// How many.
    pub rows: u64,
}

const LISTED: &str = "u.id, u.state, u.destination, u.message_id, u.key, u.attempts,
    to_char(u.next_attempt_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
    extract(epoch FROM u.next_attempt_at - now())::float8,
    to_char(u.failed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
    extract(epoch FROM now() - u.failed_at)::float8,
    u.error, u.lsn, u.table_name, octet_length(u.body)";
const FILTER: &str = "slot = $1 AND CASE WHEN $2::text IS NULL THEN state IN ('retrying', 'dead')
    ELSE state = $2 END AND ($3::text IS NULL OR destination = $3)";
pub(super) const READING: &str = "reading walpost.undelivered";

impl Store {
    /// The newest rows, so many at most, the newest first.
    ///
    /// # Errors
    /// [`StoreError`]: 42P01 or 3F000 where there is no such table yet.
    pub async fn undelivered(
        &self,
        slot: &str,
        filter: &Filter,
        most: Option<u32>,
    ) -> Result<Vec<Listed>, StoreError> {
        let sql = format!(
            "SELECT {LISTED} FROM walpost.undelivered AS u WHERE {FILTER} ORDER BY u.id DESC LIMIT $4"
        );
        let state = filter.state.map(RowState::as_str);
        let most = most.map(i64::from);
        let params: [Param<'_>; 4] = [
            (&slot, Type::TEXT),
            (&state, Type::TEXT),
            (&filter.destination, Type::TEXT),
            (&most, Type::INT8),
        ];
        self.rows(READING, &sql, &params).await?.iter().map(listed).collect()
    }

    /// How many rows there are, by destination and state, the most first.
    ///
    /// # Errors
    /// As [`Store::undelivered`].
    pub async fn count_undelivered(
        &self,
        slot: &str,
        filter: &Filter,
    ) -> Result<Vec<Counted>, StoreError> {
        let sql = format!(
            "SELECT destination, state, count(*) AS number FROM walpost.undelivered WHERE {FILTER}
            GROUP BY destination, state ORDER BY number DESC, destination, state"
        );
        let state = filter.state.map(RowState::as_str);
        let params: [Param<'_>; 3] =
            [(&slot, Type::TEXT), (&state, Type::TEXT), (&filter.destination, Type::TEXT)];
        let counted = |row: &Fields| {
            let state = RowState::from_text(READING, row.get(1)?)?;
            Ok(Counted { destination: row.get(0)?, state, rows: row.count(2)? })
        };
        self.rows(READING, &sql, &params).await?.iter().map(counted).collect()
    }

    /// One row; none: the slot has no such row.
    ///
    /// # Errors
    /// As [`Store::undelivered`].
    pub async fn show_undelivered(&self, slot: &str, id: i64) -> Result<Option<Shown>, StoreError> {
        let sql = format!(
            "SELECT {LISTED}, u.headers::text, u.body, u.xid,
                to_char(u.commit_time AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')
            FROM walpost.undelivered AS u WHERE slot = $1 AND id = $2"
        );
        let params: [Param<'_>; 2] = [(&slot, Type::TEXT), (&id, Type::INT8)];
        let Some(row) = self.first(READING, &sql, &params).await? else { return Ok(None) };
        Ok(Some(Shown {
            listed: listed(&row)?,
            headers: headers_of(READING, row.get(14)?)?,
            body: row.get::<Option<&[u8]>>(15)?.map(Bytes::copy_from_slice),
            xid: row.get(16)?,
            commit_time: row.get(17)?,
        }))
    }
}

fn listed(row: &Fields) -> Result<Listed, StoreError> {
    let duration =
        |seconds: f64| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX);
    Ok(Listed {
        id: row.get(0)?,
        state: RowState::from_text(READING, row.get(1)?)?,
        destination: row.get(2)?,
        message_id: row.get(3)?,
        key: row.get(4)?,
        attempts: row.get(5)?,
        next_attempt_at: row.get(6)?,
        next_in: row.get::<Option<f64>>(7)?.map(duration),
        failed_at: row.get(8)?,
        age: duration(row.get(9)?),
        error: row.get(10)?,
        lsn: row.maybe_lsn(11)?,
        table: row.get(12)?,
        body_bytes: row.get(13)?,
    })
}
