//! Reading the rows that wait, in the order in which they were made, as a cursor gives them.
//!
//! The values are those that pgoutput would have brought: text, by the types' output functions. One
//! transaction holds the cursor, so that the rows are sorted once; it holds back VACUUM meanwhile. Who waits
//! for its lock on the table can be asked for, so that it gives way.

use std::fmt::Write as _;
use std::pin::Pin;

use futures_util::StreamExt;
use tokio_postgres::types::Type;
use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow, SimpleQueryStream};

use super::connect::Store;
use super::error::StoreError;
use super::name::{ident, literal};
use super::query::Param;
use super::recovery::Position;
use super::waiting::{Between, OutboxTable};
use crate::pgtime::PgTime;

/// So many rows are asked for at once: a chunk.
pub const CHUNK: usize = 1_000;

const WHAT: &str = "reading the rows that wait";
/// Columns before the table's own: too long, id, time, microseconds.
const OWN: usize = 4;

/// A column, as a Relation message would describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingColumn {
    /// Its name.
    pub name: String,
    /// The oid of its type.
    pub type_oid: u32,
    /// `atttypmod`.
    pub type_modifier: i32,
    /// The type as SQL names it.
    type_name: String,
    /// `S`: text; its length is asked for.
    category: char,
    /// Whether its length varies.
    varies: bool,
}

/// A row that waits.
#[derive(Clone, Debug)]
pub struct WaitingRow {
    /// The values, as TupleData carries them: a byte for the kind, a length, the text.
    pub values: Vec<u8>,
    /// It is longer than is read whole: all values but the id's are NULL.
    pub too_long: bool,
    /// When it was made; none: nobody knows.
    pub made_at: Option<PgTime>,
    /// Where the reading stands with it; none: it can't go on in the middle of this table.
    pub position: Option<Position>,
}

/// What comes next.
#[derive(Debug)]
pub enum Next {
    /// A row.
    Row(WaitingRow),
    /// So many rows came as are read at once.
    ChunkEnd,
    /// There is no more.
    End,
}

/// The rows of one table that wait.
pub struct Reader {
    store: Store,
    /// Of its connection.
    process_id: i32,
    /// The table's oid.
    pub oid: u32,
    /// Its columns, in the order of the values.
    pub columns: Vec<WaitingColumn>,
    ordered: bool,
    fetching: Option<Pin<Box<SimpleQueryStream>>>,
    fetched: usize,
    /// So many are asked for.
    chunk: usize,
}

