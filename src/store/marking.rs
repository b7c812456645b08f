//! Marking: rows whose messages have their receipt get their status, or are deleted.
//!
//! Rows go by the oid of their table and by their id. Only while the slot is ours on this very
//! server: after a failover ids may be given to other rows. What was not found is looked up in a
//! second statement, since a row that cannot be seen yet (its commit waits for a synchronous standby)
//! is not one that was deleted.

use std::collections::HashSet;

use tokio_postgres::types::Type;

use super::connect::Store;
use super::error::StoreError;
use super::name::{TableName, ident, literal};
use super::query::{Fields, Param};

const WHAT: &str = "marking what is published";
/// How long a row that somebody else has locked is waited for. Shorter than the server's own
/// `deadlock_timeout` (1 s): should both wait for each other, it is not the other one that fails.
const LOCK_TIMEOUT: &str = "400ms";

/// Whether the slot `$2` is ours, on this server: process `$3` has it, under the epoch `$4`.
pub(super) const HELD: &str =
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

/// A table as it is now, whatever it is called.
pub struct Target {
    pub(super) oid: u32,
    /// Its name, quoted.
    pub(super) table: String,
    /// The type of its ids.
    pub(super) kind: String,
}

impl MarkedTable {
    /// The rights that it takes beside SELECT, for a GRANT. Rows cannot be locked without the right to
    /// update one of their columns.
    #[must_use]
    pub fn rights(&self) -> String {
        match &self.mark {
            // The last two are for dead letters.
            Mark::Status(column) => format!("UPDATE ({}, retry, expires_at)", ident(column)),
            Mark::Delete => format!("DELETE, UPDATE ({})", ident(&self.id)),
        }
    }

    /// The statement. With `skip_locked` it passes over rows that somebody else has locked.
    fn sql(&self, target: &Target, skip_locked: bool) -> String {
        let (Target { table, .. }, id) = (target, ident(&self.id));
        let (asked, ours) = (self.asked(target), target.is_ours());
        let which = if skip_locked {
            let lock = match self.mark {
                Mark::Status(_) => "NO KEY UPDATE",
                Mark::Delete => "UPDATE",
            };
            format!(
                "{asked} AND w.{id} = ANY (ARRAY(
                    SELECT w.{id} FROM {table} AS w WHERE {asked} FOR {lock} SKIP LOCKED))"
            )
        } else {
            asked
        };
        let action = match &self.mark {
            Mark::Status(column) => format!("UPDATE {table} AS w SET {} = 2", ident(column)),
            Mark::Delete => format!("DELETE FROM {table} AS w"),
        };
        format!("{action} WHERE {which} AND {ours} RETURNING format('%s', w.{id})")
    }

    /// The condition under which a row, which is `w`, is asked for and not marked yet: found by the index,
    /// and by how its id prints, since what is equal (`a` and `A` to some types) need not be the same.
    fn asked(&self, target: &Target) -> String {
        let (id, Target { kind, .. }) = (ident(&self.id), target);
        let open = match &self.mark {
            Mark::Status(column) => format!(" AND w.{} IS DISTINCT FROM 2", ident(column)),
            Mark::Delete => String::new(),
        };
        format!(
            "w.{id} = ANY ($1::text[]::{kind}[]) AND format('%s', w.{id}) COLLATE \"C\" = ANY ($1::text[]){open}"
        )
    }

    /// For each of some ids whether its row is there and not marked, and for each of their
    /// transactions whether it is visible, in one snapshot; and whether the answer counts. Without a target
    /// the table with this oid is gone.
    fn why_sql(&self, target: Option<&Target>, oid: u32) -> String {
        let (there, ours) = match target {
            Some(target) => {
                let (Target { table, kind, .. }, id) = (target, ident(&self.id));
                let there = format!(
                    "SELECT format('%s', w.{id}) FROM {table} AS w WHERE {}
                     UNION ALL SELECT asked.id FROM unnest($1::text[]) AS asked(id)
                        WHERE format('%s', asked.id::{kind}) COLLATE \"C\" <> asked.id",
                    self.asked(target)
                );
                (there, target.is_ours())
            }
            None => {
                let gone = format!("NOT EXISTS (SELECT FROM pg_class WHERE oid = {oid})");
                ("SELECT ''::text WHERE false".to_owned(), format!("{gone} AND {HELD}"))
            }
        };
        // The stream names the low 32 bits of a transaction: the nearest one that has them is meant. It
        // may be ahead of the snapshot, when nothing after it is visible yet.
        format!(
            "WITH now AS MATERIALIZED (SELECT pg_current_snapshot() AS snapshot,
                pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next, {ours} AS ours),
             there(id) AS MATERIALIZED ({there})
             SELECT EXISTS (SELECT FROM there WHERE there.id COLLATE \"C\" = asked.id COLLATE \"C\"),
                asked.xid IS NULL OR pg_visible_in_snapshot((next
                    + ((asked.xid - next + 2147483648) & 4294967295) - 2147483648)::text::xid8, snapshot),
                ours
             FROM now, unnest($1::text[], $5::bigint[]) WITH ORDINALITY AS asked(id, xid, place)
             ORDER BY place"
        )
    }
}

