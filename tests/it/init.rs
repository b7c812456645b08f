//! `walpost init` on a real server, and the SQL side that it stands on.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use walpost::ops::init::{InitError, InitSettings, run};
use walpost::secret::Secret;
use walpost::store::setup::{Misfit, SetupError};
use walpost::store::{Class, ConnectSettings, Store, TableName};
use walpost_testkit::{Database, Postgres, eventually};

const LONG: Duration = Duration::from_secs(30);

/// Settings for the layout `walpost`, with the slot named as the database.
fn settings(url: String, slot: &str) -> InitSettings {
    InitSettings {
        url: Secret::new(url),
        password: None,
        connect_timeout: Duration::from_secs(10),
        slot: slot.to_owned(),
        publication: "walpost".to_owned(),
        tables: vec![("walpost".to_owned(), "outbox".to_owned())],
        install_schema: true,
    }
}

fn settings_of(database: &Database<'_>) -> InitSettings {
    settings(database.url(), database.name())
}

/// Settings for a table of the application's own.
fn settings_for_table(database: &Database<'_>, table: &str) -> InitSettings {
    InitSettings {
        tables: vec![("public".to_owned(), table.to_owned())],
        install_schema: false,
        ..settings_of(database)
    }
}

/// What `init` says.
async fn init(settings: InitSettings) -> Result<String, InitError> {
    let mut out = Vec::new();
    run(settings, false, &mut out).await?;
    Ok(String::from_utf8(out).unwrap())
}

async fn dry_run(settings: InitSettings) -> String {
    let mut out = Vec::new();
    run(settings, true, &mut out).await.unwrap();
    String::from_utf8(out).unwrap()
}

fn misfits(error: InitError) -> Vec<Misfit> {
    match error {
        InitError::Setup(SetupError::Unfit(misfits)) => misfits,
        other => panic!("{other}"),
    }
}

async fn store(url: String) -> Store {
    let settings = ConnectSettings { url: Secret::new(url), password: None, connect_timeout: LONG };
    Store::connect(&settings).await.unwrap()
}

/// Pipes a script into `psql`, as an administrator would.
fn psql(server: &Postgres, database: &str, script: &str) {
    let mut psql = Command::new(server.bindir().join("psql"))
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", &server.url(database)])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    psql.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(psql.wait().unwrap().success(), "{script}");
}

#[tokio::test]
async fn init_makes_everything_once() {
    let database = Postgres::shared().fresh_database();
    let first = init(settings_of(&database)).await.unwrap();
    let created: Vec<_> = first.lines().collect();
    assert_eq!(created.len(), 4, "{first}");
    assert!(created.iter().all(|line| line.starts_with("created ")), "{first}");

    let second = init(settings_of(&database)).await.unwrap();
    assert_eq!(second.lines().count(), 4, "{second}");
    assert!(second.lines().all(|line| line.starts_with("exists ")), "{second}");
}

#[tokio::test]
async fn two_at_once_make_it_once() {
    let database = Postgres::shared().fresh_database();
    let (a, b) = tokio::join!(init(settings_of(&database)), init(settings_of(&database)));
    let said = a.unwrap() + &b.unwrap();
    assert_eq!(said.matches("created ").count(), 4, "{said}");
    assert_eq!(said.matches("exists ").count(), 4, "{said}");
}

