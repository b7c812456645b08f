//! Which rows of an outbox table wait: the condition, in SQL.
//!
//! Rows of `walpost.outbox` carry their transaction's id, so that `pg_visible_in_snapshot` says exactly
//! which of them the certified snapshot covers. Other tables have only `xmin`, which may be that of a
//! subtransaction or of a later update: there everything that began at or after the snapshot's own xmin
//! waits, which repeats some rows rather than missing one.

use std::fmt::Write as _;

use super::name::{TableName, ident, literal};

/// An outbox table and the columns that tell which of its rows wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxTable {
    /// The table.
    pub table: TableName,
    /// The message id.
    pub id: Option<String>,
    /// When the row was made: rows are published in this order.
    pub created_at: Option<String>,
    /// Of type `xid8`, the inserting transaction; none: `xmin` must do.
    pub xid: Option<String>,
    /// Of layout `django`: 1 is a row that waits, 2 one that was published.
    pub status: Option<String>,
    /// The condition under which a row, which is `w`, is this relay's share; none: every row is.
    pub share: Option<String>,
}

/// The two snapshots between which rows wait, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Between {
    /// What is visible in it is delivered; none: nothing is known to be.
    pub certified: Option<String>,
    /// What is not visible in it comes by the stream; none: everything that is committed waits.
    pub exported: Option<String>,
}

/// A transaction id of 32 bits as the latest of 64 bits that has these low ones.
fn xmin64() -> &'static str {
    "((SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint)
        - (((SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint) - w.xmin::text::bigint)
            & 4294967295))"
}

impl OutboxTable {
    /// The condition under which the certified snapshot covers a row, which is `w`: it is delivered.
    #[must_use]
    pub fn covered(&self, certified: &str) -> String {
        let snapshot = literal(certified);
        match &self.xid {
            Some(xid) => {
                format!("coalesce(pg_visible_in_snapshot(w.{}, {snapshot}), false)", ident(xid))
            }
            None => {
                format!("{} < pg_snapshot_xmin({snapshot}::pg_snapshot)::text::bigint", xmin64())
            }
        }
    }

    /// The condition under which a row, which is `w`, waits.
    #[must_use]
    pub fn waiting(&self, between: &Between) -> String {
        let mut sql = String::from("true");
        if let Some(share) = &self.share {
            // Failing to write into a String is impossible.
            let _ = write!(sql, " AND ({share})");
        }
        if let Some(status) = &self.status {
            let _ = write!(sql, " AND w.{} = 1", ident(status));
        }
        if let Some(certified) = &between.certified {
            let _ = write!(sql, " AND NOT ({})", self.covered(certified));
        }
        if let (Some(exported), Some(xid)) = (&between.exported, &self.xid) {
            let (xid, exported) = (ident(xid), literal(exported));
            // An id that no transaction has had yet came with a dump, and is in no snapshot. While the rows
            // are read the ids go on and pass it: then `xmin` shows that the row was there before.
            let _ = write!(
                sql,
                " AND (coalesce(pg_visible_in_snapshot(w.{xid}, {exported}), true)
                    OR w.{xid} >= (SELECT pg_snapshot_xmax(pg_current_snapshot()))
                    OR pg_visible_in_snapshot({}::text::xid8, {exported}))",
                xmin64()
            );
        }
        sql
    }
}
