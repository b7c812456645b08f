//! The table comes with an upgrade, and its rights with the others.

use std::time::Duration;

use walpost::store::marking::Holder;
use walpost::store::schema;
use walpost::store::undelivered::Attempt;
use walpost_testkit::{Postgres, until_some};

use super::{EPOCH, hold, message, store};
use crate::init;
use crate::rig::{LONG, walpost};

#[test]
fn a_schema_of_the_version_before_is_upgraded() {
    let database = Postgres::shared().fresh_database();
    let before = schema::STEPS.iter().filter(|step| step.version <= 5);
    for step in before {
        database.sql(step.sql);
        let (version, name) = (step.version, step.name);
        database.sql(&format!(
            "INSERT INTO walpost.schema_version (version, name) VALUES ({version}, '{name}')"
        ));
    }
    let said = init::init(&database);
    let upgraded = format!("changed schema walpost (version 5 to {})", schema::newest());
    assert!(said.contains(&upgraded), "{said}");
    assert_eq!(database.sql("SELECT count(*) FROM walpost.undelivered"), "0");
}

/// What a relay does on its first start, with a slot that an earlier version has made.
#[test]
fn a_relay_upgrades_the_schema_that_it_finds() {
    let database = Postgres::shared().fresh_database();
    init::init(&database);
    let newest = schema::newest();
    database.sql(
        "DROP TABLE walpost.undelivered; DELETE FROM walpost.schema_version WHERE version > 5",
    );
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
    let mut reader = hold(&server, "walpost", &url);
    let held = "SELECT active_pid FROM pg_replication_slots WHERE active";
    let walsender =
        until_some(LONG, "the slot to be held", || server.sql("shop", held).parse().ok());
    let as_relay = url.replace("postgres@", "walpost@");
    let store = store(&as_relay).await;
    let holder = Holder { slot: "walpost", epoch: EPOCH, walsender };
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
    let _ = reader.kill();
    let _ = reader.wait();
    drop(store);
}
