//! The publication: what it covers, making it, adding to it. Nothing here drops one: a publication
//! that is dropped and made anew loses what was inserted between, unseen.

use tokio_postgres::types::Type;

use super::connect::Store;
use super::error::StoreError;
use super::name::{TableName, ident};

/// A publication as the catalogs show it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "as pg_publication has them")]
pub struct PublicationState {
    /// Whether inserts are published: what walpost needs.
    pub insert: bool,
    /// Whether updates are, which walpost reads past.
    pub update: bool,
    /// Whether deletes are.
    pub delete: bool,
    /// Whether TRUNCATE is.
    pub truncate: bool,
    /// `publish_via_partition_root`: rows of partitions come under the name of their root.
    pub via_root: bool,
    /// Whether it is FOR ALL TABLES.
    pub all_tables: bool,
    /// What it covers, by whatever road (named, FOR ALL TABLES, FOR TABLES IN SCHEMA).
    pub tables: Vec<PublishedTable>,
}

/// A table that a publication covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedTable {
    /// Its name.
    pub table: TableName,
    /// Its row filter (PostgreSQL 15 and later): rows that do not pass never arrive.
    pub row_filter: Option<String>,
    /// Its column list (15 and later): other columns never arrive.
    pub columns: Option<Vec<String>>,
}

impl PublicationState {
    /// The entry of a table, if it is covered.
    #[must_use]
    pub fn table(&self, table: &TableName) -> Option<&PublishedTable> {
        self.tables.iter().find(|published| published.table == *table)
    }
}

impl PublishedTable {
    /// Without row filter and column list.
    #[must_use]
    pub fn whole(table: TableName) -> PublishedTable {
        PublishedTable { table, row_filter: None, columns: None }
    }

    /// As `FOR TABLE` takes it.
    fn sql(&self) -> String {
        let mut sql = self.table.quoted();
        if let Some(columns) = &self.columns {
            let columns: Vec<_> = columns.iter().map(|column| ident(column)).collect();
            sql += &format!(" ({})", columns.join(", "));
        }
        if let Some(filter) = &self.row_filter {
            sql += &format!(" WHERE ({filter})");
        }
        sql
    }
}

/// Several, separated by commas.
fn list(tables: &[PublishedTable]) -> String {
    tables.iter().map(PublishedTable::sql).collect::<Vec<_>>().join(", ")
}

/// `CREATE PUBLICATION` for inserts into these tables.
#[must_use]
pub fn create_sql(publication: &str, tables: &[PublishedTable]) -> String {
    format!(
        "CREATE PUBLICATION {} FOR TABLE {} WITH (publish = 'insert', publish_via_partition_root = true)",
        ident(publication),
        list(tables)
    )
}

/// `ALTER PUBLICATION … ADD TABLE`.
#[must_use]
pub fn add_sql(publication: &str, tables: &[PublishedTable]) -> String {
    format!("ALTER PUBLICATION {} ADD TABLE {}", ident(publication), list(tables))
}

/// `ALTER PUBLICATION … SET TABLE`: these and no others. It is for an operator to run.
#[must_use]
pub fn set_sql(publication: &str, tables: &[PublishedTable]) -> String {
    format!("ALTER PUBLICATION {} SET TABLE {}", ident(publication), list(tables))
}

impl Store {
    /// The publication of that name, with all that it covers.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn publication(&self, name: &str) -> Result<Option<PublicationState>, StoreError> {
        const WHAT: &str = "reading the publication";
        let sql = "SELECT pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot, puballtables
            FROM pg_publication WHERE pubname = $1::text::name";
        let Some(row) = self.first(WHAT, sql, &[(&name, Type::TEXT)]).await? else {
            return Ok(None);
        };
        // Before 15 a publication had neither row filters nor column lists. The view shows a filter only
        // where it holds (not beside FOR TABLES IN SCHEMA), but a column list even where none was given, so
        // that this is asked of the catalog.
        let (filter, columns) = match self.version() {
            150_000.. => (
                "t.rowfilter",
                "(SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_attribute a
                    WHERE a.attrelid = r.prrelid AND a.attnum = ANY (r.prattrs::int2[]))",
            ),
            _ => ("NULL::text", "NULL::text[]"),
        };
        let sql = format!(
            "SELECT t.schemaname::text, t.tablename::text, {filter}, {columns}
            FROM pg_publication_tables t
                JOIN pg_publication p ON p.pubname = t.pubname
                JOIN pg_namespace n ON n.nspname = t.schemaname
                JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
                LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = c.oid
            WHERE t.pubname = $1::text::name ORDER BY 1, 2"
        );
        let rows = self.rows(WHAT, &sql, &[(&name, Type::TEXT)]).await?;
        let tables = rows.iter().map(|row| {
            Ok(PublishedTable {
                table: TableName { schema: row.get(0)?, name: row.get(1)? },
                row_filter: row.get(2)?,
                columns: row.get(3)?,
            })
        });
        Ok(Some(PublicationState {
            insert: row.get(0)?,
            update: row.get(1)?,
            delete: row.get(2)?,
            truncate: row.get(3)?,
            via_root: row.get(4)?,
            all_tables: row.get(5)?,
            tables: tables.collect::<Result<_, StoreError>>()?,
        }))
    }

    /// Makes a publication of the inserts into these tables. Our role must own them.
    ///
    /// # Errors
    /// [`StoreError`]: 42710 where the name is taken, 42501 without the rights.
    pub async fn create_publication(
        &self,
        name: &str,
        tables: &[PublishedTable],
    ) -> Result<(), StoreError> {
        self.run("making the publication", &create_sql(name, tables)).await
    }

    /// Adds tables to a publication. What was committed to them before is not published.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn alter_publication_add(
        &self,
        name: &str,
        tables: &[PublishedTable],
    ) -> Result<(), StoreError> {
        self.run("adding a table to the publication", &add_sql(name, tables)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_quote_every_name() {
        let tables = [TableName::new("walpost", "outbox"), TableName::new("Shop", "a\"b")];
        let mut tables = tables.map(PublishedTable::whole);
        assert_eq!(
            create_sql("wal post", &tables),
            "CREATE PUBLICATION \"wal post\" FOR TABLE \"walpost\".\"outbox\", \"Shop\".\"a\"\"b\" \
             WITH (publish = 'insert', publish_via_partition_root = true)"
        );
        assert_eq!(
            add_sql("p", &tables[..1]),
            "ALTER PUBLICATION \"p\" ADD TABLE \"walpost\".\"outbox\""
        );
        tables[0].row_filter = Some("id = 3".to_owned());
        tables[1].columns = Some(vec!["a".to_owned(), "B\"".to_owned()]);
        assert_eq!(
            set_sql("p", &tables),
            "ALTER PUBLICATION \"p\" SET TABLE \"walpost\".\"outbox\" WHERE (id = 3), \
             \"Shop\".\"a\"\"b\" (\"a\", \"B\"\"\")"
        );
    }
}
