//! What the outbox table itself says of a dead letter, where its rows have a status: as the predecessor does, -1, the
//! number of attempts, and when the row may go.

use std::collections::BTreeSet;

use crate::store::connect::Store;
use crate::store::error::StoreError;
use crate::store::marking::{Mark, MarkedTable, Target};
use crate::store::name::{ident, literal};

/// Tables whose rows say what became of them.
#[derive(Default)]
pub(super) struct DeadMarks(Vec<DeadMark>);

struct DeadMark {
    target: Target,
    id: String,
    status: String,
}

impl Store {
    /// Those of some tables, by oid and name, whose rows say what became of them: only those of the settings.
    pub(super) async fn dead_marks<'a>(
        &self,
        marks: &[MarkedTable],
        tables: impl Iterator<Item = (u32, &'a str)>,
    ) -> Result<DeadMarks, StoreError> {
        let mut found = DeadMarks::default();
        if marks.is_empty() {
            return Ok(found);
        }
        for (oid, name) in tables.collect::<BTreeSet<_>>() {
            let is_it = |table: &&MarkedTable| {
                let schema = name.strip_prefix(table.table.schema.as_str());
                schema.and_then(|rest| rest.strip_prefix('.')) == Some(table.table.name.as_str())
            };
            let Some(table) = marks.iter().find(is_it) else { continue };
            let Mark::Status(status) = &table.mark else { continue };
            if let Some(target) = self.target(table, oid).await? {
                let (id, status) = (table.id.clone(), status.clone());
                found.0.push(DeadMark { target, id, status });
            }
        }
        Ok(found)
    }
}

impl DeadMarks {
    /// Whether there is nothing to mark.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Parts of a WITH clause: rows that `from` says are dead, and that wait, are given up.
    pub(super) fn given_up(&self, from: &str) -> String {
        let set = "retry = row.attempts, expires_at = now() + interval '15 days'";
        self.parts(&format!("(SELECT * FROM {from} WHERE state = 'dead')"), 1, -1, set)
    }

    /// The same: rows that were given up wait again.
    pub(super) fn revived(&self, from: &str) -> String {
        self.parts(from, -1, 1, "")
    }

    /// Rows that somebody else has locked are left.
    fn parts(&self, from: &str, old: i32, new: i32, also: &str) -> String {
        let comma = if also.is_empty() { "" } else { ", " };
        let part = |(nth, mark): (usize, &DeadMark)| {
            let DeadMark { target: Target { oid, table, kind }, id, status } = mark;
            let (id, status, name) = (ident(id), ident(status), literal(table));
            // By the index, and by how the id prints: what is equal need not be the same.
            format!(
                ", marked_{nth} AS (UPDATE {table} AS w SET {status} = {new}{comma}{also} FROM (
                    SELECT locked.{id} AS place, gone.attempts FROM {from} AS gone JOIN {table} AS locked
                        ON locked.{id} = gone.message_id::{kind}
                        AND format('%s', locked.{id}) COLLATE \"C\" = gone.message_id
                    WHERE gone.table_oid = {oid} AND to_regclass({name})::oid = {oid} AND locked.{status} = {old}
                    FOR NO KEY UPDATE OF locked SKIP LOCKED) AS row
                WHERE w.{id} = row.place AND w.{status} = {old})"
            )
        };
        self.0.iter().enumerate().map(part).collect()
    }
}
