//! How far a recovery has come: what is kept of it in `walpost.relay`.

use serde::{Deserialize, Serialize};
use tokio_postgres::types::Type;

use super::connect::Store;
use super::error::StoreError;
use super::query::Param;
use super::waiting::Between;

/// The row up to which everything that waits was published, in the order of reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Which of the outbox tables, as `schema.name`.
    pub table: String,
    /// Its position in that table; none: nothing of it yet.
    pub at: Option<Position>,
}

/// The position of a row, as PostgreSQL prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// When the row was made.
    pub created_at: Option<String>,
    /// Its id.
    pub id: Option<String>,
}

/// What is to be published, and from where on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryState {
    /// Between which snapshots.
    pub between: Between,
    /// Tables, as `schema.name`, of which nothing counts as delivered.
    pub fresh: Vec<String>,
    /// From where on; none: from the beginning.
    pub cursor: Option<Cursor>,
}

const WHAT: &str = "keeping the recovery's position in walpost.relay";

impl Store {
    /// What is to be published; none: nothing, or another one has taken the slot since.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn recovery_state(
        &self,
        slot: &str,
        epoch: i64,
    ) -> Result<Option<RecoveryState>, StoreError> {
        let sql = "SELECT certified_snapshot::text, exported_snapshot::text, recovery_cursor::text,
                ARRAY(SELECT jsonb_array_elements_text(guard -> 'fresh'))
            FROM walpost.relay WHERE slot = $1 AND epoch = $2 AND state = 'recovering'";
        let params: [Param<'_>; 2] = [(&slot, Type::TEXT), (&epoch, Type::INT8)];
        let what = "reading what is to be recovered from walpost.relay";
        let Some(row) = self.first(what, sql, &params).await? else { return Ok(None) };
        let cursor: Option<&str> = row.get(2)?;
        let cursor = cursor.map(serde_json::from_str).transpose();
        let cursor =
            cursor.map_err(|error| StoreError::Answer { what, cause: error.to_string() })?;
        let between = Between { certified: row.get(0)?, exported: row.get(1)? };
        Ok(Some(RecoveryState { between, fresh: row.get(3)?, cursor }))
    }

    /// Whether a transaction that begins now sees everything that is visible in the snapshot. A slot's
    /// exported snapshot goes by commit records: what waits for a synchronous standby is visible in it
    /// before anybody else sees it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sees_all_of(&self, exported: &str) -> Result<bool, StoreError> {
        let sql = "SELECT pg_snapshot_xmax(present) >= pg_snapshot_xmax(exported) AND NOT EXISTS
                (SELECT FROM pg_snapshot_xip(present) AS running
                    WHERE pg_visible_in_snapshot(running, exported))
            FROM (SELECT pg_current_snapshot() AS present, $1::text::pg_snapshot AS exported) AS both_of_them";
        let what = "comparing snapshots";
        self.one(what, sql, &[(&exported, Type::TEXT)]).await?.get(0)
    }

    /// Everything up to the cursor was published. `false`: another one has taken the slot since, and
    /// nothing was written.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn keep_cursor(
        &self,
        slot: &str,
        epoch: i64,
        cursor: &Cursor,
    ) -> Result<bool, StoreError> {
        let sql = "UPDATE walpost.relay SET recovery_cursor = $3::text::jsonb
            WHERE slot = $1 AND epoch = $2 AND state = 'recovering' RETURNING true";
        let text = serde_json::to_string(cursor)
            .map_err(|error| StoreError::Answer { what: WHAT, cause: error.to_string() })?;
        let params: [Param<'_>; 3] =
            [(&slot, Type::TEXT), (&epoch, Type::INT8), (&text, Type::TEXT)];
        Ok(self.first(WHAT, sql, &params).await?.is_some())
    }

    /// Everything was published: what was to be is certified from now on. `false`: as for
    /// [`Store::keep_cursor`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn recovered(&self, slot: &str, epoch: i64) -> Result<bool, StoreError> {
        let sql = "UPDATE walpost.relay SET state = 'streaming', recovery_cursor = NULL, exported_snapshot = NULL,
                guard = guard - 'fresh',
                certified_snapshot = coalesce(exported_snapshot, certified_snapshot)
            WHERE slot = $1 AND epoch = $2 AND state = 'recovering' RETURNING true";
        let params: [Param<'_>; 2] = [(&slot, Type::TEXT), (&epoch, Type::INT8)];
        let what = "marking the recovery as done in walpost.relay";
        Ok(self.first(what, sql, &params).await?.is_some())
    }
}
