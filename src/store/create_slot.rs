//! Making the slot over SQL (for `walpost init`), and saying who holds it up meanwhile.

use std::pin::pin;
use std::time::Duration;

use tokio_postgres::types::Type;

use super::blockers::Blocker;
use super::connect::Store;
use super::error::StoreError;
use crate::lsn::Lsn;

/// How often it is asked who holds the creation up.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// The statement that makes a slot; `$1` is its name.
const CREATE: &str =
    "SELECT lsn FROM pg_create_logical_replication_slot($1::text::name, 'pgoutput')";
/// The same with `temporary`, `twophase` and, true, `failover` (17 and later).
const CREATE_FAILOVER: &str = "SELECT lsn FROM pg_create_logical_replication_slot(
    $1::text::name, 'pgoutput', false, false, true)";

impl Store {
    /// Makes a logical slot with the plugin `pgoutput`, however long the transactions take that it
    /// must wait for. Meanwhile `on_wait` hears every 2 s who they are. Answers the position from
    /// which it decodes. `failover`: standbys synchronise it.
    ///
    /// # Errors
    /// [`StoreError`]: 42710 where the name is taken, 53400 where no slot is free, 42501 without
    /// REPLICATION, 55000 where `wal_level` is not `logical`.
    pub async fn create_slot(
        &self,
        name: &str,
        failover: bool,
        on_wait: &mut impl FnMut(&[Blocker]),
    ) -> Result<Lsn, StoreError> {
        if failover && self.version() < 170_000 {
            return Err(StoreError::NoFailoverSlots);
        }
        let creator = self.sibling().await?;
        creator.run("making the slot", "SET statement_timeout = 0; SET lock_timeout = 0").await?;
        creator.end_with_client().await;

        let sql = if failover { CREATE_FAILOVER } else { CREATE };
        let params = [(&name as &(dyn tokio_postgres::types::ToSql + Sync), Type::TEXT)];
        let mut create = pin!(creator.one("making the slot", sql, &params));
        loop {
            tokio::select! {
                made = &mut create => return made?.lsn(0),
                () = tokio::time::sleep(WATCH_EVERY) => {
                    let blockers = self.slot_blockers(creator.backend_pid()).await?;
                    if !blockers.is_empty() {
                        on_wait(&blockers);
                    }
                }
            }
        }
    }

    /// Has the server give the statement up when we are gone. Some platforms do not have it, and
    /// then a creation that is given up goes on until it is done: the next run finds the slot.
    async fn end_with_client(&self) {
        let sql = "SET client_connection_check_interval = '2s'";
        let _ = self.run("watching the connection", sql).await;
    }
}
