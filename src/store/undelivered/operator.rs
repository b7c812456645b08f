//! What an operator asks and does. States alone are changed, so that it works whether a relay runs or not.

use std::time::Duration;

use bytes::Bytes;
use tokio_postgres::types::Type;

use super::row::headers_of;
use crate::lsn::Lsn;
use crate::store::connect::Store;
use crate::store::error::StoreError;
use crate::store::marking::MarkedTable;
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

    fn from_text(what: &'static str, text: &str) -> Result<Self, StoreError> {
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

/// Which rows an operator means.
#[derive(Clone, Debug)]
pub enum Which {
    /// These.
    Ids(Vec<i64>),
    /// All of a destination.
    Destination(String),
    /// All of the slot.
    All,
}

/// What can be done with a row that was named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Its number.
    pub id: i64,
    /// Its state.
    pub state: RowState,
    /// Whether it has a destination.
    pub has_destination: bool,
    /// Whether it has a body.
    pub has_body: bool,
}

/// What has become of rows that are to be sent again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retried {
    /// They were dead, and retry.
    pub revived: u64,
    /// They retried, and are due now.
    pub hastened: u64,
    /// They are dead and can't be sent: no destination or no body is known.
    pub left: u64,
    /// Why the outbox table does not say so, too.
    pub unmarked: Option<String>,
}

/// What has become of rows that are thrown away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discarded {
    /// How many.
    pub rows: u64,
    /// Why the outbox table does not say so, too.
    pub unmarked: Option<String>,
}