#[tokio::test]
async fn the_dry_run_is_a_script_for_psql_and_changes_nothing() {
    // Roles are the whole server's: one of our own.
    let server = Postgres::builder().fast().start();
    server.create_database("shop");
    let as_superuser = || settings(server.url("shop"), "walpost");
    let script = dry_run(as_superuser()).await;
    assert_eq!(script, dry_run(as_superuser()).await, "the first one changed something");

    psql(&server, "shop", &script);
    let said = init(as_superuser()).await.unwrap();
    assert!(said.lines().all(|line| line.starts_with("exists ")), "{said}");
    let again = dry_run(as_superuser()).await;
    assert!(!again.contains("CREATE "), "{again}");

    // The role of the script may do what a relay does, and make nothing.
    let url = format!("postgresql://walpost@127.0.0.1:{}/shop", server.port());
    let said = init(settings(url.clone(), "walpost")).await.unwrap();
    assert!(said.lines().all(|line| line.starts_with("exists ")), "{said}");
    let rows = store(url.clone()).await.waiting_rows(&TableName::new("walpost", "outbox")).await;
    assert!(!rows.unwrap().any);
    server.sql("shop", "DROP PUBLICATION walpost");
    let refused = init(settings(url, "walpost")).await.unwrap_err();
    assert!(matches!(refused, InitError::Setup(SetupError::Denied(_))), "{refused:?}");
    assert!(refused.to_string().contains("--dry-run"), "{refused}");
}

#[tokio::test]
async fn the_dry_run_works_before_the_role_exists() {
    let server = Postgres::builder().fast().start();
    let url = format!("postgresql://relay:hunter2@127.0.0.1:{}/postgres", server.port());
    let script = dry_run(settings(url.clone(), "walpost")).await;
    assert!(script.contains("CREATE ROLE \"relay\" LOGIN REPLICATION"), "{script}");
    assert!(!script.contains("hunter2"), "{script}");
    psql(&server, "postgres", &script);
    let said = init(settings(url, "walpost")).await.unwrap();
    assert!(said.lines().all(|line| line.starts_with("exists ")), "{said}");
}

#[tokio::test]
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

    let (hear, mut heard) = tokio::sync::mpsc::channel(64);
    let url = server.url("postgres");
    let creating = tokio::spawn(async move {
        let store = store(url).await;
        let mut on_wait = |blockers: &[walpost::store::Blocker]| {
            let _ = hear.try_send(blockers.to_vec());
        };
        store.create_slot("walpost", false, &mut on_wait).await
    });
    let first = tokio::time::timeout(LONG, heard.recv()).await.unwrap().unwrap();
    let by_pid = first.iter().find(|blocker| blocker.pid == Some(pid)).unwrap();
    assert_eq!(by_pid.database.as_deref(), Some("other"));
    assert_eq!(by_pid.state.as_deref(), Some("idle in transaction"));
    assert!(by_pid.to_string().contains(&format!("pid {pid} (user postgres")), "{by_pid}");
    assert!(first.iter().any(|blocker| blocker.prepared.as_deref() == Some("forgotten")));
    assert!(first[0].waited_for, "{first:?}");

    lunch.batch_execute("COMMIT").await.unwrap();
    prepared.batch_execute("ROLLBACK PREPARED 'forgotten'").await.unwrap();
    tokio::time::timeout(LONG, creating).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_creation_that_is_given_up_leaves_no_slot() {
    let server = Postgres::builder().fast().start();
    let lunch = server.client().await;
    lunch.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.unwrap();
    let store = store(server.url("postgres")).await;
    let (hear, mut heard) = tokio::sync::mpsc::channel(1);
    let mut on_wait = |_: &[walpost::store::Blocker]| {
        let _ = hear.try_send(());
    };
    tokio::select! {
        made = store.create_slot("walpost", false, &mut on_wait) => panic!("{made:?}"),
        waits = heard.recv() => assert!(waits.is_some()),
    }
    eventually(LONG, "the server gives the creation up", async || {
        store.slot("walpost").await.unwrap().is_none()
    })
    .await;
}

