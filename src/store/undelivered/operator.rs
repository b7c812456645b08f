//! What an operator does. States alone are changed, so that it works whether a relay runs or not.

use tokio_postgres::types::Type;

use super::listing::{READING, RowState};
use crate::store::connect::Store;
use crate::store::error::StoreError;
use crate::store::marking::MarkedTable;
use crate::store::query::{Fields, Param};

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

impl Store {
    /// Prepares the session for an operator, who may ask for a great many rows.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn take_time(&self) -> Result<(), StoreError> {
        self.run("preparing the session", "SET statement_timeout = 0").await
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
            changed AS (UPDATE walpost.undelivered AS u SET state = 'retrying', unfit = false, next_attempt_at = now(),
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
