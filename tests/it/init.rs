//! `walpost init` on a real server.

use std::io::Write as _;
use std::process::{Command, Stdio};

use walpost_testkit::postgres::Database;
use walpost_testkit::walpost::Builder;
use walpost_testkit::{Postgres, until};

use crate::rig::{LONG, walpost};

/// `walpost init` for a server and slot.
fn command(url: String, slot: &str) -> Builder {
    walpost().arguments(["init"]).set("postgres.url", url).set("replication.slot", slot)
}

/// What `walpost init` says when it succeeds.
fn done(init: &Builder) -> String {
    let finished = init.output(LONG);
    assert!(finished.status.success(), "{finished:?}");
    assert_eq!(finished.stderr, "");
    finished.stdout
}

/// The one line with which `walpost init` fails.
fn refused(init: &Builder) -> String {
    let finished = init.output(LONG);
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
    finished.stderr
}

fn of(database: &Database<'_>) -> Builder {
    command(database.url(), database.name())
}

/// For `public.published`, a table of the application's own.
fn for_published(database: &Database<'_>) -> Builder {
    of(database).set("outbox.layout", "django")
}

/// Prepares a database, with a slot of the database's name; gives what was said.
pub fn init(database: &Database<'_>) -> String {
    done(&of(database))
}

/// Every line that is no note begins with this word.
fn all(said: &str, word: &str) -> bool {
    said.lines().all(|line| line.starts_with(word) || line.starts_with("note: "))
}

/// Pipes a script into `psql`, as an administrator would.
pub fn psql(server: &Postgres, database: &str, script: &str) {
    let mut psql = Command::new(server.psql())
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", &server.url(database)])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    psql.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(psql.wait().unwrap().success(), "{script}");
}

#[test]
fn init_makes_everything_once() {
    let database = Postgres::shared().fresh_database();
    let first = init(&database);
    assert_eq!(first.lines().count(), 4, "{first}");
    assert!(all(&first, "created "), "{first}");

    let second = init(&database);
    assert_eq!(second.lines().count(), 4, "{second}");
    assert!(all(&second, "exists "), "{second}");
}

#[test]
fn two_at_once_make_it_once() {
    let database = Postgres::shared().fresh_database();
    let both = [of(&database).start(), of(&database).start()];
    let said = both.map(|init| {
        let finished = init.finish(LONG);
        assert!(finished.status.success(), "{finished:?}");
        finished.stdout
    });
    let said = said.join("\n");
    assert_eq!(said.matches("created ").count(), 4, "{said}");
    assert_eq!(said.matches("exists ").count(), 4, "{said}");
}

#[test]
fn the_dry_run_is_a_script_for_psql_and_changes_nothing() {
    // Roles are the whole server's: one of our own.
    let server = Postgres::builder().fast().start();
    server.create_database("shop");
    let as_superuser = command(server.url("shop"), "walpost");
    let dry_run = |init: &Builder| done(&init.clone().arguments(["init", "--dry-run"]));
    let script = dry_run(&as_superuser);
    assert_eq!(script, dry_run(&as_superuser), "the first one changed something");

    psql(&server, "shop", &script);
    assert!(all(&done(&as_superuser), "exists "));
    let again = dry_run(&as_superuser);
    assert!(!again.contains("CREATE "), "{again}");

    // The role of the script may do what a relay does, and make nothing.
    let url = format!("postgresql://walpost@127.0.0.1:{}/shop", server.port());
    let as_relay = command(url, "walpost");
    assert!(all(&done(&as_relay), "exists "));
    server.sql(
        "shop",
        "SELECT pg_drop_replication_slot('walpost'); DROP PUBLICATION walpost; DELETE FROM walpost.relay",
    );
    let refused = refused(&as_relay);
    assert!(refused.contains("PostgreSQL says: permission denied"), "{refused}");
    assert!(refused.contains("--dry-run"), "{refused}");
}