impl Reader {
    /// Begins to read on a connection of its own; of a row longer than `max_row` only the id is read. The
    /// first chunk has so many rows.
    ///
    /// # Errors
    /// [`StoreError`]: 42P01 where the table is missing, 42501 without SELECT on it.
    pub async fn open(
        store: Store,
        table: &OutboxTable,
        between: &Between,
        after: Option<&Position>,
        max_row: usize,
        first: usize,
    ) -> Result<Reader, StoreError> {
        let (oid, columns) = store.columns_of(table).await?;
        let select = select(table, &columns, between, after, max_row);
        // Of PostgreSQL 17 on; a role or database may have set it.
        let whole =
            if store.version() >= 170_000 { "SET LOCAL transaction_timeout = 0;" } else { "" };
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {whole} SET LOCAL statement_timeout = 0;
            SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL cursor_tuple_fraction = 1;
            DECLARE walpost_waiting NO SCROLL CURSOR FOR {select}"
        );
        store.run(WHAT, &begin).await?;
        let process_id = store.one(WHAT, "SELECT pg_backend_pid()", &[]).await?.get(0)?;
        let ordered = table.created_at.is_some();
        let (fetching, fetched, chunk) = (None, 0, first);
        Ok(Reader { store, process_id, oid, columns, ordered, fetching, fetched, chunk })
    }

    /// The next row.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn next(&mut self) -> Result<Next, StoreError> {
        loop {
            let Some(fetching) = &mut self.fetching else {
                let sql = format!("FETCH FORWARD {} FROM walpost_waiting", self.chunk);
                let stream = self.store.client().simple_query_raw(&sql).await;
                let stream = stream.map_err(|error| StoreError::from_client(WHAT, &error))?;
                (self.fetching, self.fetched) = (Some(Box::pin(stream)), 0);
                continue;
            };
            match fetching.next().await {
                Some(Ok(SimpleQueryMessage::Row(row))) => {
                    self.fetched += 1;
                    return self.row(&row).map(Next::Row);
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(StoreError::from_client(WHAT, &error)),
                None => {
                    self.fetching = None;
                    let chunk = std::mem::replace(&mut self.chunk, CHUNK);
                    return Ok(if self.fetched < chunk { Next::End } else { Next::ChunkEnd });
                }
            }
        }
    }

    /// Whether it can go on after a row: it has an order, and a reader that is opened anew begins there.
    #[must_use]
    pub fn is_ordered(&self) -> bool {
        self.ordered
    }

    /// Whether somebody waits for a lock that this one holds, and with him everybody who came later: asked
    /// on another connection, since this one may be in the middle of a chunk.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn is_in_the_way(&self, on: &Store) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT FROM pg_locks AS waiting
            WHERE NOT granted AND locktype = 'relation' AND $1 = ANY (pg_blocking_pids(pid)))";
        let what = "asking who waits for the table";
        on.one(what, sql, &[(&self.process_id, Type::INT4)]).await?.get(0)
    }

    fn row(&self, row: &SimpleQueryRow) -> Result<WaitingRow, StoreError> {
        let text =
            |column| row.try_get(column).map_err(|error| StoreError::from_client(WHAT, &error));
        let too_long = text(0)? == Some("t");
        let micros = text(3)?.and_then(|micros| micros.parse::<i64>().ok());
        let mut values = Vec::new();
        for column in OWN..OWN + self.columns.len() {
            match text(column)? {
                // Of a row that is too long nothing is known but the id.
                None if too_long => values.push(b'u'),
                None => values.push(b'n'),
                Some(value) => {
                    // PostgreSQL has no value of 4 GiB.
                    let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
                    values.push(b't');
                    values.extend_from_slice(&length.to_be_bytes());
                    values.extend_from_slice(value.as_bytes());
                }
            }
        }
        let (id, created_at) = (text(1)?.map(str::to_owned), text(2)?.map(str::to_owned));
        Ok(WaitingRow {
            values,
            too_long,
            made_at: micros.map(PgTime::from_unix_micros),
            position: self.ordered.then_some(Position { created_at, id }),
        })
    }
}

