//! Deleting rows that every relay has delivered.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::connect::Store;
use super::error::StoreError;
use super::name::ident;
use super::query::{Fields, Param};
use super::waiting::OutboxTable;

const WHAT: &str = "deleting rows that were delivered";

/// A relay that does not run, and without which nothing is deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldingBack {
    /// Its slot.
    pub slot: String,
    /// Since when it has certified nothing, as PostgreSQL prints it (UTC).
    pub since: String,
    /// Whether the slot is there.
    pub has_slot: bool,
    /// Whether its row is another database's.
    pub is_foreign: bool,
}

impl Store {
    /// Deletes rows that were made longer than `after` ago and are covered by the certified snapshot of
    /// *every* relay of this database, that of `slot` among them; at most `most`. Answers how many.
    ///
    /// # Errors
    /// [`StoreError`]: 42501 without DELETE on the table, 55P03 while somebody has locked it.
    pub async fn delete_delivered(
        &self,
        slot: &str,
        table: &OutboxTable,
        after: Duration,
        most: u32,
    ) -> Result<u64, StoreError> {
        let Some(made) = &table.created_at else { return Ok(0) };
        let Some(certified) = self.certified_snapshots(slot).await? else { return Ok(0) };
        let mut delivered: Vec<_> =
            certified.iter().map(|snapshot| table.covered(snapshot)).collect();
        if let Some(share) = &table.share {
            // What is another shard's, that shard's relay deletes: it may not even have begun.
            delivered.push(format!("({share})"));
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
        self.one(WHAT, &sql, &params).await?.count(0)
    }

    /// The certified snapshots of all relays of this database; none: one of them has none yet, or that of
    /// `slot` is not among them.
    async fn certified_snapshots(&self, slot: &str) -> Result<Option<Vec<String>>, StoreError> {
        // A row that came with a dump, and is nobody's yet, has delivered nothing of what is here.
        let sql = "SELECT other.slot = $1, CASE WHEN (other.database_oid, other.system_identifier)
                = (mine.database_oid, mine.system_identifier) THEN other.certified_snapshot::text END
            FROM walpost.relay AS other, walpost.relay AS mine WHERE mine.slot = $1";
        let what = "reading the certified snapshots";
        let rows = self.rows(what, sql, &[(&slot, Type::TEXT)]).await?;
        let (mut snapshots, mut own) = (Vec::with_capacity(rows.len()), false);
        for row in &rows {
            own |= row.get::<bool>(0)?;
            let Some(snapshot) = row.get(1)? else { return Ok(None) };
            snapshots.push(snapshot);
        }
        Ok(own.then_some(snapshots))
    }

    /// The relays of this database that do not run, and have certified nothing for so much longer than
    /// that of `slot` that they hold its clean-up back.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn holding_back(
        &self,
        slot: &str,
        longer: Duration,
    ) -> Result<Vec<HoldingBack>, StoreError> {
        let sql = "SELECT other.slot, to_char(other.since AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'),
                there.slot_name IS NOT NULL, other.is_foreign
            FROM walpost.relay AS mine
                CROSS JOIN LATERAL (SELECT *, coalesce(confirmed_at, created_at) AS since,
                    (database_oid, system_identifier) <> (mine.database_oid, mine.system_identifier)
                        AS is_foreign FROM walpost.relay) AS other
                LEFT JOIN pg_replication_slots AS there ON there.slot_name = other.slot::name
                    AND there.database = current_database()
            WHERE mine.slot = $1 AND other.slot <> $1 AND mine.confirmed_at IS NOT NULL
                AND (other.is_foreign OR NOT coalesce(there.active, false)
                    AND other.since < mine.confirmed_at - $2 * interval '1 second') ORDER BY other.slot";
        let seconds = longer.as_secs_f64();
        let params: [Param<'_>; 2] = [(&slot, Type::TEXT), (&seconds, Type::FLOAT8)];
        let rows = self.rows("looking for relays that are gone", sql, &params).await?;
        let relay = |row: &Fields| {
            let (slot, since, has_slot) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(HoldingBack { slot, since, has_slot, is_foreign: row.get(3)? })
        };
        rows.iter().map(relay).collect()
    }

    /// When another relay of this database has certified something that `slot` has not; none: no other
    /// waits for it. What that one has delivered is not deleted before this one knows that it has nothing
    /// to do with it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn waited_for(&self, slot: &str) -> Result<Option<String>, StoreError> {
        let sql = "SELECT max(other.confirmed_at)::text FROM walpost.relay AS mine
                JOIN walpost.relay AS other USING (database_oid)
            WHERE mine.slot = $1 AND other.confirmed_at > mine.confirmed_at";
        let what = "comparing the certified snapshots";
        self.one(what, sql, &[(&slot, Type::TEXT)]).await?.get(0)
    }
}
