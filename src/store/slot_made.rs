//! The steps of making a slot that its row in `walpost.relay` goes through.
//!
//! Killed between any two of them, the next start goes on: a row without a slot, or a slot whose row
//! still says `creating`, is one that nobody has read from, and is made anew.

use tokio_postgres::types::Type;

use super::connect::Store;
use super::error::StoreError;
use super::guard::{Guard, KeptGuard};
use super::name::{ident, literal};
use super::query::Param;
use super::relay_row::OfServer;
use super::server::Server;
use super::waiting::OutboxTable;

impl Store {
    /// The slot was lost and is about to be made again; what was certified stays.
    ///
    /// # Errors
    /// [`StoreError`]: 42501 without the right.
    pub async fn begin_again(&self, slot: &str) -> Result<(), StoreError> {
        let sql = "UPDATE walpost.relay SET state = 'creating', epoch = epoch + 1,
                exported_snapshot = NULL, recovery_cursor = NULL, last_receipted = NULL
            WHERE slot = $1";
        self.rows("marking the slot as lost in walpost.relay", sql, &[(&slot, Type::TEXT)])
            .await
            .map(drop)
    }

    /// Takes a slot away.
    ///
    /// # Errors
    /// [`StoreError`]: 55006 where somebody holds it.
    pub async fn drop_slot(&self, slot: &str) -> Result<(), StoreError> {
        let sql = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
            WHERE slot_name = $1::text::name";
        self.rows("dropping the slot", sql, &[(&slot, Type::TEXT)]).await.map(drop)
    }

    /// The snapshot that a slot exported when it was made, as text. The connection that made it must
    /// still be idle.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn imported_snapshot(&self, exported: &str) -> Result<String, StoreError> {
        const WHAT: &str = "importing the slot's snapshot";
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}",
            literal(exported)
        );
        self.run(WHAT, &begin).await?;
        let snapshot = self.one(WHAT, "SELECT pg_current_snapshot()::text", &[]).await?.get(0)?;
        self.run(WHAT, "COMMIT").await?;
        Ok(snapshot)
    }

    /// The slot was made. Rows visible in `exported` do not come from it: with `recover` they are to be
    /// published out of the table, as far as nothing certified covers them; without, they count as
    /// delivered. The guard was found before the slot was made.
    ///
    /// # Errors
    /// [`StoreError`]: 42501 without the right.
    pub async fn slot_made(
        &self,
        slot: &str,
        exported: &str,
        recover: bool,
        found: Option<Guard>,
    ) -> Result<(), StoreError> {
        const WHAT: &str = "marking the slot as made in walpost.relay";
        // A row that was there when the slot was lost has an epoch.
        let sql = "UPDATE walpost.relay SET
                state = CASE WHEN $3 OR epoch > 0 THEN 'recovering' ELSE 'streaming' END,
                exported_snapshot = CASE WHEN $3 OR epoch > 0 THEN $2::text::pg_snapshot END,
                certified_snapshot = CASE WHEN $3 OR epoch > 0 THEN certified_snapshot
                    ELSE $2::text::pg_snapshot END,
                recovery_cursor = NULL, guard = $4::text::jsonb,
                confirmed_lsn = coalesce(confirmed_lsn, (SELECT confirmed_flush_lsn
                    FROM pg_replication_slots WHERE slot_name = $1::text::name))
            WHERE slot = $1 AND state = 'creating' RETURNING true";
        let guard = found
            .map(|found| {
                KeptGuard { found, unsettled: None, decoded: 0, fresh: Vec::new() }.to_json()
            })
            .transpose()?;
        let params: [Param<'_>; 4] = [
            (&slot, Type::TEXT),
            (&exported, Type::TEXT),
            (&recover, Type::BOOL),
            (&guard, Type::TEXT),
        ];
        match self.first(WHAT, sql, &params).await? {
            Some(_) => Ok(()),
            // Somebody has changed it meanwhile; the snapshot must not go without a word.
            None => {
                let cause = format!("there is no row of slot '{slot}' in state 'creating'");
                Err(StoreError::Answer { what: WHAT, cause })
            }
        }
    }

    /// A slot is there that has no row: somebody else made it. What is committed now is to be published
    /// out of the table with `recover`, whether or not the slot brings it, too. In one step: a row that
    /// says `creating` would make the slot our own unfinished one.
    ///
    /// # Errors
    /// [`StoreError`]: 42501 without the right.
    pub async fn adopt_slot(
        &self,
        slot: &str,
        server: &Server,
        recover: bool,
    ) -> Result<(), StoreError> {
        let sql =
            "INSERT INTO walpost.relay (slot, system_identifier, timeline, database_oid, state,
                exported_snapshot, confirmed_lsn)
            SELECT $1, $2, $3, $4, CASE WHEN $5 THEN 'recovering' ELSE 'streaming' END,
                CASE WHEN $5 THEN pg_current_snapshot() END, (SELECT confirmed_flush_lsn
                    FROM pg_replication_slots WHERE slot_name = $1::text::name)
            ON CONFLICT (slot) DO NOTHING";
        let of_server = OfServer::new(server);
        let mut params = of_server.params(&slot);
        params.push((&recover, Type::BOOL));
        self.rows("writing the slot's row in walpost.relay", sql, &params).await.map(drop)
    }

    /// Rows that came with a dump carry transaction ids of another cluster. Those that no transaction of this
    /// one has had yet are replaced, else no snapshot would ever cover them. Answers how many there were.
    ///
    /// # Errors
    /// [`StoreError`]: 42501 without UPDATE on the table.
    pub async fn take_over_ids(&self, table: &OutboxTable) -> Result<u64, StoreError> {
        let Some(xid) = &table.xid else { return Ok(0) };
        let (table, xid) = (table.table.quoted(), ident(xid));
        let sql = format!(
            "WITH taken AS (UPDATE {table} SET {xid} = pg_current_xact_id()
                WHERE {xid} >= pg_snapshot_xmax(pg_current_snapshot()) RETURNING true)
             SELECT count(*) FROM taken"
        );
        self.one("replacing transaction ids of another cluster", &sql, &[]).await?.count(0)
    }

    /// The row of another cluster or database becomes this one's. Nothing counts as delivered any more:
    /// ids of transactions mean something else here. Where the slot is there it is read on, and everything
    /// that is committed now is published before; else it is to be made. `false`: there is no row.
    ///
    /// # Errors
    /// [`StoreError`]: 42501 without the right.
    pub async fn adopt_relay(
        &self,
        slot: &str,
        server: &Server,
        slot_is_there: bool,
    ) -> Result<bool, StoreError> {
        let sql = "UPDATE walpost.relay SET system_identifier = $2, timeline = $3, database_oid = $4,
                epoch = epoch + 1, state = CASE WHEN $5 THEN 'recovering' ELSE 'creating' END,
                certified_snapshot = NULL, recovery_cursor = NULL, last_receipted = NULL, guard = NULL,
                exported_snapshot = CASE WHEN $5 THEN pg_current_snapshot() END,
                confirmed_lsn = NULL, confirmed_at = NULL
            WHERE slot = $1 RETURNING true";
        let of_server = OfServer::new(server);
        let mut params = of_server.params(&slot);
        params.push((&slot_is_there, Type::BOOL));
        let what = "taking over the slot's row in walpost.relay";
        Ok(self.first(what, sql, &params).await?.is_some())
    }
}
