//! Marking: rows whose messages have their receipt get their status, or are deleted.
//!
//! Rows go by their id. Only while the slot is ours on this very server: after a failover ids may be
//! given to other rows. What was not found is looked up in a second statement, since a row that cannot be
//! seen yet (its commit waits for a synchronous standby) is not one that was deleted.

use std::collections::HashSet;

use tokio_postgres::types::Type;

use super::connect::Store;
use super::error::StoreError;
use super::name::{TableName, ident};
use super::query::{Fields, Param};

const WHAT: &str = "marking what is published";
/// How long a row that somebody else has locked is waited for. Shorter than the server's own
/// `deadlock_timeout` (1 s): should both wait for each other, it is not the other one that fails.
const LOCK_TIMEOUT: &str = "400ms";

/// Whether the slot is ours, on this server.
const OURS: &str =
    "EXISTS (SELECT FROM pg_replication_slots JOIN walpost.relay ON relay.slot = slot_name
    WHERE slot_name = $2::text::name AND active_pid = $3 AND relay.epoch = $4)";

/// What becomes of a row whose message is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// This column gets the value 2.
    Status(String),
    /// The row is deleted.
    Delete,
}

/// A table whose rows are marked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkedTable {
    /// The table.
    pub table: TableName,
    /// The column with the message id.
    pub id: String,
    /// What becomes of a row.
    pub mark: Mark,
}

/// A row to be marked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkedRow {
    /// Its id, as PostgreSQL prints it.
    pub id: String,
    /// The transaction that inserted it, as the stream names it; none: the row was read from the table.
    pub xid: Option<u32>,
}

/// Who holds the slot, and on which server.
#[derive(Clone, Copy, Debug)]
pub struct Holder<'a> {
    /// The slot.
    pub slot: &'a str,
    /// The epoch of its row.
    pub epoch: i64,
    /// The server's process that has it for us.
    pub walsender: u32,
}

/// The ids of an outbox table, by their type.
pub struct IdType(String);

impl MarkedTable {
    /// The rights that it takes beside SELECT, for a GRANT. Rows cannot be locked without the right to
    /// update one of their columns.
    #[must_use]
    pub fn rights(&self) -> String {
        match &self.mark {
            Mark::Status(column) => format!("UPDATE ({})", ident(column)),
            Mark::Delete => format!("DELETE, UPDATE ({})", ident(&self.id)),
        }
    }

    /// The statement. With `skip_locked` it passes over rows that somebody else has locked.
    fn sql(&self, of: &IdType, skip_locked: bool) -> String {
        let (table, id) = (self.table.quoted(), ident(&self.id));
        let IdType(kind) = of;
        let asked = format!("w.{id} = ANY ($1::text[]::{kind}[])");
        let open = self.open().map(|open| format!(" AND {open}")).unwrap_or_default();
        let which = if skip_locked {
            let lock = match self.mark {
                Mark::Status(_) => "NO KEY UPDATE",
                Mark::Delete => "UPDATE",
            };
            format!(
                "w.{id} = ANY (ARRAY(SELECT w.{id} FROM {table} AS w WHERE {asked}{open} FOR {lock} SKIP LOCKED))"
            )
        } else {
            asked
        };
        let action = match &self.mark {
            Mark::Status(column) => format!("UPDATE {table} AS w SET {} = 2", ident(column)),
            Mark::Delete => format!("DELETE FROM {table} AS w"),
        };
        format!("{action} WHERE {which}{open} AND {OURS} RETURNING w.{id}::text")
    }

    /// The condition under which a row, which is `w`, is not marked yet.
    fn open(&self) -> Option<String> {
        match &self.mark {
            Mark::Status(column) => Some(format!("w.{} IS DISTINCT FROM 2", ident(column))),
            Mark::Delete => None,
        }
    }

    /// For each of some ids whether its row is there and not marked, and for each of their
    /// transactions whether it is visible: in one snapshot.
    fn why_sql(&self, of: &IdType) -> String {
        let (table, id) = (self.table.quoted(), ident(&self.id));
        let IdType(kind) = of;
        let open = self.open().map(|open| format!(" AND {open}")).unwrap_or_default();
        // The stream names the low 32 bits of a transaction: the nearest one that has them is meant. It
        // may be ahead of the snapshot, when nothing after it is visible yet.
        format!(
            "WITH now AS MATERIALIZED (SELECT pg_current_snapshot() AS snapshot,
                pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next)
             SELECT EXISTS (SELECT FROM {table} AS w WHERE w.{id} = asked.id::{kind}{open}),
                asked.xid IS NULL OR pg_visible_in_snapshot((next
                    + ((asked.xid - next + 2147483648) & 4294967295) - 2147483648)::text::xid8, snapshot),
                {OURS}
             FROM now, unnest($1::text[], $5::bigint[]) WITH ORDINALITY AS asked(id, xid, place)
             ORDER BY place"
        )
    }
}

