//! The server, the role that is logged in, and what is left of slots and walsenders.

use tokio_postgres::types::Type;

use super::connect::Store;
use super::error::StoreError;

/// Which server this is: what tells a cluster from its restored copy or promoted standby.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// `server_version_num`: 150008 for 15.8.
    pub version: u32,
    /// Of the cluster, since initdb; a standby has its primary's.
    pub system_identifier: u64,
    /// The timeline that WAL is written on (in recovery: of the last checkpoint).
    pub timeline: u32,
    /// Whether this is a standby.
    pub in_recovery: bool,
    /// The database's name.
    pub database: String,
    /// The database's oid.
    pub database_oid: u32,
    /// `wal_level`: must be `logical`.
    pub wal_level: String,
}

/// The role that is logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleFacts {
    /// Its name.
    pub name: String,
    /// Whether it may do everything; more than walpost needs.
    pub superuser: bool,
    /// Whether it has the attribute REPLICATION (managed servers have roles in its place).
    pub replication: bool,
}

/// The role `walpost_writer` in this database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// The cluster has no such role.
    Missing,
    /// It is there, and may not insert into the outbox of this database.
    NoRights,
    /// It may publish.
    Ready,
}

/// Replication slots and walsenders: how many may be, how many are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// `max_replication_slots`.
    pub max_slots: u64,
    /// Slots of the whole cluster.
    pub slots: u64,
    /// `max_wal_senders`.
    pub max_walsenders: u64,
    /// Walsenders at work.
    pub walsenders: u64,
}

impl Store {
    /// Whether applications can be given the right to publish. Any role may ask.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn writer(&self) -> Result<Writer, StoreError> {
        let sql = "SELECT r.oid IS NOT NULL,
                CASE WHEN c.oid IS NOT NULL THEN has_schema_privilege(r.oid, n.oid, 'USAGE')
                    AND has_column_privilege(r.oid, c.oid, 'destination', 'INSERT') END
            FROM (VALUES ('walpost_writer', 'walpost', 'outbox')) AS v (writer, schema, outbox)
            LEFT JOIN pg_roles r ON r.rolname = v.writer
            LEFT JOIN pg_namespace n ON n.nspname = v.schema
            LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = v.outbox";
        let row = self.one("asking for the role walpost_writer", sql, &[]).await?;
        Ok(match (row.get(0)?, row.get::<Option<bool>>(1)?) {
            (false, _) => Writer::Missing,
            (true, Some(true)) => Writer::Ready,
            (true, _) => Writer::NoRights,
        })
    }

    /// Identity and state of the server.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn server(&self) -> Result<Server, StoreError> {
        const WHAT: &str = "asking for the server's identity";
        // The control file learns of a new timeline only at the checkpoint after a promotion, the
        // name of the present WAL file at once.
        let sql = "SELECT s.system_identifier,
                CASE WHEN pg_is_in_recovery() THEN lpad(to_hex(c.timeline_id), 8, '0')
                     ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END,
                pg_is_in_recovery(), d.datname::text, d.oid, current_setting('wal_level')
            FROM pg_control_system() s, pg_control_checkpoint() c, pg_database d
            WHERE d.datname = current_database()";
        let row = self.one(WHAT, sql, &[]).await?;
        let timeline: String = row.get(1)?;
        let timeline = u32::from_str_radix(&timeline, 16)
            .map_err(|_| StoreError::Answer { what: WHAT, cause: "no timeline".to_owned() })?;
        Ok(Server {
            version: self.version(),
            system_identifier: row.get::<i64>(0)?.cast_unsigned(),
            timeline,
            in_recovery: row.get(2)?,
            database: row.get(3)?,
            database_oid: row.get(4)?,
            wal_level: row.get(5)?,
        })
    }

    /// The role that is logged in.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn role(&self) -> Result<RoleFacts, StoreError> {
        const WHAT: &str = "asking for the role";
        let name: String = self.one(WHAT, "SELECT current_user::text", &[]).await?.get(0)?;
        let role = self.role_named(&name).await?;
        role.ok_or_else(|| StoreError::Answer { what: WHAT, cause: "no such role".to_owned() })
    }

    /// Any role by its name, if there is one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn role_named(&self, name: &str) -> Result<Option<RoleFacts>, StoreError> {
        let sql = "SELECT rolname::text, rolsuper, rolreplication FROM pg_roles
            WHERE rolname = $1::text::name";
        let row = self.first("looking for the role", sql, &[(&name, Type::TEXT)]).await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(RoleFacts { name: row.get(0)?, superuser: row.get(1)?, replication: row.get(2)? }))
    }

    /// Slots and walsenders, used and allowed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn capacity(&self) -> Result<Capacity, StoreError> {
        let sql = "SELECT current_setting('max_replication_slots')::bigint,
            (SELECT count(*) FROM pg_replication_slots),
            current_setting('max_wal_senders')::bigint,
            (SELECT count(*) FROM pg_stat_replication)";
        let row = self.one("counting slots and walsenders", sql, &[]).await?;
        Ok(Capacity {
            max_slots: row.count(0)?,
            slots: row.count(1)?,
            max_walsenders: row.count(2)?,
            walsenders: row.count(3)?,
        })
    }
}
