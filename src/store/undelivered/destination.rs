//! Whole destinations: which are parked, giving one up, and what is past.

use std::time::Duration;

use tokio_postgres::types::Type;
use tracing::warn;

use super::row::clean;
use super::{Held, of_destination, ours};
use crate::store::connect::Store;
use crate::store::error::StoreError;
use crate::store::marking::{Holder, MarkedTable};
use crate::store::query::Fields;

/// A destination with messages that retry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedDestination {
    /// Its name.
    pub destination: String,
    /// How many.
    pub retrying: u64,
    /// How often the first one was sent in vain.
    pub attempts: u32,
    /// After what time it is sent again.
    pub next_in: Duration,
    /// What the broker said of it.
    pub error: String,
}

/// What a slot has in the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parked {
    /// In the order of their first messages.
    pub destinations: Vec<ParkedDestination>,
    /// Messages that were given up.
    pub dead: u64,
    /// Messages that retry.
    pub retrying: u64,
}

/// So many rows are given up at once: a flood of them would outlast the timeout of a statement.
const CHUNK: u64 = 5_000;

impl Store {
    /// Gives up a destination: what retries is dead. In chunks, the head last: whoever is killed between them finds
    /// it as it was. Answers how many. `None`: the slot is not ours, or no longer.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn condemn(
        &self,
        holder: Holder<'_>,
        destination: &str,
        marks: &[MarkedTable],
    ) -> Result<Option<u64>, StoreError> {
        let (destination, mut marks, mut all) = (&*clean(destination), marks, 0);
        loop {
            match self.condemn_some(holder, destination, marks).await {
                Ok(None) => return Ok(None),
                Ok(Some(rows)) => {
                    all += rows;
                    if rows < CHUNK {
                        return Ok(Some(all));
                    }
                }
                // Giving it up comes before telling the tables.
                Err(error) if error.code().is_some() && !marks.is_empty() && !self.is_closed() => {
                    warn!("dead letters are not marked in their table: {error}");
                    marks = &[];
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn condemn_some(
        &self,
        holder: Holder<'_>,
        destination: &str,
        marks: &[MarkedTable],
    ) -> Result<Option<u64>, StoreError> {
        const WHAT: &str = "giving up a destination in walpost.undelivered";
        let held = Held::new(holder);
        let of = of_destination("retrying");
        let mut tables: Vec<(u32, String)> = Vec::new();
        if !marks.is_empty() {
            let sql = format!(
                "SELECT DISTINCT table_oid, table_name FROM walpost.undelivered WHERE {of} AND table_oid IS NOT NULL"
            );
            let params = [(&destination as _, Type::TEXT), (&held.slot as _, Type::TEXT)];
            for row in self.rows(WHAT, &sql, &params).await? {
                tables.push((row.get(0)?, row.get::<Option<String>>(1)?.unwrap_or_default()));
            }
        }
        let tables = tables.iter().map(|(oid, name)| (*oid, name.as_str()));
        let marked = self.dead_marks(marks, tables).await?.given_up("condemned");
        let sql = format!(
            "{}, condemned AS (UPDATE walpost.undelivered SET state = 'dead', next_attempt_at = NULL
                WHERE id = ANY (ARRAY(SELECT id FROM walpost.undelivered WHERE {of} ORDER BY id DESC LIMIT {CHUNK}))
                    AND state = 'retrying' AND (SELECT held FROM ours)
                RETURNING state, message_id, attempts, table_oid){marked}
            SELECT held, (SELECT count(*) FROM condemned) FROM ours",
            ours()
        );
        let row = self.one(WHAT, &sql, &held.params((&destination, Type::TEXT))).await?;
        if row.get(0)? { row.count(1).map(Some) } else { Ok(None) }
    }

    /// What a slot has in the table. Rows are counted in the indexes alone.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn parked(&self, slot: &str) -> Result<Parked, StoreError> {
        // Two destinations of one hash would count as one: one in 2^64.
        let sql = "WITH counted AS MATERIALIZED (SELECT min(id) AS head, count(*) AS messages
                FROM walpost.undelivered WHERE slot = $1 AND state = 'retrying' GROUP BY destination_hash)
            SELECT (SELECT count(*) FROM walpost.undelivered WHERE slot = $1 AND state = 'dead'),
                u.destination, messages, u.attempts::bigint,
                greatest(extract(epoch FROM u.next_attempt_at - now()), 0)::float8, coalesce(u.error, '')
            FROM (SELECT 1) AS one LEFT JOIN (counted JOIN walpost.undelivered AS u ON u.id = head) ON true
            ORDER BY head";
        let rows = self.rows("counting refused messages", sql, &[(&slot, Type::TEXT)]).await?;
        let mut parked = Parked::default();
        for row in &rows {
            parked.dead = row.count(0)?;
            if let Some(destination) = row.get(1)? {
                let destination = parked_destination(destination, row)?;
                parked.retrying += destination.retrying;
                parked.destinations.push(destination);
            }
        }
        Ok(parked)
    }

    /// Deletes what was discarded and can't come again: the slot is past it, or, of what was read from a
    /// table, a day has gone. Answers how many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn prune_discarded(&self, slot: &str) -> Result<u64, StoreError> {
        let sql = "WITH gone AS (DELETE FROM walpost.undelivered AS u WHERE slot = $1 AND state = 'discarded'
                AND CASE WHEN u.lsn IS NULL THEN u.failed_at < now() - interval '1 day'
                    ELSE u.lsn < (SELECT confirmed_lsn FROM walpost.relay WHERE relay.slot = $1) END
                RETURNING 1)
            SELECT count(*) FROM gone";
        self.one("deleting discarded messages", sql, &[(&slot, Type::TEXT)]).await?.count(0)
    }
}

fn parked_destination(destination: String, row: &Fields) -> Result<ParkedDestination, StoreError> {
    Ok(ParkedDestination {
        destination,
        retrying: row.count(2)?,
        attempts: u32::try_from(row.count(3)?).unwrap_or(u32::MAX),
        next_in: Duration::try_from_secs_f64(row.get::<f64>(4)?).unwrap_or(Duration::MAX),
        error: row.get(5)?,
    })
}
