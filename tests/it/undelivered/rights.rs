//! The table comes with an upgrade, and its rights with the others.

use std::time::Duration;

use walpost::store::marking::Holder;
use walpost::store::schema::{self, Step};
use walpost::store::undelivered::{Attempt, NewRow};
use walpost_testkit::postgres::Database;
use walpost_testkit::{Postgres, until_some};

use super::{EPOCH, Reader, message, store};
use crate::init;
use crate::rig::{LONG, walpost};

#[test]
fn a_schema_of_the_version_before_is_upgraded() {
    let database = Postgres::shared().fresh_database();
    install_version_5(&database);
    let said = init::init(&database);
    let upgraded = format!("changed schema walpost (version 5 to {})", schema::newest());
    assert!(said.contains(&upgraded), "{said}");
    assert_eq!(database.sql("SELECT count(*) FROM walpost.undelivered"), "0");
}

fn install_version_5(database: &Database<'_>) {
    for Step { version, name, sql } in schema::STEPS.iter().filter(|step| step.version <= 5) {
        database.sql(sql);
        database.sql(&format!(
            "INSERT INTO walpost.schema_version (version, name) VALUES ({version}, '{name}')"
        ));
    }
}

/// What a relay does on its first start, with a slot that an earlier version has made.
#[test]
fn a_relay_upgrades_the_schema_that_it_finds() {
    let database = Postgres::shared().fresh_database();
    init::init(&database);
    let newest = schema::newest();
    database.sql("CREATE TABLE relay AS TABLE walpost.relay; DROP SCHEMA walpost CASCADE");
    install_version_5(&database);
    let publication = database.sql("SELECT pubname FROM pg_publication");
    database.sql(&format!(
        "INSERT INTO walpost.relay SELECT * FROM relay; ALTER PUBLICATION {publication} ADD TABLE walpost.outbox"
    ));
    let relay = || {
        walpost()
            .set("postgres.url", database.url())
            .set("replication.slot", database.name())
            .set("broker.hosts", "127.0.0.1:1")
    };
    let refused = relay().set("replication.create", "false").output(LONG);
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    let missing = format!("version {newest} of the schema walpost does not exist");
    assert!(refused.stderr.contains(&missing), "{}", refused.stderr);
    let mut running = relay().start();
    until_some(LONG, "the upgrade", || {
        let there = "SELECT to_regclass('walpost.undelivered') IS NOT NULL";
        (database.sql(there) == "t").then_some(())
    });
    running.kill();
}

#[test]
fn everything_in_the_table_is_described() {
    let database = Postgres::shared().fresh_database();
    init::init(&database);
    let undescribed =
        "SELECT count(*) FILTER (WHERE col_description(attrelid, attnum) IS NULL), count(*) > 15
        FROM pg_attribute WHERE attrelid = 'walpost.undelivered'::regclass AND attnum > 0";
    assert_eq!(database.sql(undescribed), "0|t");
}

/// A role with the rights that `walpost init --dry-run` prints, and no more.
#[tokio::test]
async fn the_rights_of_the_dry_run_are_enough() {
    let server = Postgres::builder().fast().start();
    server.create_database("shop");
    let url = server.url("shop");
    let script =
        walpost().arguments(["init", "--dry-run"]).set("postgres.url", &url).output(LONG).stdout;
    init::psql(&server, "shop", &script);
    server.sql(
        "shop",
        &format!(
        "INSERT INTO walpost.relay (slot, system_identifier, timeline, database_oid, epoch, state)
         VALUES ('walpost', 1, 1, 1, {EPOCH}, 'streaming')"
    ),
    );
    let reader = Reader::start(&server, "shop", "walpost");
    let as_relay = url.replace("postgres@", "walpost@");
    let store = store(&as_relay).await;
    let holder = Holder { slot: "walpost", epoch: EPOCH, walsender: reader.walsender };
    let wait = Duration::from_secs(60);
    assert!(store.keep(holder, &[message("d", 0), message("d", 1)], &[]).await.unwrap().is_some());
    let attempt = store.attempt(holder, "d", false, wait).await.unwrap();
    let Attempt::Row(row) = attempt else { panic!("{attempt:?}") };
    assert!(store.note(holder, row.id, 4, "no", wait).await.unwrap());
    assert_eq!(store.load(holder, "d", 0, 10, 10).await.unwrap().unwrap().rows.len(), 2);
    assert!(store.delivered(holder, &[row.id]).await.unwrap());
    assert_eq!(store.condemn(holder, "d", &[]).await.unwrap(), Some(1));
    assert_eq!(store.parked("walpost").await.unwrap().dead, 1);
    assert_eq!(store.prune_discarded("walpost").await.unwrap(), 0);
    for (command, said) in [("list", "dead"), ("retry", "1 message"), ("discard", "1 message")] {
        let mut arguments = vec!["undelivered", command];
        arguments.extend((command != "list").then_some("2"));
        let done = walpost().arguments(arguments).set("postgres.url", &as_relay).output(LONG);
        assert!(done.status.success() && done.stdout.contains(said), "{done:?}");
    }
}

/// A broker's words may have letters that the database has not.
#[tokio::test]
async fn a_database_of_another_encoding_keeps_what_it_can() {
    let server = Postgres::builder().fast().start();
    let create = "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0";
    server.sql("postgres", create);
    let url = server.url("latin");
    let made = walpost().arguments(["init"]).set("postgres.url", &url).output(LONG);
    assert!(made.status.success(), "{made:?}");
    server.sql("latin", &format!("UPDATE walpost.relay SET epoch = {EPOCH}"));
    let reader = Reader::start(&server, "latin", "walpost");
    let store = store(&url).await;
    let holder = Holder { slot: "walpost", epoch: EPOCH, walsender: reader.walsender };
    let row = NewRow {
        error: "“é”\0".to_owned(),
        headers: vec![("é".to_owned(), "→".to_owned())],
        ..message("/queue/é", 0)
    };
    assert!(store.keep(holder, &[row], &[]).await.unwrap().is_some());
    let kept = || server.sql("latin", "SELECT error || headers::text FROM walpost.undelivered");
    assert_eq!(kept(), "????{\"?\": \"?\"}");
    let wait = Duration::from_secs(1);
    let attempt = store.attempt(holder, "/queue/é", false, wait).await.unwrap();
    let Attempt::Row(row) = attempt else { panic!("{attempt:?}") };
    assert_eq!(row.destination.as_deref(), Some("/queue/é"));
    assert!(store.note(holder, row.id, 1, "“", wait).await.unwrap());
    assert_eq!(kept(), "?{\"?\": \"?\"}");
}
