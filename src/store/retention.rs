//! Deleting rows that every relay has delivered.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::connect::Store;
use super::error::StoreError;
use super::name::ident;
use super::query::Param;
use super::waiting::OutboxTable;

const WHAT: &str = "deleting rows that were delivered";

impl Store {
    /// Deletes rows that were made longer than `after` ago and are covered by the certified snapshot of
    /// *every* relay of this database; at most `most`. Answers how many.
    ///
    /// # Errors
    /// [`StoreError`]: 42501 without DELETE on the table.
    pub async fn delete_delivered(
        &self,
        table: &OutboxTable,
        after: Duration,
        most: u32,
    ) -> Result<u64, StoreError> {
        let Some(made) = &table.created_at else { return Ok(0) };
        let Some(certified) = self.certified_snapshots().await? else { return Ok(0) };
        let mut delivered: Vec<_> =
            certified.iter().map(|snapshot| table.covered(snapshot)).collect();
        if let Some(share) = &table.share {
            // What is another shard's, that shard's relay deletes: it may not even have begun.
            delivered.push(format!("({share})"));
        }
        if let Some(status) = &table.status {
            // 1: it waits, or its mark does.
            delivered.push(format!("w.{} <> 1", ident(status)));
        }
        // By ctid: there may be no index on anything else. A row that is changed meanwhile is left.
        let sql = format!(
            "WITH this_commit AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true)),
                old AS MATERIALIZED (SELECT w.tableoid AS part, w.ctid AS place FROM {table} AS w
                    WHERE w.{made} < statement_timestamp() - $1 * interval '1 second' AND {delivered}
                    LIMIT {most}),
                gone AS (DELETE FROM {table} AS t USING this_commit
                    WHERE t.ctid = ANY (ARRAY(SELECT place FROM old))
                        AND (t.tableoid, t.ctid) IN (SELECT part, place FROM old) RETURNING 1)
            SELECT count(*) FROM gone",
            table = table.table.quoted(),
            made = ident(made),
            delivered = delivered.join(" AND "),
        );
        let seconds = after.as_secs_f64();
        let params: [Param<'_>; 1] = [(&seconds, Type::FLOAT8)];
        match self.one(WHAT, &sql, &params).await {
            // Somebody has locked such a row: later.
            Err(error) if error.code() == Some("55P03") => Ok(0),
            deleted => deleted?.count(0),
        }
    }

    /// The certified snapshots of all relays of this database; none: one of them has none yet, or there
    /// is no relay.
    async fn certified_snapshots(&self) -> Result<Option<Vec<String>>, StoreError> {
        let sql = "SELECT certified_snapshot::text FROM walpost.relay WHERE database_oid =
            (SELECT oid FROM pg_database WHERE datname = current_database())";
        let rows = self.rows("reading the certified snapshots", sql, &[]).await?;
        let snapshots: Result<Vec<Option<String>>, _> = rows.iter().map(|row| row.get(0)).collect();
        let snapshots: Option<Vec<String>> = snapshots?.into_iter().collect();
        Ok(snapshots.filter(|snapshots| !snapshots.is_empty()))
    }
}