impl Store {
    /// The table's oid, and its columns as pgoutput describes them: generated ones are not sent.
    async fn columns_of(
        &self,
        table: &OutboxTable,
    ) -> Result<(u32, Vec<WaitingColumn>), StoreError> {
        let sql = "SELECT c.oid, a.attname::text, a.atttypid, a.atttypmod,
                format_type(a.atttypid, a.atttypmod), t.typcategory::text, t.typlen = -1
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
                    AND NOT a.attisdropped AND a.attgenerated = ''
                JOIN pg_type t ON t.oid = a.atttypid
            WHERE n.nspname = $1::text::name AND c.relname = $2::text::name ORDER BY a.attnum";
        let params: [Param<'_>; 2] =
            [(&table.table.schema, Type::TEXT), (&table.table.name, Type::TEXT)];
        let rows = self.rows(WHAT, sql, &params).await?;
        let mut oid = 0;
        let mut columns = Vec::with_capacity(rows.len());
        for row in &rows {
            oid = row.get(0)?;
            columns.push(WaitingColumn {
                name: row.get(1)?,
                type_oid: row.get(2)?,
                type_modifier: row.get(3)?,
                type_name: row.get(4)?,
                category: row.get::<&str>(5)?.chars().next().unwrap_or_default(),
                varies: row.get(6)?,
            });
        }
        if columns.is_empty() {
            let cause = format!("table {} is not there", table.table);
            return Err(StoreError::Answer { what: WHAT, cause });
        }
        Ok((oid, columns))
    }
}

/// The statement of the cursor. The table is `w`.
fn select(
    table: &OutboxTable,
    columns: &[WaitingColumn],
    between: &Between,
    after: Option<&Position>,
    max_row: usize,
) -> String {
    let find = |name: &Option<String>| {
        name.as_ref().and_then(|name| columns.iter().find(|column| column.name == *name))
    };
    let (id, made) = (find(&table.id), find(&table.created_at));
    let text = |column: Option<&WaitingColumn>| {
        column.map_or("NULL".to_owned(), |column| format!("{}::text", column.sql()))
    };
    let micros = match made {
        // timestamptz, timestamp, date
        Some(made) if [1184, 1114, 1082].contains(&made.type_oid) => {
            let made = made.sql();
            format!(
                "CASE WHEN isfinite({made}) THEN (extract(epoch FROM {made}) * 1000000)::bigint END"
            )
        }
        _ => "NULL".to_owned(),
    };
    let mut sql = format!("SELECT size.\"too long\", {}, {}, {micros}", text(id), text(made));
    for column in columns {
        let name = column.sql();
        // Failing to write into a String is impossible.
        let _ = if Some(column) == id {
            write!(sql, ", {name}")
        } else {
            write!(sql, ", CASE WHEN NOT size.\"too long\" THEN {name} END")
        };
    }
    let lengths: Vec<_> = columns.iter().filter_map(WaitingColumn::length).collect();
    let length = if lengths.is_empty() { "0".to_owned() } else { lengths.join(" + ") };
    let _ = write!(
        sql,
        " FROM {} AS w CROSS JOIN LATERAL (SELECT {length} > {max_row} AS \"too long\") AS size
        WHERE {}",
        table.table.quoted(),
        table.waiting(between),
    );
    match (made, id) {
        (Some(made), Some(id)) => {
            if let Some(after) = after {
                let _ = write!(sql, " AND ({})", after_position(made, id, after));
            }
            let _ =
                write!(sql, " ORDER BY {} NULLS FIRST, {} NULLS FIRST", made.sql(), id.ordered());
        }
        // About the order in which they were inserted.
        _ => sql.push_str(" ORDER BY w.tableoid, w.ctid"),
    }
    sql
}

/// What comes after a position, with nulls first.
fn after_position(made: &WaitingColumn, id: &WaitingColumn, at: &Position) -> String {
    let later = |column: &WaitingColumn, name: &str, value: &Option<String>| match value {
        Some(value) => {
            let value = format!("{}::{}", literal(value), column.type_name);
            (format!("{name} > {value}"), format!("{name} = {value}"))
        }
        None => (format!("{name} IS NOT NULL"), format!("{name} IS NULL")),
    };
    let (made_later, made_same) = later(made, &made.sql(), &at.created_at);
    let (id_later, _) = later(id, &id.ordered(), &at.id);
    format!("{made_later} OR ({made_same} AND {id_later})")
}

impl WaitingColumn {
    fn sql(&self) -> String {
        format!("w.{}", ident(&self.name))
    }

    /// With an order that does not depend on the database's language.
    fn ordered(&self) -> String {
        let collate = if self.category == 'S' { " COLLATE \"C\"" } else { "" };
        format!("{}{collate}", self.sql())
    }

    /// About how many bytes its text has; none: few.
    fn length(&self) -> Option<String> {
        const BYTEA: u32 = 17;
        let name = self.sql();
        if !self.varies {
            None
        } else if self.type_oid == BYTEA {
            Some(format!("coalesce(2 * octet_length({name})::bigint, 0)"))
        } else if self.category == 'S' {
            Some(format!("coalesce(octet_length({name})::bigint, 0)"))
        } else {
            // Compressed, it may be some hundred times as long.
            Some(format!(
                "coalesce(CASE WHEN pg_column_size({name}) > 16384 THEN octet_length({name}::text)
                    ELSE pg_column_size({name}) END::bigint, 0)"
            ))
        }
    }
}
