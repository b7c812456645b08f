//! The set-up as a SQL script, for whoever has the rights that walpost's role should not have.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::misfit::Misfit;
use super::plan::{Plan, PublicationStep, judge};
use super::{SetupError, SetupSettings, create_slot_sql, inspect};
use crate::config::Failover;
use crate::store::connect::{ConnectSettings, Store};
use crate::store::error::StoreError;
use crate::store::name::{ident, literal, one_line, quoted_list};
use crate::store::publication;
use crate::store::schema;
use crate::store::server::{RoleFacts, Writer};

/// The role that walpost is to log in as.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Role {
    name: String,
    /// None: not there, or not known.
    facts: Option<RoleFacts>,
    database: String,
}

/// All that the script is written from.
#[derive(Debug)]
struct Contents<'a> {
    settings: &'a SetupSettings,
    plan: Plan,
    misfits: Vec<Misfit>,
    role: Role,
    writer: Writer,
    /// Why the database could not be asked what it has already.
    blind: Option<String>,
}

/// The SQL that [`ensure`](super::ensure) would run, and that the role needs, as a script for
/// `psql`. Nothing is changed. Where PostgreSQL does not answer or refuses the login (the role may
/// be one of the things that are missing), it is the script for an empty database, and says so.
///
/// # Errors
/// [`SetupError::Store`] where the url is broken, or a query fails.
pub async fn dry_run(
    connect: &ConnectSettings,
    settings: &SetupSettings,
) -> Result<String, SetupError> {
    let contents = match Store::connect(connect).await {
        Ok(store) => seeing(&store, settings).await?,
        Err(error @ (StoreError::Url | StoreError::Tls { .. } | StoreError::TooOld(_))) => {
            return Err(error.into());
        }
        Err(error) => {
            let (user, database) = connect.user_and_database();
            let name = if user == "postgres" { "walpost".to_owned() } else { user };
            Contents {
                settings,
                plan: Plan::from_nothing(settings),
                misfits: Vec::new(),
                role: Role { name, facts: None, database },
                writer: Writer::Missing,
                blind: Some(error.to_string()),
            }
        }
    };
    Ok(write(&contents))
}

/// The contents for a database that can be asked.
async fn seeing<'a>(
    store: &Store,
    settings: &'a SetupSettings,
) -> Result<Contents<'a>, StoreError> {
    let findings = inspect(store, settings).await?;
    let (plan, misfits) = judge(&findings, settings);
    let login = store.role().await?;
    let database = findings.server.database.clone();
    let role = if login.superuser {
        // More rights than walpost should have: the script offers a role of its own.
        let facts = store.role_named("walpost").await?;
        Role { name: "walpost".to_owned(), facts, database }
    } else {
        Role { name: login.name.clone(), facts: Some(login), database }
    };
    let writer = store.writer().await?;
    Ok(Contents { settings, plan, misfits, role, writer, blind: None })
}

/// The script.
fn write(contents: &Contents<'_>) -> String {
    let mut out = format!(
        "-- walpost init --dry-run: nothing has been changed.\n\
         -- To be run by a superuser, or the administrator of a managed server, in database {}.\n",
        one_line(&contents.role.database)
    );
    if let Some(reason) = &contents.blind {
        let reason = one_line(reason);
        out += &format!(
            "-- What is there already could not be seen ({reason}).\n\
             -- The script is for a database that has nothing of walpost yet.\n"
        );
    }
    for misfit in &contents.misfits {
        out += &format!("-- MEND FIRST: {}\n", one_line(&misfit.to_string()));
    }
    for note in &contents.plan.notes {
        out += &format!("-- Note: {}\n", one_line(note));
    }
    write_schema(&mut out, contents);
    write_publication(&mut out, contents);
    write_role(&mut out, contents);
    write_writer(&mut out, contents);
    write_slot(&mut out, contents);
    out
}

fn write_schema(out: &mut String, contents: &Contents<'_>) {
    match contents.plan.upgrade_from {
        Some(version) => {
            out.push_str("\n-- The schema walpost.\n");
            out.push_str(&schema::upgrade_sql(version));
        }
        None => out.push_str("\n-- The schema walpost exists.\n"),
    }
}

fn write_publication(out: &mut String, contents: &Contents<'_>) {
    let name = &contents.settings.publication;
    let sql = match &contents.plan.publication {
        PublicationStep::Nothing => {
            let _ = writeln!(out, "\n-- The publication {} exists.", one_line(name));
            return;
        }
        PublicationStep::Create(tables) => publication::create_sql(name, tables),
        PublicationStep::Add(tables) => publication::add_sql(name, tables),
    };
    let _ = writeln!(out, "\n-- The publication.\n{sql};");
}

