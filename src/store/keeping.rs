//! What a running relay keeps in its row of `walpost.relay`: the certified snapshot, and how far a large
//! transaction is. Whoever no longer has the slot writes nothing: each write goes with the epoch.

use serde::{Deserialize, Serialize};
use tokio_postgres::types::{PgLsn, Type};

use super::connect::Store;
use super::error::StoreError;
use super::query::Param;
use crate::engine::{ChangeId, TxId};
use crate::lsn::Lsn;
use crate::pgtime::PgTime;

/// A snapshot, and a position that lies past every commit that is visible in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// As text.
    pub snapshot: String,
    /// The end of the WAL, read after the snapshot was taken.
    pub position: Lsn,
    /// When that was, as PostgreSQL prints it.
    pub at: String,
}

/// How far a transaction is delivered that is larger than the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastReceipted {
    /// The LSN of its commit record.
    pub commit_lsn: u64,
    /// Its id.
    pub xid: u32,
    /// When it was committed, in microseconds since 2000.
    pub commit_time: i64,
    /// The LSN of the change up to which every message has its receipt.
    pub change_lsn: u64,
    /// The change's place among those at that LSN.
    pub place: u32,
}

impl LastReceipted {
    /// That of a transaction and a change of it.
    #[must_use]
    pub fn new(id: TxId, change: ChangeId) -> Self {
        LastReceipted {
            commit_lsn: id.commit_lsn.0,
            xid: id.xid,
            commit_time: id.commit_time.0,
            change_lsn: change.lsn.0,
            place: change.place,
        }
    }

    /// The transaction.
    #[must_use]
    pub fn transaction(&self) -> TxId {
        let commit_time = PgTime(self.commit_time);
        TxId { commit_lsn: Lsn(self.commit_lsn), xid: self.xid, commit_time }
    }

    /// The change.
    #[must_use]
    pub fn change(&self) -> ChangeId {
        ChangeId { lsn: Lsn(self.change_lsn), place: self.place }
    }
}

impl Store {
    /// Takes a snapshot, and then the position.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn mark(&self) -> Result<Mark, StoreError> {
        const WHAT: &str = "taking a snapshot";
        let sql = "SELECT pg_current_snapshot()::text, clock_timestamp()::text";
        let snapshot = self.one(WHAT, sql, &[]).await?;
        let position = self.end_of_wal(WHAT).await?;
        Ok(Mark { snapshot: snapshot.get(0)?, position, at: snapshot.get(1)? })
    }

    /// Where the WAL ends: past every commit that was answered before.
    pub(super) async fn end_of_wal(&self, what: &'static str) -> Result<Lsn, StoreError> {
        // The end of a page is shown as the beginning of the next one's data, which no stream reaches
        // before something is written there.
        let sql = "SELECT CASE WHEN past <= 40 THEN lsn - past ELSE lsn END FROM (
            SELECT lsn, (lsn - '0/0'::pg_lsn) % current_setting('wal_block_size')::numeric AS past
            FROM pg_current_wal_insert_lsn() AS lsn) AS position";
        self.one(what, sql, &[]).await?.lsn(0)
    }

    /// Everything visible in the snapshot is delivered. `false`: another one has taken the slot since, or
    /// this is another server than the one on which `walsender` has it; nothing was written.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn keep_certified(
        &self,
        slot: &str,
        epoch: i64,
        walsender: u32,
        mark: &Mark,
    ) -> Result<bool, StoreError> {
        let sql = "UPDATE walpost.relay SET certified_snapshot = $3::text::pg_snapshot, confirmed_lsn = $4,
                confirmed_at = $5::text::timestamptz, guard = jsonb_set(guard, '{decoded}', to_jsonb(coalesce(
                    (SELECT total_bytes FROM pg_stat_replication_slots WHERE slot_name = $1), 0)))
            WHERE slot = $1 AND epoch = $2 AND state = 'streaming' AND EXISTS (SELECT FROM
                pg_replication_slots WHERE slot_name = $1::text::name AND active_pid = $6)
            RETURNING true";
        let walsender = walsender.cast_signed();
        let position = PgLsn::from(mark.position.0);
        let params: [Param<'_>; 6] = [
            (&slot, Type::TEXT),
            (&epoch, Type::INT8),
            (&mark.snapshot, Type::TEXT),
            (&position, Type::PG_LSN),
            (&mark.at, Type::TEXT),
            (&walsender, Type::INT4),
        ];
        let what = "keeping the certified snapshot in walpost.relay";
        Ok(self.first(what, sql, &params).await?.is_some())
    }

    /// How far a large transaction is delivered. Not waited for until it is on disk: what a crash of the
    /// server undoes costs repeats, nothing else. `false`: another one has taken the slot since.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn keep_last_receipted(
        &self,
        slot: &str,
        epoch: i64,
        last: &LastReceipted,
    ) -> Result<bool, StoreError> {
        const WHAT: &str = "keeping how far a large transaction is in walpost.relay";
        let sql = "WITH this_commit AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
            UPDATE walpost.relay SET last_receipted = $3::text::jsonb FROM this_commit
            WHERE slot = $1 AND epoch = $2 RETURNING true";
        let text = serde_json::to_string(last)
            .map_err(|error| StoreError::Answer { what: WHAT, cause: error.to_string() })?;
        let params: [Param<'_>; 3] =
            [(&slot, Type::TEXT), (&epoch, Type::INT8), (&text, Type::TEXT)];
        Ok(self.first(WHAT, sql, &params).await?.is_some())
    }
}