const LISTED: &str = "u.id, u.state, u.destination, u.message_id, u.key, u.attempts,
    to_char(u.next_attempt_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
    greatest(extract(epoch FROM u.next_attempt_at - now()), 0)::float8,
    to_char(u.failed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
    greatest(extract(epoch FROM now() - u.failed_at), 0)::float8,
    u.error, u.lsn, u.table_name, octet_length(u.body)";
const FILTER: &str = "slot = $1 AND CASE WHEN $2::text IS NULL THEN state IN ('retrying', 'dead')
    ELSE state = $2 END AND ($3::text IS NULL OR destination = $3)";
const READING: &str = "reading walpost.undelivered";

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

    /// What is there of some rows.
    ///
    /// # Errors
    /// As [`Store::undelivered`].
    pub async fn undelivered_facts(
        &self,
        slot: &str,
        ids: &[i64],
    ) -> Result<Vec<Fact>, StoreError> {
        let sql =
            "SELECT id, state, destination IS NOT NULL, body IS NOT NULL FROM walpost.undelivered
            WHERE slot = $1 AND id = ANY ($2) ORDER BY id";
        let params: [Param<'_>; 2] = [(&slot, Type::TEXT), (&ids, Type::INT8_ARRAY)];
        let fact = |row: &Fields| {
            let (id, has_destination, has_body) = (row.get(0)?, row.get(2)?, row.get(3)?);
            let state = RowState::from_text(READING, row.get(1)?)?;
            Ok(Fact { id, state, has_destination, has_body })
        };
        self.rows(READING, sql, &params).await?.iter().map(fact).collect()
    }

    /// Has rows sent again: what is dead retries, what retries is due. Where the outbox table says that a row
    /// was given up, it waits again.
    ///
    /// # Errors
    /// As [`Store::undelivered`].
    pub async fn retry_undelivered(
        &self,
        slot: &str,
        which: &Which,
        marks: &[MarkedTable],
    ) -> Result<Retried, StoreError> {
        let done = self.retry(slot, which, marks).await;
        let Some(unmarked) = self.only_unmarked(&done, marks) else { return done };
        Ok(Retried { unmarked: Some(unmarked), ..self.retry(slot, which, &[]).await? })
    }

    async fn retry(
        &self,
        slot: &str,
        which: &Which,
        marks: &[MarkedTable],
    ) -> Result<Retried, StoreError> {
        let tables = self.tables_of(slot, which, marks).await?;
        let tables = tables.iter().map(|(oid, name)| (*oid, name.as_str()));
        let revived = "(SELECT * FROM changed WHERE old = 'dead')";
        let sql = format!(
            "WITH asked AS (SELECT id, state AS old, destination IS NOT NULL AND body IS NOT NULL AS can_be
                FROM walpost.undelivered WHERE slot = $1 AND state IN ('retrying', 'dead') AND {which}
                ORDER BY id FOR UPDATE),
            changed AS (UPDATE walpost.undelivered AS u SET state = 'retrying', next_attempt_at = now(),
                    attempts = CASE WHEN old = 'dead' THEN 0 ELSE attempts END
                FROM asked WHERE u.id = asked.id AND can_be
                RETURNING old, u.message_id, u.attempts, u.table_oid){marks}
            SELECT (SELECT count(*) FROM changed WHERE old = 'dead'),
                (SELECT count(*) FROM changed WHERE old = 'retrying'),
                (SELECT count(*) FROM asked WHERE NOT can_be)",
            which = which.condition(),
            marks = self.dead_marks(marks, tables).await?.revived(revived),
        );
        let row = self
            .one("changing walpost.undelivered", &sql, &[(&slot, Type::TEXT), which.param()])
            .await?;
        let (revived, hastened, left) = (row.count(0)?, row.count(1)?, row.count(2)?);
        Ok(Retried { revived, hastened, left, unmarked: None })
    }

    /// Throws rows away: their bodies and headers are gone, and the rows themselves go when the message
    /// can't come again. Where the outbox table has a status, it says that they were given up.
    ///
    /// # Errors
    /// As [`Store::undelivered`].
    pub async fn discard_undelivered(
        &self,
        slot: &str,
        ids: &[i64],
        marks: &[MarkedTable],
    ) -> Result<Discarded, StoreError> {
        let which = Which::Ids(ids.to_vec());
        let done = self.discard(slot, &which, marks).await;
        let Some(unmarked) = self.only_unmarked(&done, marks) else { return done };
        Ok(Discarded { unmarked: Some(unmarked), ..self.discard(slot, &which, &[]).await? })
    }

    async fn discard(
        &self,
        slot: &str,
        which: &Which,
        marks: &[MarkedTable],
    ) -> Result<Discarded, StoreError> {
        let tables = self.tables_of(slot, which, marks).await?;
        let tables = tables.iter().map(|(oid, name)| (*oid, name.as_str()));
        let sql = format!(
            "WITH asked AS (SELECT id FROM walpost.undelivered
                WHERE slot = $1 AND state IN ('retrying', 'dead') AND {which} ORDER BY id FOR UPDATE),
            changed AS (UPDATE walpost.undelivered AS u SET state = 'discarded', next_attempt_at = NULL,
                    body = NULL, headers = NULL
                FROM asked WHERE u.id = asked.id
                RETURNING 'dead' AS state, u.message_id, u.attempts, u.table_oid){marks}
            SELECT count(*) FROM changed",
            which = which.condition(),
            marks = self.dead_marks(marks, tables).await?.given_up("changed"),
        );
        let params = [(&slot as _, Type::TEXT), which.param()];
        let rows = self.one("changing walpost.undelivered", &sql, &params).await?.count(0)?;
        Ok(Discarded { rows, unmarked: None })
    }

    /// The outbox tables of some rows.
    async fn tables_of(
        &self,
        slot: &str,
        which: &Which,
        marks: &[MarkedTable],
    ) -> Result<Vec<(u32, String)>, StoreError> {
        if marks.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT DISTINCT table_oid, coalesce(table_name, '') FROM walpost.undelivered
            WHERE slot = $1 AND table_oid IS NOT NULL AND {}",
            which.condition()
        );
        let rows = self.rows(READING, &sql, &[(&slot, Type::TEXT), which.param()]).await?;
        rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect()
    }

    /// Why it did not work with marks, where it may work without.
    fn only_unmarked<T>(
        &self,
        done: &Result<T, StoreError>,
        marks: &[MarkedTable],
    ) -> Option<String> {
        let error = done.as_ref().err()?;
        (error.code().is_some() && !marks.is_empty() && !self.is_closed())
            .then(|| error.to_string())
    }
}

impl Which {
    /// Of the rows of a slot; `$2` is the [parameter](Self::param).
    fn condition(&self) -> &'static str {
        match self {
            Which::Ids(_) => "id = ANY ($2)",
            Which::Destination(_) => "destination = $2",
            Which::All => "$2",
        }
    }

    fn param(&self) -> Param<'_> {
        match self {
            Which::Ids(ids) => (ids, Type::INT8_ARRAY),
            Which::Destination(destination) => (destination, Type::TEXT),
            Which::All => (&true, Type::BOOL),
        }
    }
}

fn listed(row: &Fields) -> Result<Listed, StoreError> {
    let duration = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
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