/// The role with the rights that a relay needs, and no more.
fn write_role(out: &mut String, contents: &Contents<'_>) {
    let Role { name, facts, database } = &contents.role;
    let role = ident(name);
    out.push_str(
        "\n-- The role that walpost logs in as, with the rights that it needs. Managed servers have other ways to\n\
         -- wal_level = logical and to REPLICATION:\n\
         -- Amazon RDS and Aurora: the parameter rds.logical_replication = 1; without the attribute, but with\n\
         --   GRANT rds_replication TO the role.\n\
         -- Google Cloud SQL: the flag cloudsql.logical_decoding = on; the attribute is given by postgres, a member\n\
         --   of cloudsqlsuperuser.\n\
         -- Azure flexible server: the server parameter wal_level = logical; the attribute is given by the server's\n\
         --   administrator, a member of azure_pg_admin.\n",
    );
    match facts {
        None => {
            let _ = writeln!(
                out,
                "-- It has no password yet; in psql: \\password {}\n\
                 CREATE ROLE {role} LOGIN REPLICATION;",
                one_line(name)
            );
        }
        Some(facts) if !facts.replication && !facts.superuser => {
            let _ = writeln!(out, "ALTER ROLE {role} REPLICATION;");
        }
        Some(_) => {
            let _ = writeln!(out, "-- Role {} exists.", one_line(name));
        }
    }
    let tables = &contents.settings.tables;
    let mut schemas: BTreeSet<String> = tables.iter().map(|table| ident(&table.schema)).collect();
    schemas.insert(ident("walpost"));
    let schemas = schemas.into_iter().collect::<Vec<_>>().join(", ");
    let _ = writeln!(
        out,
        "GRANT CONNECT ON DATABASE {} TO {role};\n\
         GRANT USAGE ON SCHEMA {schemas} TO {role};\n\
         GRANT SELECT ON walpost.schema_version TO {role};\n\
         -- DELETE is for outbox.retention.\n\
         GRANT SELECT, DELETE ON {} TO {role};\n\
         GRANT SELECT, INSERT, UPDATE ON walpost.relay TO {role};\n\
         GRANT SELECT, INSERT, UPDATE, DELETE ON walpost.undelivered TO {role};\n\
         GRANT SELECT, INSERT, UPDATE, DELETE ON walpost.inbox TO {role};\n\
         -- Where an outbox table has row-level security: ALTER ROLE {role} BYPASSRLS;",
        ident(database),
        quoted_list(tables)
    );
    for marked in &contents.settings.marks {
        let (rights, table) = (marked.rights(), marked.table.quoted());
        let _ = writeln!(out, "-- For outbox.after_publish.\nGRANT {rights} ON {table} TO {role};");
    }
    let _ = writeln!(
        out,
        "-- Optional, to see who holds up a slot: GRANT pg_read_all_stats TO {role};"
    );
}

/// The role for applications. A step of the schema makes it where it can.
fn write_writer(out: &mut String, contents: &Contents<'_>) {
    out.push_str(
        "\n-- Applications publish as members of walpost_writer, which may do that and nothing else:\n\
         --   GRANT walpost_writer TO the application's role;\n",
    );
    if contents.plan.upgrade_from.is_some() || contents.writer == Writer::Ready {
        return;
    }
    if contents.writer == Writer::Missing {
        out.push_str("CREATE ROLE walpost_writer NOLOGIN;\n");
    }
    out.push_str(
        "GRANT USAGE ON SCHEMA walpost TO walpost_writer;\n\
         GRANT INSERT (id, destination, version, key, headers, body, body_bytes, created_at)\n    \
         ON walpost.outbox TO walpost_writer;\n",
    );
}