#[tokio::test]
async fn publish_writes_the_outbox_whatever_the_search_path() {
    let database = Postgres::shared().fresh_database();
    init(settings_of(&database)).await.unwrap();
    let client = database.client().await;
    client
        .batch_execute(
            "CREATE SCHEMA evil;
             CREATE TABLE evil.outbox (LIKE walpost.outbox);
             CREATE TEMP TABLE outbox (LIKE walpost.outbox);
             CREATE FUNCTION evil.gen_random_uuid() RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid';
             CREATE FUNCTION evil.pg_current_xact_id() RETURNS xid8 LANGUAGE sql AS
                 $$ SELECT '666'::xid8 $$;
             SET search_path = evil, pg_catalog;
             BEGIN;
             SELECT walpost.publish('/queue/json', '{\"b\": 1, \"a\": \"\\u00e9\"}');
             SELECT walpost.publish_bytes('/queue/bytes', '\\x00ff', NULL, 'k', '{\"x\": \"y\"}');
             SELECT walpost.publish('/queue/empty', NULL)",
        )
        .await
        .unwrap();
    let sql = "SELECT destination, coalesce(version, '-') || coalesce(key, '-') || headers::text
                || coalesce(body::text, '-') || coalesce(body_bytes::text, '-'),
            xid = pg_current_xact_id() AND pg_typeof(id) = 'uuid'::regtype
        FROM walpost.outbox ORDER BY created_at";
    client.batch_execute("SET LOCAL search_path = pg_catalog").await.unwrap();
    let rows = client.query(sql, &[]).await.unwrap();
    let rows: Vec<(&str, &str, bool)> =
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    assert_eq!(
        rows,
        [
            ("/queue/json", r#"v1-{}{"a": "é", "b": 1}-"#, true),
            ("/queue/bytes", r#"-k{"x": "y"}-\x00ff"#, true),
            ("/queue/empty", "v1-{}--", true),
        ]
    );
}

#[tokio::test]
async fn what_could_never_be_a_message_is_refused_at_the_insert() {
    let database = Postgres::shared().fresh_database();
    init(settings_of(&database)).await.unwrap();
    for row in [
        "SELECT walpost.publish('', '{}')",
        "SELECT walpost.publish(NULL, '{}')",
        "SELECT walpost.publish('/queue/a', '{}', headers => '[1]')",
        "INSERT INTO walpost.outbox (destination, body, body_bytes) VALUES ('/queue/a', '1', '')",
    ] {
        assert!(database.server().try_sql(database.name(), row).is_err(), "{row}");
    }
}

#[tokio::test]
async fn an_outbox_of_the_application_must_be_there_and_reach_the_slot() {
    let database = Postgres::shared().fresh_database();
    let published = || settings_for_table(&database, "published");
    let table = TableName::new("public", "published");
    let missing = misfits(init(published()).await.unwrap_err());
    assert_eq!(missing, [Misfit::TableMissing(table.clone(), database.name().to_owned())]);

    database.sql("CREATE UNLOGGED TABLE public.published (id uuid, destination text)");
    let unlogged = misfits(init(published()).await.unwrap_err());
    assert_eq!(unlogged, [Misfit::NotLogged(table)]);

    database.sql("ALTER TABLE public.published SET LOGGED");
    database.sql("INSERT INTO public.published VALUES (gen_random_uuid(), 'd')");
    let said = init(published()).await.unwrap();
    assert!(said.contains("note: public.published holds rows"), "{said}");
    assert!(!said.contains("schema walpost"), "{said}");
}

#[tokio::test]
async fn a_publication_is_mended_where_that_loses_nothing() {
    let database = Postgres::shared().fresh_database();
    database.sql("CREATE TABLE public.published (id int); CREATE TABLE public.other (id int)");
    database.sql("CREATE PUBLICATION walpost FOR TABLE public.other");
    let said = init(settings_for_table(&database, "published")).await.unwrap();
    assert!(said.contains("changed publication walpost (added public.published)"), "{said}");
    assert!(said.contains("1 table(s) that are no outbox"), "{said}");

    database.sql("ALTER PUBLICATION walpost SET (publish = 'update')");
    let refused = init(settings_for_table(&database, "published")).await.unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("SET (publish = 'update, insert')"), "{text}");
    let only = misfits(refused);
    assert_eq!(only, [Misfit::NoInserts("walpost".to_owned(), "update, ".to_owned())]);
}

#[tokio::test]
async fn filters_and_column_lists_are_refused() {
    let database = Postgres::shared().fresh_database();
    if store(database.url()).await.version() < 150_000 {
        return; // PostgreSQL 14 has neither.
    }
    database.sql("CREATE TABLE public.published (id int, destination text)");
    database.sql("CREATE PUBLICATION walpost FOR TABLE public.published (id) WHERE (id > 0)");
    let found = misfits(init(settings_for_table(&database, "published")).await.unwrap_err());
    assert!(matches!(&found[..], [Misfit::RowFilter(..), Misfit::ColumnList(..)]), "{found:?}");
}

#[tokio::test]
async fn a_partitioned_outbox_is_published_under_its_own_name() {
    let database = Postgres::shared().fresh_database();
    database.sql(
        "CREATE TABLE public.published (id int) PARTITION BY RANGE (id);
         CREATE TABLE public.p1 PARTITION OF public.published DEFAULT",
    );
    init(settings_for_table(&database, "published")).await.unwrap();
    let again = init(settings_for_table(&database, "published")).await.unwrap();
    assert!(again.lines().all(|line| line.starts_with("exists ")), "{again}");
    database.sql("ALTER PUBLICATION walpost SET (publish_via_partition_root = false)");
    let found = misfits(init(settings_for_table(&database, "published")).await.unwrap_err());
    assert!(matches!(&found[..], [Misfit::NotViaRoot(..)]), "{found:?}");
}

#[tokio::test]
async fn a_slot_of_somebody_else_is_left_alone() {
    let (database, other) =
        (Postgres::shared().fresh_database(), Postgres::shared().fresh_database());
    init(settings_of(&database)).await.unwrap();
    let taken = settings(other.url(), database.name());
    let found = misfits(init(taken).await.unwrap_err());
    assert!(matches!(&found[..], [Misfit::SlotDatabase(..)]), "{found:?}");

    let physical = format!("{}_physical", database.name());
    database.sql(&format!("SELECT pg_create_physical_replication_slot('{physical}')"));
    let found = misfits(init(settings(database.url(), &physical)).await.unwrap_err());
    database.sql(&format!("SELECT pg_drop_replication_slot('{physical}')"));
    assert!(matches!(&found[..], [Misfit::SlotPlugin(_, None)]), "{found:?}");
}

#[tokio::test]
async fn a_server_that_cannot_decode_is_named_before_anything_is_made() {
    let server = Postgres::builder().fast().setting("wal_level", "replica").start();
    let found = misfits(init(settings(server.url("postgres"), "walpost")).await.unwrap_err());
    assert!(matches!(&found[..], [Misfit::WalLevel(_)]), "{found:?}");
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'walpost'";
    assert_eq!(server.sql("postgres", schemas), "0");
}

#[tokio::test]
async fn a_slot_whose_wal_is_gone_is_lost() {
    let server = Postgres::builder().fast().setting("max_slot_wal_keep_size", "1MB").start();
    let url = || server.url("postgres");
    init(settings(url(), "walpost")).await.unwrap();
    for _ in 0..3 {
        server.sql("postgres", "SELECT pg_switch_wal()");
        server.sql("postgres", "CREATE TABLE t (a int); DROP TABLE t");
    }
    server.sql("postgres", "CHECKPOINT");
    let slot = store(url()).await.slot("walpost").await.unwrap().unwrap();
    assert!(slot.lost().is_some(), "{slot:?}");
    let found = misfits(init(settings(url(), "walpost")).await.unwrap_err());
    assert!(matches!(&found[..], [Misfit::SlotLost(..)]), "{found:?}");
}

#[tokio::test]
async fn the_store_sees_the_server_and_the_slots_lag() {
    let database = Postgres::shared().fresh_database();
    init(settings_of(&database)).await.unwrap();
    let store = store(database.url()).await;
    let server = store.server().await.unwrap();
    assert_eq!(server.database, database.name());
    assert_eq!((server.timeline, server.in_recovery), (1, false));
    let identifier = database.sql("SELECT system_identifier FROM pg_control_system()");
    assert_eq!(server.system_identifier.to_string(), identifier);

    let before = store.lag(database.name()).await.unwrap().unwrap();
    assert!(before.confirmed_flush_lsn.is_some_and(|confirmed| confirmed <= before.insert_lsn));
    assert!(before.flush_lsn <= before.insert_lsn);
    database.sql("SELECT walpost.publish('d', '{}')");
    let after = store.lag(database.name()).await.unwrap().unwrap();
    assert!(after.insert_lsn > before.insert_lsn);
    assert!(after.retained_bytes > before.retained_bytes, "{after:?}");
    assert!(!after.active);
    assert_eq!(store.lag("no_such_slot").await.unwrap(), None);
    assert_eq!(store.slot("no_such_slot").await.unwrap(), None);
}

#[tokio::test]
async fn the_session_is_pinned_against_the_settings_of_the_role() {
    let server = Postgres::builder().fast().start();
    server.sql(
        "postgres",
        "CREATE SCHEMA evil; ALTER ROLE postgres SET search_path = evil, pg_catalog;
         CREATE FUNCTION evil.pg_is_in_recovery() RETURNS boolean LANGUAGE sql AS 'SELECT true';
         ALTER ROLE postgres SET synchronous_commit = off",
    );
    let store = store(server.url("postgres")).await;
    assert!(!store.server().await.unwrap().in_recovery);
}

#[tokio::test]
async fn the_end_of_the_connection_is_noticed_with_its_reason() {
    let server = Postgres::builder().fast().start();
    let store = store(server.url("postgres")).await;
    assert!(!store.is_closed());
    server.stop_fast();
    let end = tokio::time::timeout(LONG, store.ended()).await.unwrap();
    assert_eq!(end.class, Class::ShuttingDown, "{end:?}");
    assert!(store.is_closed());
    server.restart();
}

#[tokio::test]
async fn a_frozen_host_is_passed_over() {
    let (frozen, alive) = (Postgres::builder().fast().start(), Postgres::builder().fast().start());
    frozen.freeze();
    let hosts = format!("127.0.0.1:{},127.0.0.1:{}", frozen.port(), alive.port());
    let settings = ConnectSettings {
        url: Secret::new(format!("postgresql://postgres@{hosts}/postgres")),
        password: None,
        connect_timeout: Duration::from_secs(1),
    };
    let store = Store::connect(&settings).await.unwrap();
    let port = alive.sql("postgres", "SHOW port");
    assert_eq!(port, alive.port().to_string());
    assert!(store.server().await.unwrap().system_identifier > 0);
    frozen.thaw();
}

#[tokio::test]
async fn a_refused_login_is_told_from_a_broken_network_and_shows_no_password() {
    let server =
        Postgres::builder().fast().hba("host all refused 127.0.0.1/32 scram-sha-256").start();
    server.sql("postgres", "CREATE ROLE refused LOGIN PASSWORD 'right'");
    let connect = |port: u16, password: &str| {
        let settings = ConnectSettings {
            url: Secret::new(format!("postgresql://refused:hunter2@127.0.0.1:{port}/postgres")),
            password: Some(Secret::new(password.to_owned())),
            connect_timeout: LONG,
        };
        async move { Store::connect(&settings).await }
    };
    connect(server.port(), "right").await.unwrap();
    let refused = connect(server.port(), "hunter3").await.unwrap_err();
    assert!(refused.is_login(), "{refused}");
    assert_eq!(refused.class(), Class::Operator);
    let text = format!("{refused} {refused:?}");
    assert!(!text.contains("hunter"), "{text}");
    server.stop_fast();
    let down = connect(server.port(), "right").await.unwrap_err();
    assert_eq!(down.class(), Class::Retry, "{down}");
    assert!(!format!("{down} {down:?}").contains("hunter"));
}
