//! The row of `walpost.relay`: what is remembered of a slot beside the slot itself.
//!
//! It is there before the slot is, so that a slot that is missing is known to be lost. Each session
//! raises its epoch, and writes with it: an instance that was stopped while another one took over
//! writes nothing any more.

use std::time::Duration;

use tokio_postgres::types::{ToSql, Type};

use super::connect::Store;
use super::error::StoreError;
use super::guard::KeptGuard;
use super::keeping::LastReceipted;
use super::query::{Fields, Param};
use super::server::Server;
use crate::lsn::Lsn;

/// The row, but for what only [`Store::relay_gap`] needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayRow {
    /// Of the cluster that the slot was made in.
    pub system_identifier: u64,
    /// On which the slot was last read.
    pub timeline: u32,
    /// Of the database that the slot was made in.
    pub database_oid: u32,
    /// How often a session has taken the slot.
    pub epoch: i64,
    /// How far its life has come.
    pub state: RelayState,
}

/// How far a slot's life has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayState {
    /// It is being made: one that is there is not finished, and nobody has read from it.
    Creating,
    /// It was made; rows that it does not bring are being published. If it is missing, it was lost.
    Recovering,
    /// What is published comes from it. If it is missing, it was lost.
    Streaming,
}

impl RelayState {
    fn from_text(text: &str) -> Result<Self, StoreError> {
        match text {
            "creating" => Ok(RelayState::Creating),
            "recovering" => Ok(RelayState::Recovering),
            "streaming" => Ok(RelayState::Streaming),
            other => {
                let cause = format!("state '{}'", super::name::one_line(other));
                Err(StoreError::Answer { what: WHAT, cause })
            }
        }
    }
}

/// A session has the slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Goes with everything that is written from now on.
    pub epoch: i64,
    /// Whether rows are to be published out of the table before the stream is read.
    pub recovering: bool,
    /// How far a large transaction was delivered.
    pub last_receipted: Option<LastReceipted>,
    /// Where the WAL ended when that was read.
    pub end_of_wal: Lsn,
}

/// What lies between the last position that was kept and now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayGap {
    /// The last position; none: it was not known yet.
    pub confirmed_lsn: Option<Lsn>,
    /// Since when rows may be missing, as PostgreSQL prints it (UTC).
    pub since: String,
    /// How long ago that is.
    pub ago: Duration,
    /// Where the WAL ends now.
    pub end_of_wal: Lsn,
    /// From the last position to there; none: the position is not known, or is no longer in this WAL.
    pub bytes: Option<u64>,
}

const WHAT: &str = "reading the slot's row in walpost.relay";

