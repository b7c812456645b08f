//! The schema `walpost`: the steps of `sql/`, and which of them a database has taken.

use super::connect::Store;
use super::error::StoreError;
use super::name::literal;

/// A step of `sql/`, as it is compiled in.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// Its number: 1, 2, 3, … without a gap.
    pub version: i32,
    /// Its name, as in the file's.
    pub name: &'static str,
    /// Its statements.
    pub sql: &'static str,
}

/// All steps, in order.
pub const STEPS: &[Step] = &[
    Step { version: 1, name: "schema", sql: include_str!("../../sql/0001_schema.sql") },
    Step { version: 2, name: "outbox", sql: include_str!("../../sql/0002_outbox.sql") },
    Step { version: 3, name: "publish", sql: include_str!("../../sql/0003_publish.sql") },
    Step { version: 4, name: "relay", sql: include_str!("../../sql/0004_relay.sql") },
    Step { version: 5, name: "recovery", sql: include_str!("../../sql/0005_recovery.sql") },
    Step { version: 6, name: "undelivered", sql: include_str!("../../sql/0006_undelivered.sql") },
    Step { version: 7, name: "emit", sql: include_str!("../../sql/0007_emit.sql") },
    Step { version: 8, name: "bodies", sql: include_str!("../../sql/0008_bodies.sql") },
    Step { version: 9, name: "publish_on", sql: include_str!("../../sql/0009_publish_on.sql") },
    Step { version: 10, name: "writer", sql: include_str!("../../sql/0010_writer.sql") },
    Step { version: 11, name: "inbox", sql: include_str!("../../sql/0011_inbox.sql") },
];

/// The schema's advisory lock: the letters of "walpost".
pub const LOCK: i64 = 0x0077_616c_706f_7374;

/// What a database has of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaState {
    /// The steps up to this one; 0: none.
    Version(i32),
    /// It is there, and our role may not read its version.
    Unreadable,
}

/// The newest version that this program knows.
#[must_use]
pub fn newest() -> i32 {
    STEPS.last().map_or(0, |step| step.version)
}

/// The steps after `version`, as one transaction that takes them and records each. It can be run
/// by any role with the rights, from any client, whatever its `search_path`.
#[must_use]
pub fn upgrade_sql(version: i32) -> String {
    let mut sql = format!(
        "BEGIN;\n\
         SET LOCAL search_path = pg_catalog, pg_temp;\n\
         DO $$ BEGIN PERFORM pg_advisory_xact_lock({LOCK}); END $$;\n"
    );
    for step in STEPS.iter().filter(|step| step.version > version) {
        let Step { version, name, sql: statements } = step;
        sql += &format!(
            "\n{statements}\n\
             INSERT INTO walpost.schema_version (version, name) VALUES ({version}, {});\n",
            literal(name)
        );
    }
    sql + "\nCOMMIT;\n"
}

impl Store {
    /// Which steps the database has taken.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn schema(&self) -> Result<SchemaState, StoreError> {
        const WHAT: &str = "reading the version of the schema walpost";
        let there = "SELECT has_schema_privilege(n.oid, 'USAGE')
                AND has_table_privilege(c.oid, 'SELECT')
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = 'walpost' AND c.relname = 'schema_version'";
        match self.first(WHAT, there, &[]).await? {
            None => return Ok(SchemaState::Version(0)),
            Some(row) if !row.get::<bool>(0)? => return Ok(SchemaState::Unreadable),
            Some(_) => {}
        }
        let newest = "SELECT coalesce(max(version), 0) FROM walpost.schema_version";
        Ok(SchemaState::Version(self.one(WHAT, newest, &[]).await?.get(0)?))
    }

    /// Takes the steps after `version`, all or none.
    ///
    /// # Errors
    /// [`StoreError`]: 42501 without CREATE on the database, 42P07 or 42723 where the schema holds
    /// something of a step's name already.
    pub async fn upgrade_schema(&self, version: i32) -> Result<(), StoreError> {
        let done = self.run("installing the schema walpost", &upgrade_sql(version)).await;
        if done.is_err() && !self.is_closed() {
            // The failed transaction is still open, and would refuse whatever comes next.
            self.run("rolling back", "ROLLBACK").await?;
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_numbered_without_a_gap() {
        let versions: Vec<_> = STEPS.iter().map(|step| step.version).collect();
        assert_eq!(versions, (1..=newest()).collect::<Vec<_>>());
    }

    #[test]
    fn every_step_is_recorded_and_only_the_missing_are_taken() {
        let all = upgrade_sql(0);
        for step in STEPS {
            assert!(all.contains(step.sql), "{}", step.name);
        }
        assert_eq!(all.matches("INSERT INTO walpost.schema_version").count(), STEPS.len());
        assert!(!upgrade_sql(2).contains("CREATE TABLE walpost.outbox"));
        assert!(upgrade_sql(2).contains("VALUES (3, 'publish')"));
    }

    #[test]
    fn steps_leave_the_transaction_to_their_runner() {
        for step in STEPS {
            let sql = step.sql.to_uppercase();
            // A database may have another encoding.
            assert!(sql.is_ascii(), "{}", step.name);
            assert!(!sql.contains("COMMIT;") && !sql.contains("BEGIN;"), "{}", step.name);
        }
    }
}
