//! The guard: what the publication and the outbox tables are, so that a change of them shows even when
//! it was undone before anybody looked.
//!
//! A slot passes over rows of a table that is not published when they are decoded. A table that is taken
//! out of the publication and added again has another entry there than before; a table that is dropped
//! and made anew, or swapped by a rename, has another oid.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tokio_postgres::types::Type;

use super::connect::Store;
use super::error::StoreError;
use super::name::{TableName, one_line};
use super::query::Param;

/// What the publication and the tables were at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// The publication's name.
    #[serde(default)]
    name: String,
    /// Oid and xmin of the publication.
    publication: String,
    /// By name.
    tables: BTreeMap<String, GuardedTable>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct GuardedTable {
    oid: u32,
    /// Oids and xmins of the entries in the publication that cover it.
    entries: String,
    /// Whether one of them is of this very table. PostgreSQL does not make it unlogged then.
    #[serde(default)]
    named: bool,
    /// The files of the table and its partitions: a table that is made unlogged gets another one.
    files: BTreeMap<u32, u32>,
}

/// The guard as it is kept in `walpost.relay`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptGuard {
    /// What was found.
    pub found: Guard,
    /// The guard had changed, and transactions older than this id were open then: what they insert may
    /// be passed over by the slot. It is recovered when they have ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsettled: Option<u64>,
    /// How many bytes the slot had decoded when a snapshot was last certified: a slot that was dropped
    /// and made again begins at none.
    #[serde(default)]
    pub decoded: u64,
    /// Tables that were added: what the certified snapshot covers is not delivered of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fresh: Vec<String>,
}

/// What has become of the publication and the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They are what they were.
    Same,
    /// In a way that is nobody's fault and may have cost rows: a table was rewritten and may have been
    /// unlogged meanwhile, or was added, and transactions that are open may have inserted before.
    Recover {
        /// What has changed.
        why: String,
        /// Whether transactions that are open now may have inserted what the slot passes over.
        unsettled: bool,
    },
    /// In a way that may have cost rows, and that an operator must know of.
    Stop(String),
}

impl KeptGuard {
    /// As it is kept.
    pub(super) fn to_json(&self) -> Result<String, StoreError> {
        serde_json::to_string(self)
            .map_err(|error| StoreError::Answer { what: WHAT, cause: error.to_string() })
    }
}

impl Guard {
    /// The tables that were not there `before`.
    #[must_use]
    pub fn added(&self, before: &Guard) -> Vec<String> {
        let names = self.tables.keys();
        names.filter(|name| !before.tables.contains_key(*name)).cloned().collect()
    }

    /// The tables' names and oids: a table that is renamed keeps its own.
    #[must_use]
    pub fn oids(&self) -> Vec<(String, u32)> {
        self.tables.iter().map(|(name, table)| (name.clone(), table.oid)).collect()
    }

    /// The oid of the publication, if it was the one of this name that was looked at.
    #[must_use]
    pub fn oid_of(&self, publication: &str) -> Option<&str> {
        let (oid, _) = self.publication.split_once('/')?;
        (self.name == publication).then_some(oid)
    }

    /// What has become of what was found `before`.
    #[must_use]
    pub fn since(&self, before: &Guard, publication: &str) -> Verdict {
        let publication = one_line(publication);
        if self.publication != before.publication {
            return Verdict::Stop(format!("publication {publication} was altered or made anew"));
        }
        let mut recover = None;
        for (name, now) in &self.tables {
            let shown = one_line(name);
            let Some(before) = before.tables.get(name) else {
                recover = Some((format!("table {shown} was added"), true));
                continue;
            };
            if now.oid != before.oid {
                return Verdict::Stop(format!("table {shown} is another one than before"));
            }
            if now.entries != before.entries {
                return Verdict::Stop(format!(
                    "table {shown} was taken out of publication {publication} and added again"
                ));
            }
            let rewritten = |(oid, file): (&u32, &u32)| {
                let may_be_unlogged = !(now.named && *oid == now.oid);
                may_be_unlogged && before.files.get(oid).is_some_and(|before| before != file)
            };
            if now.files.iter().any(rewritten) {
                recover.get_or_insert((format!("table {shown} was rewritten"), false));
            }
        }
        recover.map_or(Verdict::Same, |(why, unsettled)| Verdict::Recover { why, unsettled })
    }
}

