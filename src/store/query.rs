//! Asking and reading rows: the little that all queries share.

use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, PgLsn, ToSql, Type};

use super::connect::Store;
use super::error::StoreError;
use crate::lsn::Lsn;

/// A parameter and its type; given along, it saves the round trip that would ask for the type.
pub(super) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// One row, read by column number.
pub(super) struct Fields {
    what: &'static str,
    row: Row,
}

impl Fields {
    /// The value of a column.
    pub(super) fn get<'a, T: FromSql<'a>>(&'a self, column: usize) -> Result<T, StoreError> {
        self.row.try_get(column).map_err(|error| StoreError::from_client(self.what, &error))
    }

    /// An LSN.
    pub(super) fn lsn(&self, column: usize) -> Result<Lsn, StoreError> {
        Ok(Lsn(self.get::<PgLsn>(column)?.into()))
    }

    /// An LSN that may be null.
    pub(super) fn maybe_lsn(&self, column: usize) -> Result<Option<Lsn>, StoreError> {
        Ok(self.get::<Option<PgLsn>>(column)?.map(|lsn| Lsn(lsn.into())))
    }

    /// A number that PostgreSQL keeps signed and that is never negative (below zero counts as 0).
    pub(super) fn count(&self, column: usize) -> Result<u64, StoreError> {
        Ok(u64::try_from(self.get::<i64>(column)?).unwrap_or(0))
    }

    /// The same, where it may be null.
    pub(super) fn maybe_count(&self, column: usize) -> Result<Option<u64>, StoreError> {
        Ok(self.get::<Option<i64>>(column)?.map(|number| u64::try_from(number).unwrap_or(0)))
    }
}

impl Store {
    /// All rows of a query. `what` says in an error what was being done.
    pub(super) async fn rows(
        &self,
        what: &'static str,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Vec<Fields>, StoreError> {
        let rows = self.client().query_typed(sql, params).await;
        let rows = rows.map_err(|error| StoreError::from_client(what, &error))?;
        Ok(rows.into_iter().map(|row| Fields { what, row }).collect())
    }

    /// The first row of a query, if it has any.
    pub(super) async fn first(
        &self,
        what: &'static str,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Option<Fields>, StoreError> {
        Ok(self.rows(what, sql, params).await?.into_iter().next())
    }

    /// The only row of a query that always has one.
    pub(super) async fn one(
        &self,
        what: &'static str,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Fields, StoreError> {
        let row = self.first(what, sql, params).await?;
        row.ok_or_else(|| StoreError::Answer { what, cause: "no row".to_owned() })
    }

    /// Statements without parameters or result, in one transaction where there are several.
    pub(super) async fn run(&self, what: &'static str, sql: &str) -> Result<(), StoreError> {
        let done = self.client().batch_execute(sql).await;
        done.map_err(|error| StoreError::from_client(what, &error))
    }
}