impl Store {
    /// Whether what a relay keeps has its tables, as this version needs them. The catalogs are read, so that no
    /// right is needed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn has_relay_table(&self) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT FROM pg_class c
                JOIN pg_namespace n ON n.oid = c.relnamespace
                JOIN pg_attribute a ON a.attrelid = c.oid
            WHERE n.nspname = 'walpost' AND c.relname = 'undelivered' AND a.attname = 'destination_hash')";
        self.one("looking for walpost.undelivered", sql, &[]).await?.get(0)
    }

    /// The slot's row.
    ///
    /// # Errors
    /// [`StoreError`]: 42501 without the right.
    pub async fn relay_row(&self, slot: &str) -> Result<Option<RelayRow>, StoreError> {
        let sql = "SELECT system_identifier, timeline, database_oid, epoch, state
            FROM walpost.relay WHERE slot = $1";
        let row = self.first(WHAT, sql, &[(&slot, Type::TEXT)]).await?;
        row.as_ref().map(relay_row).transpose()
    }

    /// What may be missing where the slot is lost; none: there is no row.
    ///
    /// # Errors
    /// As [`Store::relay_row`].
    pub async fn relay_gap(&self, slot: &str) -> Result<Option<RelayGap>, StoreError> {
        let sql = "SELECT confirmed_lsn, to_char(since AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'),
                extract(epoch FROM clock_timestamp() - since)::float8, end_of_wal,
                CASE WHEN end_of_wal >= confirmed_lsn
                    THEN pg_wal_lsn_diff(end_of_wal, confirmed_lsn)::bigint END
            FROM (SELECT confirmed_lsn, coalesce(confirmed_at, created_at) AS since,
                pg_current_wal_insert_lsn() AS end_of_wal FROM walpost.relay WHERE slot = $1) AS row";
        let row = self.first(WHAT, sql, &[(&slot, Type::TEXT)]).await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(RelayGap {
            confirmed_lsn: row.maybe_lsn(0)?,
            since: row.get(1)?,
            ago: Duration::try_from_secs_f64(row.get(2)?).unwrap_or_default(),
            end_of_wal: row.lsn(3)?,
            bytes: row.maybe_count(4)?,
        }))
    }

    /// Writes the row of a slot that is about to be made; one that is there already stays.
    ///
    /// # Errors
    /// As [`Store::relay_row`].
    pub async fn begin_relay(&self, slot: &str, server: &Server) -> Result<(), StoreError> {
        let sql = "INSERT INTO walpost.relay
                (slot, system_identifier, timeline, database_oid, state)
            VALUES ($1, $2, $3, $4, 'creating') ON CONFLICT (slot) DO NOTHING";
        let of_server = OfServer::new(server);
        let params = of_server.params(&slot);
        self.rows("writing the slot's row in walpost.relay", sql, &params).await.map(drop)
    }

    /// A session has the slot: whoever had it before writes no more. Answers the new epoch. With
    /// `recover`, everything that is committed now and that the certified snapshot does not cover is to
    /// be published. A row that somebody has deleted meanwhile is made again.
    ///
    /// # Errors
    /// As [`Store::relay_row`].
    pub async fn take_relay(
        &self,
        slot: &str,
        server: &Server,
        recover: bool,
        guard: &KeptGuard,
    ) -> Result<Taken, StoreError> {
        let sql = "INSERT INTO walpost.relay AS row
                (slot, system_identifier, timeline, database_oid, epoch, state, exported_snapshot, guard)
            SELECT $1, $2, $3, $4, 1, CASE WHEN $5 THEN 'recovering' ELSE 'streaming' END,
                CASE WHEN $5 THEN pg_current_snapshot() END, $6::text::jsonb
            ON CONFLICT (slot) DO UPDATE SET epoch = row.epoch + 1, timeline = excluded.timeline,
                guard = excluded.guard,
                state = CASE WHEN $5 THEN 'recovering' ELSE row.state END,
                exported_snapshot = CASE WHEN $5 THEN excluded.exported_snapshot
                    ELSE row.exported_snapshot END,
                recovery_cursor = CASE WHEN NOT $5 THEN row.recovery_cursor END
            RETURNING epoch, state = 'recovering', last_receipted::text,
                pg_current_wal_insert_lsn()";
        const WHAT: &str = "raising the epoch in walpost.relay";
        let unreadable =
            |error: serde_json::Error| StoreError::Answer { what: WHAT, cause: error.to_string() };
        let guard = guard.to_json()?;
        let of_server = OfServer::new(server);
        let mut params = of_server.params(&slot);
        params.extend([(&recover as &(dyn ToSql + Sync), Type::BOOL), (&guard, Type::TEXT)]);
        let row = self.one(WHAT, sql, &params).await?;
        let last: Option<&str> = row.get(2)?;
        let last_receipted = last.map(serde_json::from_str).transpose().map_err(unreadable)?;
        let (epoch, recovering, end_of_wal) = (row.get(0)?, row.get(1)?, row.lsn(3)?);
        Ok(Taken { epoch, recovering, last_receipted, end_of_wal })
    }
}

fn relay_row(row: &Fields) -> Result<RelayRow, StoreError> {
    Ok(RelayRow {
        system_identifier: row.get::<i64>(0)?.cast_unsigned(),
        timeline: row.get::<i32>(1)?.cast_unsigned(),
        database_oid: row.get(2)?,
        epoch: row.get(3)?,
        state: RelayState::from_text(row.get(4)?)?,
    })
}

/// What a row says of its server, as PostgreSQL keeps it.
pub(super) struct OfServer {
    system_identifier: i64,
    timeline: i32,
    database_oid: u32,
}

impl OfServer {
    pub(super) fn new(server: &Server) -> Self {
        OfServer {
            system_identifier: server.system_identifier.cast_signed(),
            timeline: server.timeline.cast_signed(),
            database_oid: server.database_oid,
        }
    }

    /// The first four parameters of a statement that writes a row: the slot, and these.
    pub(super) fn params<'a>(&'a self, slot: &'a &str) -> Vec<Param<'a>> {
        vec![
            (slot, Type::TEXT),
            (&self.system_identifier, Type::INT8),
            (&self.timeline, Type::INT4),
            (&self.database_oid, Type::OID),
        ]
    }
}