fn write_slot(out: &mut String, contents: &Contents<'_>) {
    let slot = &contents.settings.slot;
    if !contents.plan.create_slot {
        let _ = writeln!(out, "\n-- The slot {} exists.", one_line(slot));
        if contents.plan.make_failover {
            let _ = writeln!(
                out,
                "-- It is no failover slot. walpost init makes it one, or, on a replication connection:\n\
                 --   ALTER_REPLICATION_SLOT {} (FAILOVER)",
                one_line(&ident(slot))
            );
        }
        return;
    }
    let _ = writeln!(
        out,
        "\n-- The slot, after the publication. This waits until every transaction that is open now,\n\
         -- in any database, has ended. From here on WAL is kept until walpost has sent it: start\n\
         -- walpost soon, or drop the slot again (SELECT pg_drop_replication_slot({})).",
        one_line(&literal(slot)),
    );
    if contents.blind.is_some() && contents.settings.failover == Failover::Auto {
        out.push_str(
            "-- PostgreSQL 17 and later: write 'pgoutput', failover => true, so that standbys have it, too.\n",
        );
    }
    let _ = writeln!(out, "{};", create_slot_sql(slot, contents.plan.failover));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::name::TableName;

    fn settings() -> SetupSettings {
        SetupSettings {
            slot: "walpost".to_owned(),
            publication: "walpost".to_owned(),
            tables: vec![TableName::new("walpost", "outbox")],
            marks: Vec::new(),
            sharding: None,
            failover: Failover::Auto,
        }
    }

    fn contents(settings: &SetupSettings, role: Role) -> Contents<'_> {
        let plan = Plan::from_nothing(settings);
        let writer = Writer::Ready;
        Contents { settings, plan, misfits: Vec::new(), role, writer, blind: None }
    }

    fn role(name: &str, facts: Option<RoleFacts>) -> Role {
        Role { name: name.to_owned(), facts, database: "shop".to_owned() }
    }

    #[test]
    fn everything_comes_in_the_order_that_loses_nothing() {
        let settings = settings();
        let script = write(&contents(&settings, role("relay", None)));
        let places: Vec<_> = [
            "CREATE TABLE walpost.outbox",
            "COMMIT;",
            "CREATE PUBLICATION \"walpost\" FOR TABLE",
            "CREATE ROLE \"relay\" LOGIN REPLICATION;",
            "GRANT CONNECT ON DATABASE \"shop\" TO \"relay\";",
            "GRANT SELECT ON walpost.schema_version TO \"relay\";",
            "GRANT SELECT, DELETE ON \"walpost\".\"outbox\" TO \"relay\";",
            "GRANT SELECT, INSERT, UPDATE ON walpost.relay TO \"relay\";",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON walpost.undelivered TO \"relay\";",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON walpost.inbox TO \"relay\";",
            "SELECT pg_create_logical_replication_slot('walpost', 'pgoutput');",
        ]
        .iter()
        .map(|text| script.find(text).unwrap_or_else(|| panic!("{text} not in\n{script}")))
        .collect();
        assert!(places.is_sorted(), "{places:?}");
    }

    #[test]
    fn a_role_that_exists_is_not_made_again() {
        let settings = settings();
        let facts = |replication| {
            Some(RoleFacts { name: "relay".to_owned(), superuser: false, replication })
        };
        let script = write(&contents(&settings, role("relay", facts(false))));
        assert!(script.contains("ALTER ROLE \"relay\" REPLICATION;"));
        let script = write(&contents(&settings, role("relay", facts(true))));
        let says = |words: &str| script.lines().any(|line| line.starts_with(words));
        assert!(!says("CREATE ROLE") && !says("ALTER ROLE"), "{script}");
    }

    #[test]
    fn what_the_writers_role_lacks_is_given_to_it() {
        let settings = settings();
        let mut contents = contents(&settings, role("relay", None));
        let made = "\nCREATE ROLE walpost_writer NOLOGIN;";
        let given = "\n    ON walpost.outbox TO walpost_writer;";
        contents.plan.upgrade_from = None;
        for (writer, missing, lacking) in [
            (Writer::Ready, false, false),
            (Writer::NoRights, false, true),
            (Writer::Missing, true, true),
        ] {
            contents.writer = writer;
            let script = write(&contents);
            assert_eq!(
                (script.contains(made), script.contains(given)),
                (missing, lacking),
                "{writer:?}"
            );
        }
    }

    #[test]
    fn a_failover_slot_is_made_where_it_can_be() {
        let settings = settings();
        let mut contents = contents(&settings, role("relay", None));
        let made = "SELECT pg_create_logical_replication_slot('walpost', 'pgoutput');";
        assert!(write(&contents).contains(made));
        contents.blind = Some("no answer".to_owned());
        assert!(write(&contents).contains("-- PostgreSQL 17 and later: write"));
        contents.blind = None;
        contents.plan.failover = true;
        let made = "replication_slot('walpost', 'pgoutput', failover => true);";
        assert!(write(&contents).contains(made));
        (contents.plan.create_slot, contents.plan.make_failover) = (false, true);
        let mended = "--   ALTER_REPLICATION_SLOT \"walpost\" (FAILOVER)";
        assert!(write(&contents).contains(mended));
    }

    #[test]
    fn no_name_ends_a_comment() {
        let mut settings = settings();
        settings.slot = "s\nDROP TABLE a; --".to_owned();
        settings.publication = "p\nDROP TABLE b; --".to_owned();
        let mut contents = contents(&settings, role("r\nDROP TABLE c; --", None));
        contents.misfits = vec![Misfit::NoInserts(settings.publication.clone(), String::new())];
        contents.blind = Some("x\nDROP TABLE d; --".to_owned());
        contents.plan.publication = PublicationStep::Nothing;
        (contents.plan.create_slot, contents.plan.make_failover) = (false, true);
        for line in write(&contents).lines().filter(|line| line.starts_with("DROP")) {
            // Only within the quotes of an identifier.
            assert!(line.starts_with("DROP TABLE c; --\""), "{line}");
        }
    }
}