#[test]
fn the_dry_run_works_before_the_role_exists() {
    let server = Postgres::builder().fast().start();
    let url = format!("postgresql://relay:hunter2@127.0.0.1:{}/postgres", server.port());
    let init = command(url, "walpost");
    let script = done(&init.clone().arguments(["init", "--dry-run"]));
    assert!(script.contains("CREATE ROLE \"relay\" LOGIN REPLICATION"), "{script}");
    assert!(!script.contains("hunter2"), "{script}");
    psql(&server, "postgres", &script);
    // The script could not know whether the server has failover slots.
    let said = done(&init);
    let mended = "changed slot walpost (a failover slot now)";
    assert_eq!(said.contains(mended), server.major() >= 17, "{said}");
    assert!(all(&said.replace(mended, "exists slot walpost"), "exists "), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_must_wait_says_for_whom() {
    let server = Postgres::builder().fast().setting("max_prepared_transactions", "2").start();
    server.create_database("other");
    // Any database of the cluster holds the slot up; so does a transaction without a process.
    let lunch = server.client_to("other").await;
    lunch.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.unwrap();
    let pid: i32 = lunch.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let prepared = server.client().await;
    let prepare = "BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'forgotten'";
    prepared.batch_execute(prepare).await.unwrap();

    let init = command(server.url("postgres"), "walpost").start();
    until(LONG, "init to say for whom it waits", || init.stdout().contains("waiting for"));
    let said = init.stdout();
    let line = said.lines().find(|line| line.starts_with("waiting for")).unwrap();
    assert!(line.contains(&format!("pid {pid} (user postgres, database other")), "{line}");
    assert!(line.contains("idle in transaction, open for "), "{line}");
    assert!(line.contains("prepared transaction 'forgotten'"), "{line}");
    assert!(line.ends_with("pg_terminate_backend(pid)"), "{line}");

    lunch.batch_execute("COMMIT").await.unwrap();
    prepared.batch_execute("ROLLBACK PREPARED 'forgotten'").await.unwrap();
    let finished = init.finish(LONG);
    assert!(finished.status.success(), "{finished:?}");
    assert!(finished.stdout.contains("created slot walpost (decodes from "), "{finished:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_that_was_given_up_is_waited_for_by_the_next() {
    let server = Postgres::builder().fast().start();
    let lunch = server.client().await;
    lunch.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.unwrap();
    let init = command(server.url("postgres"), "walpost");
    let waits = |process: &walpost_testkit::Walpost| {
        until(LONG, "init to wait", || process.stdout().contains("waiting for"));
    };
    let mut first = init.start();
    waits(&first);
    first.kill();
    let second = init.start();
    waits(&second);
    lunch.batch_execute("COMMIT").await.unwrap();
    let finished = second.finish(LONG);
    assert!(finished.status.success(), "{finished:?}");
    let confirmed =
        "SELECT confirmed_flush_lsn IS NOT NULL AND NOT active FROM pg_replication_slots";
    assert_eq!(server.sql("postgres", confirmed), "t");
}

#[test]
fn an_outbox_of_the_application_must_be_there_and_reach_the_slot() {
    let database = Postgres::shared().fresh_database();
    let init = for_published(&database);
    let name = database.name();
    let missing = refused(&init);
    let text = format!("table public.published does not exist in database {name}: create it");
    assert!(missing.contains(&text), "{missing}");

    database.sql("CREATE UNLOGGED TABLE public.published (id uuid, destination text)");
    let unlogged = refused(&init);
    let remedy = r#"ALTER TABLE "public"."published" SET LOGGED"#;
    assert!(unlogged.contains("is not logged") && unlogged.contains(remedy), "{unlogged}");

    database.sql("ALTER TABLE public.published SET LOGGED");
    database.sql("INSERT INTO public.published VALUES (gen_random_uuid(), 'd')");
    let said = done(&init);
    assert!(said.contains("note: public.published holds rows"), "{said}");
    assert!(said.contains("created schema walpost"), "{said}");
}

#[test]
fn a_publication_is_mended_where_that_loses_nothing() {
    let database = Postgres::shared().fresh_database();
    database.sql("CREATE TABLE public.published (id int); CREATE TABLE public.other (id int)");
    database.sql("CREATE PUBLICATION walpost FOR TABLE public.other");
    let said = done(&for_published(&database));
    assert!(said.contains("changed publication walpost (added public.published)"), "{said}");
    assert!(said.contains("1 table(s) that are no outbox"), "{said}");

    database.sql("ALTER PUBLICATION walpost SET (publish = 'update')");
    let refused = refused(&for_published(&database));
    assert!(refused.contains("publication walpost does not publish inserts"), "{refused}");
    let remedy = "ALTER PUBLICATION \"walpost\" SET (publish = 'update, insert')";
    assert!(refused.contains(remedy), "{refused}");
    database.sql(remedy);
    assert!(all(&done(&for_published(&database)), "exists "));
}

#[test]
fn filters_and_column_lists_are_refused() {
    let database = Postgres::shared().fresh_database();
    database.sql("CREATE TABLE public.published (id int, destination text)");
    let create = "CREATE PUBLICATION walpost FOR TABLE public.published (id) WHERE (id > 0)";
    if database.sql("SELECT current_setting('server_version_num')::int < 150000") == "t" {
        // PostgreSQL 14 has neither, and walpost looks for neither.
        database.sql(&format!(
            "DO $$ BEGIN EXECUTE '{create}'; RAISE 'it has'; EXCEPTION WHEN syntax_error THEN NULL; END $$"
        ));
        database
            .sql("CREATE PUBLICATION walpost FOR TABLE public.published WITH (publish = 'insert')");
        assert!(done(&for_published(&database)).contains("exists publication walpost"));
        return;
    }
    database.sql(create);
    let found = refused(&for_published(&database));
    assert!(found.contains("has a row filter") && found.contains("has a column list"), "{found}");
}

#[test]
fn a_partitioned_outbox_is_published_under_its_own_name() {
    let database = Postgres::shared().fresh_database();
    database.sql(
        "CREATE TABLE public.published (id int) PARTITION BY RANGE (id);
         CREATE TABLE public.p1 PARTITION OF public.published DEFAULT",
    );
    done(&for_published(&database));
    assert!(all(&done(&for_published(&database)), "exists "));
    database.sql("ALTER PUBLICATION walpost SET (publish_via_partition_root = false)");
    let found = refused(&for_published(&database));
    assert!(found.contains("SET (publish_via_partition_root = true)"), "{found}");
}

#[test]
fn a_slot_of_somebody_else_is_left_alone() {
    let (database, other) =
        (Postgres::shared().fresh_database(), Postgres::shared().fresh_database());
    init(&database);
    let taken = refused(&command(other.url(), database.name()));
    let text = format!("slot {0} belongs to database {0}", database.name());
    assert!(taken.contains(&text), "{taken}");

    let physical = format!("{}_physical", database.name());
    database.sql(&format!("SELECT pg_create_physical_replication_slot('{physical}')"));
    let found = refused(&command(database.url(), &physical));
    database.sql(&format!("SELECT pg_drop_replication_slot('{physical}')"));
    assert!(found.contains("is not one of walpost's (physical)"), "{found}");
}

#[test]
fn a_slot_older_than_its_publication_is_refused_since_it_could_never_be_read() {
    let database = Postgres::shared().fresh_database();
    init(&database);
    database.sql("DROP PUBLICATION walpost");
    let found = refused(&of(&database));
    assert!(found.contains(" is lost (publication walpost is gone): "), "{found}");
    let remedy = format!("SELECT pg_drop_replication_slot('{}')", database.name());
    assert!(found.contains(&remedy), "{found}");
    database.sql(&remedy);
    // Without the slot, the row says that it is lost.
    assert!(self::refused(&of(&database)).contains("does not exist any more"));
    let accept = format!("DELETE FROM walpost.relay WHERE slot = '{}'", database.name());
    assert!(found.contains(&accept), "{found}");
    database.sql(&accept);
    let mended = init(&database);
    assert!(mended.contains("created publication") && mended.contains("created slot"), "{mended}");
}

#[test]
fn a_server_that_cannot_decode_is_named_before_anything_is_made() {
    let server = Postgres::builder().fast().setting("wal_level", "replica").start();
    let found = refused(&command(server.url("postgres"), "walpost"));
    assert!(found.contains("ALTER SYSTEM SET wal_level = 'logical'"), "{found}");
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'walpost'";
    assert_eq!(server.sql("postgres", schemas), "0");
}

#[test]
fn a_slot_whose_wal_is_gone_is_lost() {
    let server = Postgres::builder().fast().setting("max_slot_wal_keep_size", "1MB").start();
    let init = command(server.url("postgres"), "walpost");
    done(&init);
    for _ in 0..3 {
        server.sql("postgres", "SELECT pg_switch_wal()");
        server.sql("postgres", "CREATE TABLE t (a int); DROP TABLE t");
    }
    server.sql("postgres", "CHECKPOINT");
    let found = refused(&init);
    assert!(found.contains("slot walpost is lost ("), "{found}");
    assert!(found.contains("SELECT pg_drop_replication_slot('walpost')"), "{found}");
    // `run` says the same, and does not come back by itself.
    let run = walpost().set("postgres.url", server.url("postgres")).output(LONG);
    assert_eq!(run.status.code(), Some(3), "{run:?}");
    assert!(run.stderr.contains("error: slot walpost is lost ("), "{run:?}");
}
