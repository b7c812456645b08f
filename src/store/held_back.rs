//! `synchronized_standby_slots` (PostgreSQL 17 and later): the server sends nothing of a failover slot that the
//! standbys named there do not have.

use std::fmt;

use tokio_postgres::types::Type;

use super::connect::Store;
use super::error::StoreError;
use super::name::one_line;
use crate::lsn::Lsn;

/// The first version that holds anything back.
const SINCE: u32 = 170_000;

/// The server waits for standbys at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldBack {
    /// How far it has sent. That it waits for a moment is as it should be; that this stays is not.
    pub sent: Option<Lsn>,
    /// The slots of the standbys, each with its state.
    pub standbys: String,
}

impl fmt::Display for HeldBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "is held back: PostgreSQL sends only what the standbys in synchronized_standby_slots have ({}); \
             bring back those that are missing or behind, or name others there: \
             ALTER SYSTEM SET synchronized_standby_slots = ''; SELECT pg_reload_conf()",
            one_line(&self.standbys)
        )
    }
}

impl Store {
    /// Whether the server waits for standbys before it sends more of the slot.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn held_back(&self, slot: &str) -> Result<Option<HeldBack>, StoreError> {
        if self.version() < SINCE {
            return Ok(None);
        }
        // The walsender has the same role as this connection, so that its state may be seen.
        let sql = r#"SELECT r.sent_lsn,
                (SELECT coalesce(string_agg(name || CASE WHEN s.slot_name IS NULL THEN ' does not exist'
                        WHEN s.active THEN ' is at ' || coalesce(s.restart_lsn::text, 'no position')
                        ELSE ' is not connected' END, ', '), 'none')
                    FROM regexp_split_to_table(current_setting('synchronized_standby_slots'), '[ ",]+') AS name
                    LEFT JOIN pg_replication_slots s ON s.slot_name::text = name
                    WHERE name <> '')
            FROM pg_replication_slots w
            JOIN pg_stat_activity a ON a.pid = w.active_pid
            JOIN pg_stat_replication r ON r.pid = w.active_pid
            WHERE w.slot_name = $1::text::name AND a.wait_event = 'WaitForStandbyConfirmation'"#;
        let row = self.first("asking what the slot waits for", sql, &[(&slot, Type::TEXT)]).await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(HeldBack { sent: row.maybe_lsn(0)?, standbys: row.get(1)? }))
    }
}
