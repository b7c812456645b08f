//! The replication slot: its state, and how far behind it is.

use tokio_postgres::types::Type;

use super::connect::Store;
use super::error::StoreError;
use crate::lsn::Lsn;

/// A slot as `pg_replication_slots` shows it. Slot names are unique in the whole cluster, so that
/// the slot may well belong to another database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotState {
    /// The output plugin; none: a physical slot.
    pub plugin: Option<String>,
    /// The database it decodes; none: a physical slot.
    pub database: Option<String>,
    /// Whether it goes with the session that made it.
    pub temporary: bool,
    /// Whether it was made to decode prepared transactions before their commit.
    pub two_phase: bool,
    /// Whether standbys synchronise it (PostgreSQL 17 and later; else false).
    pub failover: bool,
    /// What has been confirmed: where decoding goes on.
    pub confirmed_flush_lsn: Option<Lsn>,
    /// The oldest WAL that is kept for it.
    pub restart_lsn: Option<Lsn>,
    /// Whether somebody streams from it.
    pub active: bool,
    /// The process that does.
    pub active_pid: Option<i32>,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// Bytes of WAL that may still be written before the slot may be lost; none: no limit is set.
    pub safe_wal_size: Option<i64>,
    /// Bytes of WAL from `restart_lsn` to the end; none: nothing is kept.
    pub retained_bytes: Option<u64>,
    /// Why it is lost (PostgreSQL 17 and later; 16: only `conflicting`).
    pub invalidation_reason: Option<String>,
}

impl SlotState {
    /// Whether nothing can be read from it any more, and why.
    #[must_use]
    pub fn lost(&self) -> Option<&str> {
        let by_status = self.wal_status.as_deref() == Some("lost");
        self.invalidation_reason.as_deref().or(by_status.then_some("its WAL was removed"))
    }
}

/// Where the WAL ends and where the slot stands, read at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lag {
    /// End of the WAL that has been written or is about to be.
    pub insert_lsn: Lsn,
    /// End of the WAL that is on disk; only this is ever streamed.
    pub flush_lsn: Lsn,
    /// What has been confirmed.
    pub confirmed_flush_lsn: Option<Lsn>,
    /// Bytes of WAL that the slot keeps.
    pub retained_bytes: Option<u64>,
    /// As [`SlotState::safe_wal_size`].
    pub safe_wal_size: Option<i64>,
    /// As [`SlotState::wal_status`].
    pub wal_status: Option<String>,
    /// The process that streams from the slot.
    pub active_pid: Option<i32>,
}

/// The end of WAL. The functions for a primary raise an error on a standby, and the other way round.
const END_OF_WAL: &str = "CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
    ELSE pg_current_wal_insert_lsn() END";

impl Store {
    /// The slot of that name, whichever database it belongs to.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn slot(&self, name: &str) -> Result<Option<SlotState>, StoreError> {
        let (reason, failover) = match self.version() {
            170_000.. => ("invalidation_reason", "failover"),
            160_000.. => ("CASE WHEN conflicting THEN 'conflicting' END", "false"),
            _ => ("NULL::text", "false"),
        };
        let sql = format!(
            "SELECT plugin::text, database::text, temporary, two_phase, {failover},
                confirmed_flush_lsn, restart_lsn, active, active_pid, wal_status, safe_wal_size,
                pg_wal_lsn_diff({END_OF_WAL}, restart_lsn)::bigint, {reason}
            FROM pg_replication_slots WHERE slot_name = $1::text::name"
        );
        let row = self.first("reading the slot", &sql, &[(&name, Type::TEXT)]).await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(SlotState {
            plugin: row.get(0)?,
            database: row.get(1)?,
            temporary: row.get(2)?,
            two_phase: row.get(3)?,
            failover: row.get(4)?,
            confirmed_flush_lsn: row.maybe_lsn(5)?,
            restart_lsn: row.maybe_lsn(6)?,
            active: row.get(7)?,
            active_pid: row.get(8)?,
            wal_status: row.get(9)?,
            safe_wal_size: row.get(10)?,
            retained_bytes: row.maybe_count(11)?,
            invalidation_reason: row.get(12)?,
        }))
    }

    /// The gauges of the slot in one cheap query; none: there is no such slot.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn lag(&self, slot: &str) -> Result<Option<Lag>, StoreError> {
        let sql = format!(
            "SELECT end_of_wal, CASE WHEN pg_is_in_recovery() THEN end_of_wal
                    ELSE pg_current_wal_flush_lsn() END,
                confirmed_flush_lsn, pg_wal_lsn_diff(end_of_wal, restart_lsn)::bigint,
                safe_wal_size, wal_status, active_pid
            FROM pg_replication_slots, (SELECT {END_OF_WAL}) AS wal (end_of_wal)
            WHERE slot_name = $1::text::name"
        );
        let row = self.first("reading the slot's lag", &sql, &[(&slot, Type::TEXT)]).await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Lag {
            insert_lsn: row.lsn(0)?,
            flush_lsn: row.lsn(1)?,
            confirmed_flush_lsn: row.maybe_lsn(2)?,
            retained_bytes: row.maybe_count(3)?,
            safe_wal_size: row.get(4)?,
            wal_status: row.get(5)?,
            active_pid: row.get(6)?,
        }))
    }

    /// The process that streams from the slot, if one does; none: there is no such slot.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn holder(&self, slot: &str) -> Result<Option<Option<i32>>, StoreError> {
        let sql = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1::text::name";
        let row = self.first("asking who holds the slot", sql, &[(&slot, Type::TEXT)]).await?;
        row.map(|row| row.get(0)).transpose()
    }
}