const WHAT: &str = "looking at the publication and the outbox tables";

impl Store {
    /// What the publication and the tables are; none: there is no such publication, or a table is not
    /// there. The catalogs are read, in one statement, so that no right is needed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn guard(
        &self,
        publication: &str,
        tables: &[TableName],
    ) -> Result<Option<Guard>, StoreError> {
        // Whole schemas are published from PostgreSQL 15 on.
        let schemas = if self.version() >= 150_000 {
            "UNION ALL SELECT n.oid, n.xmin FROM pg_publication_namespace n
                WHERE n.pnpubid = p.oid AND n.pnnspid IN (SELECT pc.relnamespace FROM pg_class pc
                    WHERE pc.oid IN (SELECT relid FROM pg_partition_ancestors(c.oid)
                        UNION SELECT c.oid))"
        } else {
            ""
        };
        let sql = format!(
            "SELECT jsonb_build_object('name', p.pubname, 'publication', p.oid || '/' || p.xmin, 'tables',
                (SELECT jsonb_object_agg(n.nspname || '.' || c.relname, jsonb_build_object(
                    'oid', c.oid::bigint,
                    'entries', (SELECT coalesce(string_agg(e.oid || '/' || e.xmin, ' ' ORDER BY e.oid), '')
                        FROM (SELECT r.oid, r.xmin FROM pg_publication_rel r
                            WHERE r.prpubid = p.oid AND r.prrelid IN
                                (SELECT relid FROM pg_partition_ancestors(c.oid) UNION SELECT c.oid)
                            {schemas}) AS e),
                    'named', EXISTS (SELECT FROM pg_publication_rel r
                        WHERE r.prpubid = p.oid AND r.prrelid = c.oid),
                    'files', (SELECT coalesce(jsonb_object_agg(f.oid::text, f.relfilenode::bigint), '{{}}')
                        FROM pg_class f WHERE f.oid IN
                            (SELECT relid FROM pg_partition_tree(c.oid) UNION SELECT c.oid))))
                FROM unnest($2::text[], $3::text[]) AS wanted (schema, name)
                    JOIN pg_namespace n ON n.nspname = wanted.schema::name
                    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.name::name))::text
            FROM pg_publication p WHERE p.pubname = $1::text::name"
        );
        let schemas: Vec<&str> = tables.iter().map(|table| table.schema.as_str()).collect();
        let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
        let params: [Param<'_>; 3] =
            [(&publication, Type::TEXT), (&schemas, Type::TEXT_ARRAY), (&names, Type::TEXT_ARRAY)];
        let Some(row) = self.first(WHAT, &sql, &params).await? else { return Ok(None) };
        let guard: Guard = serde_json::from_str(row.get(0)?)
            .map_err(|error| StoreError::Answer { what: WHAT, cause: error.to_string() })?;
        Ok((guard.tables.len() == tables.len()).then_some(guard))
    }

    /// How many bytes the slot has decoded since it was made or its statistics were reset; none: there
    /// are no statistics of it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn decoded(&self, slot: &str) -> Result<Option<u64>, StoreError> {
        let sql = "SELECT total_bytes FROM pg_stat_replication_slots WHERE slot_name = $1";
        let what = "reading the slot's statistics";
        let row = self.first(what, sql, &[(&slot, Type::TEXT)]).await?;
        row.map(|row| row.count(0)).transpose()
    }

    /// The oid of a publication, as text; none: there is none of that name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn publication_oid(&self, name: &str) -> Result<Option<String>, StoreError> {
        let sql = "SELECT oid::text FROM pg_publication WHERE pubname = $1::text::name";
        let row = self.first("reading the publication", sql, &[(&name, Type::TEXT)]).await?;
        row.map(|row| row.get(0)).transpose()
    }

    /// What the slot's row says. None: there is no row, or it is of another epoch.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn kept_guard(
        &self,
        slot: &str,
        epoch: Option<i64>,
    ) -> Result<Option<Option<KeptGuard>>, StoreError> {
        let sql = "SELECT guard::text FROM walpost.relay
            WHERE slot = $1 AND epoch = coalesce($2, epoch)";
        let params: [Param<'_>; 2] = [(&slot, Type::TEXT), (&epoch, Type::INT8)];
        let what = "reading the guard from walpost.relay";
        let Some(row) = self.first(what, sql, &params).await? else { return Ok(None) };
        let guard: Option<&str> = row.get(0)?;
        let guard = guard.map(serde_json::from_str).transpose();
        guard.map(Some).map_err(|error| StoreError::Answer { what, cause: error.to_string() })
    }

    /// The id that the next transaction will get at least, and the oldest that is still running.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn transaction_ids(&self) -> Result<(u64, u64), StoreError> {
        let sql = "SELECT pg_snapshot_xmax(s)::text::bigint, pg_snapshot_xmin(s)::text::bigint
            FROM pg_current_snapshot() AS s";
        let row = self.one("asking for the running transactions", sql, &[]).await?;
        Ok((row.count(0)?, row.count(1)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Table<'a> = (&'a str, u32, &'a str, &'a [(u32, u32)]);

    fn guard(publication: &str, tables: &[Table<'_>]) -> Guard {
        let table = |&(name, oid, entries, files): &Table<'_>| {
            let (entries, files) = (entries.to_owned(), files.iter().copied().collect());
            let named = entries != "all";
            (name.to_owned(), GuardedTable { oid, entries, named, files })
        };
        let tables = tables.iter().map(table).collect();
        Guard { name: "p".to_owned(), publication: publication.to_owned(), tables }
    }

    #[test]
    fn what_may_have_cost_rows_is_seen() {
        let before = guard("1/1", &[("s.a", 10, "5/5", &[(10, 100), (11, 110)])]);
        let cases: [(Guard, &str); 8] = [
            (before.clone(), "Same"),
            (guard("1/2", &[("s.a", 10, "5/5", &[(10, 100)])]), "Stop(\"publication p was altered"),
            (guard("1/1", &[("s.a", 12, "5/5", &[(12, 100)])]), "Stop(\"table s.a is another"),
            (guard("1/1", &[("s.a", 10, "6/6", &[(10, 100)])]), "Stop(\"table s.a was taken out"),
            // It can't have been unlogged; a partition can.
            (guard("1/1", &[("s.a", 10, "5/5", &[(10, 101)])]), "Same"),
            (
                guard("1/1", &[("s.a", 10, "5/5", &[(11, 111)])]),
                "Recover { why: \"table s.a was rewritten",
            ),
            // Partitions come and go.
            (guard("1/1", &[("s.a", 10, "5/5", &[(10, 100), (12, 120)])]), "Same"),
            (
                guard("1/1", &[("s.a", 10, "5/5", &[(10, 100)]), ("s.b", 20, "6/6", &[])]),
                "Recover { why: \"table s.b was added",
            ),
        ];
        for (now, expected) in cases {
            let verdict = format!("{:?}", now.since(&before, "p"));
            assert!(verdict.starts_with(expected), "{verdict} is not {expected}");
        }
        let all = |file| guard("1/1", &[("s.a", 10, "all", &[(10, file)])]);
        let verdict = all(101).since(&all(100), "p");
        assert!(matches!(verdict, Verdict::Recover { unsettled: false, .. }), "{verdict:?}");
        assert_eq!(guard("1/1", &[]).since(&before, "p"), Verdict::Same);
    }
}