impl Target {
    /// Whether the slot is ours, on this server, and the name that of the table that the rows are in.
    fn is_ours(&self) -> String {
        format!("to_regclass({})::oid = {} AND {HELD}", literal(&self.table), self.oid)
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

    /// Whether the server takes the statements: types of ids that can't be compared, or a view, it does not.
    ///
    /// # Errors
    /// [`StoreError`]: why not.
    pub async fn check_marks(&self, table: &MarkedTable) -> Result<(), StoreError> {
        let quoted = table.table.quoted();
        let sql = "SELECT $1::text::regclass::oid";
        let oid = self.one(WHAT, sql, &[(&quoted, Type::TEXT)]).await?.get(0)?;
        let Some(target) = self.target(table, oid).await? else { return Ok(()) };
        let types = [Type::TEXT_ARRAY, Type::TEXT, Type::INT4, Type::INT8];
        for skip_locked in [false, true] {
            let prepared =
                self.client().prepare_typed(&table.sql(&target, skip_locked), &types).await;
            prepared.map_err(|error| StoreError::from_client(WHAT, &error))?;
        }
        Ok(())
    }

    /// Another relay that reads a table: what one marks, the other does not find should its slot be lost.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn other_reader(
        &self,
        slot: &str,
        table: &TableName,
    ) -> Result<Option<String>, StoreError> {
        let sql = "SELECT slot FROM walpost.relay WHERE slot <> $1
            AND jsonb_exists(guard->'found'->'tables', $2) ORDER BY slot LIMIT 1";
        let name = table.to_string();
        let params: [Param<'_>; 2] = [(&slot, Type::TEXT), (&name, Type::TEXT)];
        let row = self.first("looking for other relays of the table", sql, &params).await?;
        row.map(|row| row.get(0)).transpose()
    }

    /// Whether rows are found by an index: without one the whole table is read for each batch.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn has_index(&self, table: &MarkedTable) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]
            WHERE indrelid = $1::text::regclass AND attname = $2 AND indisvalid AND indpred IS NULL)";
        let quoted = table.table.quoted();
        let params: [Param<'_>; 2] = [(&quoted, Type::TEXT), (&table.id, Type::TEXT)];
        self.one("looking for an index of the ids", sql, &params).await?.get(0)
    }

    /// The table with this oid; none: it is gone.
    ///
    /// # Errors
    /// [`StoreError`]: among others where the column is not there.
    pub async fn target(
        &self,
        table: &MarkedTable,
        oid: u32,
    ) -> Result<Option<Target>, StoreError> {
        // Without -1 a `char(26)` would be a `character`, which is one letter.
        let sql = "SELECT format('%I.%I', nspname, relname), (SELECT format_type(atttypid, -1)
                FROM pg_attribute WHERE attrelid = pg_class.oid AND attname = $2 AND NOT attisdropped)
            FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE pg_class.oid = $1";
        let params: [Param<'_>; 2] = [(&oid, Type::OID), (&table.id, Type::TEXT)];
        let Some(row) = self.first("looking up the type of the ids", sql, &params).await? else {
            return Ok(None);
        };
        let name: String = row.get(0)?;
        let cause = || format!("{name} has no column {} any more", table.id);
        let kind: Option<String> = row.get(1)?;
        let kind = kind.ok_or_else(|| StoreError::Answer { what: WHAT, cause: cause() })?;
        Ok(Some(Target { oid, table: name, kind }))
    }

    /// Marks rows of the table with this oid. Gives for each whether it is done: marked, or deleted by
    /// somebody else. One that is not is locked by somebody, or can't be seen yet, or the slot is no longer
    /// ours.
    ///
    /// # Errors
    /// [`StoreError`]: what is done is not known, unless it [is locked](StoreError::is_locked): the table,
    /// or what belongs to a row.
    pub async fn mark_published(
        &self,
        table: &MarkedTable,
        (target, oid): (Option<&Target>, u32),
        rows: &[MarkedRow],
        holder: Holder<'_>,
    ) -> Result<Vec<bool>, StoreError> {
        let ids: Vec<&str> = rows.iter().map(|row| &*row.id).collect();
        let marked = match target {
            Some(target) => match self.mark_ids(&table.sql(target, false), &ids, holder).await {
                // Somebody holds one of them: the others are not to wait.
                Err(error) if error.is_locked() => {
                    self.mark_ids(&table.sql(target, true), &ids, holder).await?
                }
                marked => marked?,
            },
            None => HashSet::new(),
        };
        let mut done: Vec<bool> = rows.iter().map(|row| marked.contains(&row.id)).collect();
        if done.iter().all(|done| *done) {
            return Ok(done);
        }
        let places: Vec<usize> = (0..rows.len()).filter(|place| !done[*place]).collect();
        let left: Vec<&MarkedRow> = places.iter().map(|place| &rows[*place]).collect();
        let gone = self.are_gone(&table.why_sql(target, oid), &left, holder).await?;
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
        sql: &str,
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
        let answers = self.rows(what, sql, &params).await?;
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
