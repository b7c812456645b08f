//! An outbox table: whether it is there, whether its rows get into the WAL, whether rows wait.

use tokio_postgres::types::Type;

use super::connect::Store;
use super::error::StoreError;
use super::name::TableName;

/// A table as `pg_class` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableState {
    /// Its oid.
    pub oid: u32,
    /// Whether it is a table at all, plain or partitioned (and no view or foreign table).
    pub is_table: bool,
    /// Whether it is partitioned.
    pub partitioned: bool,
    /// Whether it is logged: an unlogged or temporary table never reaches a slot.
    pub logged: bool,
}

/// Rows that are in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitingRows {
    /// Whether there is any.
    pub any: bool,
    /// About how many, by the last ANALYZE; none: never analysed.
    pub estimate: Option<u64>,
}

impl Store {
    /// The table of that name. The catalogs are read, so that no right on the schema is needed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn table(&self, table: &TableName) -> Result<Option<TableState>, StoreError> {
        let sql = "SELECT c.oid, c.relkind IN ('r', 'p'), c.relkind = 'p', c.relpersistence = 'p'
                AND NOT EXISTS (SELECT FROM pg_partition_tree(c.oid) t JOIN pg_class p ON p.oid = t.relid
                    WHERE p.relpersistence <> 'p')
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = $1::text::name AND c.relname = $2::text::name";
        let params = [
            (&table.schema as &(dyn tokio_postgres::types::ToSql + Sync), Type::TEXT),
            (&table.name, Type::TEXT),
        ];
        let Some(row) = self.first("looking for the outbox table", sql, &params).await? else {
            return Ok(None);
        };
        Ok(Some(TableState {
            oid: row.get(0)?,
            is_table: row.get(1)?,
            partitioned: row.get(2)?,
            logged: row.get(3)?,
        }))
    }

    /// Whether rows are in a table, and about how many. Needs SELECT on it.
    ///
    /// # Errors
    /// [`StoreError`]: 42P01 where the table is missing, 42501 without the right.
    pub async fn waiting_rows(&self, table: &TableName) -> Result<WaitingRows, StoreError> {
        let sql = format!(
            "SELECT EXISTS (SELECT FROM {}), (SELECT sum(c.reltuples)::bigint
                FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE n.nspname = $1::text::name AND c.relname = $2::text::name
                    AND c.reltuples >= 0)",
            table.quoted()
        );
        let params = [
            (&table.schema as &(dyn tokio_postgres::types::ToSql + Sync), Type::TEXT),
            (&table.name, Type::TEXT),
        ];
        let row = self.one("looking for rows that wait", &sql, &params).await?;
        Ok(WaitingRows { any: row.get(0)?, estimate: row.maybe_count(1)? })
    }
}
