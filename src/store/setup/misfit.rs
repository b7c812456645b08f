//! What is there and does not fit, each with its remedy.

use crate::lsn::Lsn;
use crate::outbox::Shard;
use crate::store::name::{TableName, ident, literal, one_line};

/// Something that only an operator can put right. The text says what is wrong and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// `wal_level` is not `logical`.
    #[error(
        "wal_level is {0}, logical is needed: ALTER SYSTEM SET wal_level = 'logical', then restart \
         PostgreSQL (RDS: rds.logical_replication = 1; Cloud SQL: cloudsql.logical_decoding = on)"
    )]
    WalLevel(String),
    /// No slot is free.
    #[error(
        "all {0} replication slots are taken: raise max_replication_slots and restart PostgreSQL, or \
         drop a slot that nobody needs (SELECT slot_name, active FROM pg_replication_slots)"
    )]
    NoFreeSlot(u64),
    /// No walsender is free.
    #[error(
        "all {0} walsenders are taken: raise max_wal_senders and restart PostgreSQL, or end one \
         (SELECT pid, application_name FROM pg_stat_replication)"
    )]
    NoFreeWalsender(u64),
    /// An outbox table is missing.
    #[error(
        "table {table} does not exist in database {}: create it (the application's migrations), or mend \
         outbox.tables or postgres.url", one_line(.1), table = .0
    )]
    TableMissing(TableName, String),
    /// It is a view, a foreign table or the like.
    #[error("{0} is no table, and only inserts into tables reach a slot: mend outbox.tables")]
    NoTable(TableName),
    /// It is unlogged or temporary.
    #[error(
        "table {table} or a partition of it is not logged, so that its rows never reach a slot: ALTER TABLE {} SET LOGGED",
        .0.quoted(), table = .0
    )]
    NotLogged(TableName),
    /// `walpost.outbox` was made by somebody else.
    #[error(
        "{0} exists and was not made by walpost, which makes a table of that name: rename it, run \
         walpost init again, and name it in outbox.tables if it is to be the outbox"
    )]
    ForeignOutbox(TableName),
    /// The slot is older than the publication would be, so that streaming from it would fail.
    #[error(
        "publication {} does not exist, slot {} does: mend replication.publication; if it was dropped, \
         the slot cannot be read any more, and to start anew without what was committed since: SELECT \
         pg_drop_replication_slot({slot}); DELETE FROM walpost.relay WHERE slot = {slot}; then walpost init",
        one_line(.0), one_line(.1), slot = literal(.1)
    )]
    PublicationMissing(String, String),
    /// Rows of an outbox table would never come, unseen.
    #[error("publication {} does not cover {table}: walpost init adds it", one_line(.0), table = .1)]
    NotPublished(String, TableName),
    /// Inserts are not published. What is published besides (`update, `) may be for others, and is
    /// kept by the remedy.
    #[error(
        "publication {} does not publish inserts: ALTER PUBLICATION {} SET (publish = '{kept}insert')",
        one_line(.0), ident(.0), kept = .1
    )]
    NoInserts(String, String),
    /// A partitioned table's rows would come under the names of its partitions.
    #[error(
        "publication {} publishes partitioned table {table} by its partitions: ALTER PUBLICATION {} SET \
         (publish_via_partition_root = true)",
        one_line(.0), ident(.0), table = .1
    )]
    NotViaRoot(String, TableName),
    /// Rows that a filter keeps back would be lost.
    #[error(
        "publication {} has a row filter on {table}, so that rows would be lost: remove it (ALTER \
         PUBLICATION … SET TABLE, with all its tables)",
        one_line(.0), table = .1
    )]
    RowFilter(String, TableName),
    /// Row filters came with PostgreSQL 15.
    #[error(
        "replication.shard.count over 1 needs row filters, which PostgreSQL {}.{} does not have: upgrade it \
         to 15 or later, or set replication.shard.count to 1", .0 / 10_000, .0 % 10_000
    )]
    ShardsTooOld(u32),
    /// A table without the column that rows are divided by.
    #[error(
        "table {table} has no column {}, by which replication.shard divides its rows: mend outbox.key, \
         outbox.destination or outbox.columns", one_line(.1), table = .0
    )]
    ShardColumnMissing(TableName, String),
    /// No row filter can be over that column.
    #[error(
        "column {} of {table} is of type {}, by which a row filter cannot divide rows: let outbox.key name a \
         column of text, of a whole number or of uuid", one_line(.1), one_line(.2), table = .0
    )]
    ShardColumnType(TableName, String, String),
    /// Another relay's publication, or the number of relays was changed here only: publication, table,
    /// the filter's shard, our own.
    #[error(
        "publication {} has the rows of {theirs} in {table}, this relay is {ours}: each relay needs a slot and a \
         publication of its own (replication.slot, replication.publication); to change the number of relays, \
         see docs/operations.md, 'Several relays on one table'",
        one_line(.0), table = .1, theirs = .2, ours = .3
    )]
    OtherShard(String, TableName, Shard, Shard),
    /// FOR ALL TABLES takes no row filter.
    #[error(
        "publication {} is FOR ALL TABLES, which takes no row filter, so that this relay would have the \
         messages of all shards: set replication.slot and replication.publication to another name",
        one_line(.0)
    )]
    ShardAllTables(String),
    /// No filter, or one that is none of walpost's: messages come twice or not at all. The statement
    /// has everything that the publication covers.
    #[error(
        "publication {} has not the row filter of {ours} on {table}, so that messages would be lost or come twice: \
         {} (docs/operations.md, 'Several relays on one table')",
        one_line(.0), one_line(.3), table = .1, ours = .2
    )]
    ShardFilter(String, TableName, Shard, String),
    /// Columns are kept back.
    #[error(
        "publication {} has a column list on {table}: remove it (ALTER PUBLICATION … SET TABLE, with all \
         its tables)",
        one_line(.0), table = .1
    )]
    ColumnList(String, TableName),
    /// The slot is another program's: physical, or of another plugin.
    #[error(
        "slot {} is not one of walpost's ({}): set replication.slot to another name",
        one_line(.0), .1.as_deref().map_or("physical".to_owned(), |p| format!("plugin {}", one_line(p)))
    )]
    SlotPlugin(String, Option<String>),
    /// The slot decodes another database.
    #[error(
        "slot {} belongs to database {}: names of slots are unique in the whole cluster, set \
         replication.slot to another name or mend postgres.url",
        one_line(.0), one_line(.1)
    )]
    SlotDatabase(String, String),
    /// The slot goes with somebody's session.
    #[error("slot {} is temporary: wait until its session ends, or use another name", one_line(.0))]
    SlotTemporary(String),
    /// The slot decodes prepared transactions early.
    #[error(
        "slot {} was made with two_phase, which walpost does not read: set replication.slot to \
         another name",
        one_line(.0)
    )]
    SlotTwoPhase(String),
    /// The server has no failover slots.
    #[error(
        "replication.failover is true, and PostgreSQL {0} has no failover slots (17 is the first that has): \
         write auto or false; docs/operations.md, 'A failover', says what that means"
    )]
    NoFailoverSlots(u32),
    /// A standby that is promoted would not have the slot.
    #[error(
        "slot {} is no failover slot, so that a standby that is promoted will not have it: walpost init makes \
         it one while no walpost reads from it (replication.failover: false leaves it)",
        one_line(.0)
    )]
    NotFailover(String),
    /// Nothing can be read from the slot any more.
    #[error(
        "slot {} is lost ({}): rows committed after {confirmed} have not been published and cannot be read \
         from it; to start anew without them: SELECT pg_drop_replication_slot({slot}); DELETE FROM \
         walpost.relay WHERE slot = {slot}; then walpost init",
        one_line(.0), one_line(.1), slot = literal(.0), confirmed = .2
    )]
    SlotLost(String, String, Lsn),
}