impl Store {
    /// Whether the rows of a table may be marked: the line that an administrator must run, where they may
    /// not.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn missing_grant(&self, table: &MarkedTable) -> Result<Option<String>, StoreError> {
        let sql = "SELECT has_column_privilege($1::text::regclass, $2, 'UPDATE')
                AND (has_table_privilege($1::text::regclass, 'DELETE') OR NOT $3), session_user::text";
        let quoted = table.table.quoted();
        let (column, delete) = match &table.mark {
            Mark::Status(column) => (column, false),
            Mark::Delete => (&table.id, true),
        };
        let params: [Param<'_>; 3] =
            [(&quoted, Type::TEXT), (column, Type::TEXT), (&delete, Type::BOOL)];
        let row = self.one("looking up the right to mark rows", sql, &params).await?;
        let (may, role): (bool, String) = (row.get(0)?, row.get(1)?);
        Ok((!may).then(|| format!("GRANT {} ON {quoted} TO {}", table.rights(), ident(&role))))
    }

    /// Prepares the session for marking: it waits for nobody for long, and finds rows by their index
    /// whatever the statistics of a new table say.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn prepare_to_mark(&self) -> Result<(), StoreError> {
        let sql = format!("SET lock_timeout = '{LOCK_TIMEOUT}'; SET enable_seqscan = off");
        self.run(WHAT, &sql).await
    }

    /// The type of a table's ids.
    ///
    /// # Errors
    /// [`StoreError`]: among others where the table or the column is not there.
    pub async fn id_type(&self, table: &MarkedTable) -> Result<IdType, StoreError> {
        let sql = "SELECT format_type(atttypid, NULL) FROM pg_attribute
            WHERE attrelid = $1::text::regclass AND attname = $2 AND NOT attisdropped";
        let quoted = table.table.quoted();
        let params: [Param<'_>; 2] = [(&quoted, Type::TEXT), (&table.id, Type::TEXT)];
        Ok(IdType(self.one("looking up the type of the ids", sql, &params).await?.get(0)?))
    }

    /// Marks rows. Gives for each whether it is done: marked, or deleted by somebody else. One that is
    /// not is locked by somebody, or can't be seen yet, or the slot is no longer ours.
    ///
    /// # Errors
    /// [`StoreError`]: what is done is not known.
    pub async fn mark_published(
        &self,
        table: &MarkedTable,
        of: &IdType,
        rows: &[MarkedRow],
        holder: Holder<'_>,
    ) -> Result<Vec<bool>, StoreError> {
        let ids: Vec<&str> = rows.iter().map(|row| &*row.id).collect();
        let marked = match self.mark_ids(&table.sql(of, false), &ids, holder).await {
            // Somebody holds one of them: the others are not to wait.
            Err(error) if error.code() == Some("55P03") => {
                self.mark_ids(&table.sql(of, true), &ids, holder).await?
            }
            marked => marked?,
        };
        let mut done: Vec<bool> = rows.iter().map(|row| marked.contains(&row.id)).collect();
        if done.iter().all(|done| *done) {
            return Ok(done);
        }
        let places: Vec<usize> = (0..rows.len()).filter(|place| !done[*place]).collect();
        let left: Vec<&MarkedRow> = places.iter().map(|place| &rows[*place]).collect();
        let gone = self.are_gone(table, of, &left, holder).await?;
        for (place, gone) in places.into_iter().zip(gone) {
            done[place] = gone;
        }
        Ok(done)
    }

    async fn mark_ids(
        &self,
        sql: &str,
        ids: &[&str],
        holder: Holder<'_>,
    ) -> Result<HashSet<String>, StoreError> {
        let walsender = holder.walsender.cast_signed();
        let rows = self.rows(WHAT, sql, &holder.params(&ids, &walsender)).await?;
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// Whether rows that were not marked are gone, or were marked before.
    async fn are_gone(
        &self,
        table: &MarkedTable,
        of: &IdType,
        rows: &[&MarkedRow],
        holder: Holder<'_>,
    ) -> Result<Vec<bool>, StoreError> {
        let ids: Vec<&str> = rows.iter().map(|row| &*row.id).collect();
        let xids: Vec<Option<i64>> = rows.iter().map(|row| row.xid.map(i64::from)).collect();
        let walsender = holder.walsender.cast_signed();
        let ids = &*ids;
        let mut params = holder.params(&ids, &walsender).to_vec();
        params.push((&xids, Type::INT8_ARRAY));
        let what = "looking for rows that could not be marked";
        let answers = self.rows(what, &table.why_sql(of), &params).await?;
        let gone = |answer: &Fields| -> Result<bool, StoreError> {
            let (waits, visible, ours): (bool, bool, bool) =
                (answer.get(0)?, answer.get(1)?, answer.get(2)?);
            Ok(ours && visible && !waits)
        };
        answers.iter().map(gone).collect()
    }
}

impl<'a> Holder<'a> {
    /// The first four parameters of both statements.
    fn params(&'a self, ids: &'a &'a [&'a str], walsender: &'a i32) -> [Param<'a>; 4] {
        [
            (ids, Type::TEXT_ARRAY),
            (&self.slot, Type::TEXT),
            (walsender, Type::INT4),
            (&self.epoch, Type::INT8),
        ]
    }
}
