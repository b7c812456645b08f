//! What the certified snapshot must survive: WAL that is gone, crashes, long transactions, a standby that
//! is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use walpost_testkit::walpost::Builder;
use walpost_testkit::{Postgres, ScriptedBroker, Walpost, until};

use crate::rig::{LONG, walpost};

fn relay(server: &Postgres, broker: &ScriptedBroker) -> Builder {
    walpost().set("postgres.url", server.url("postgres")).set("broker.hosts", broker.address())
}

fn ready(builder: &Builder) -> Walpost {
    let mut walpost = builder.start();
    walpost.await_ready(LONG);
    walpost
}

/// How often each message has arrived.
fn arrivals(broker: &ScriptedBroker) -> BTreeMap<String, usize> {
    let mut arrivals = BTreeMap::new();
    for frame in broker.messages() {
        let id = frame.header("msg-id").expect("each has an id").to_owned();
        *arrivals.entry(id).or_default() += 1;
    }
    arrivals
}

fn ids(server: &Postgres, condition: &str) -> BTreeSet<String> {
    let sql = format!("SELECT id FROM walpost.outbox WHERE {condition}");
    server.sql("postgres", &sql).lines().map(str::to_owned).collect()
}

/// Every row that is in the table has arrived.
#[track_caller]
fn await_every_row(server: &Postgres, broker: &ScriptedBroker, walpost: &Walpost) {
    let rows = ids(server, "true");
    let deadline = Instant::now() + LONG;
    loop {
        let arrived = arrivals(broker);
        let missing = rows.iter().filter(|id| !arrived.contains_key(*id)).count();
        if missing == 0 {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{missing} of {} missing: {}",
            rows.len(),
            walpost.log()
        );
        std::thread::yield_now();
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_slot_that_lost_its_wal_under_load_is_made_again_and_no_row_is_missed() {
    let server = Postgres::builder()
        .fast()
        .setting("max_slot_wal_keep_size", "32MB")
        .setting("min_wal_size", "32MB")
        .setting("max_wal_size", "48MB")
        .start();
    let broker = ScriptedBroker::start();
    let walpost = ready(&relay(&server, &broker).set("replication.on_slot_lost", "recover"));
    let insert = |rows: u32| {
        server.sql(
            "postgres",
            &format!(
                "DO $$ BEGIN FOR i IN 1..{rows} LOOP
                   PERFORM walpost.publish('/queue/q', to_jsonb(repeat('x', 5000))); COMMIT;
                 END LOOP; END $$"
            ),
        );
    };
    insert(300);
    broker.wait_for_sends(300, LONG);
    until(LONG, "a certified snapshot", || {
        server.sql("postgres", "SELECT certified_snapshot IS NOT NULL FROM walpost.relay") == "t"
    });
    broker.freeze();
    let status = "SELECT coalesce(min(wal_status), '') FROM pg_replication_slots";
    for _ in 0..40 {
        insert(200);
        // Random bytes: compressed, the rows would hardly be any WAL.
        server.sql(
            "postgres",
            "SELECT pg_switch_wal(); CREATE TABLE IF NOT EXISTS noise (bytes bytea);
             INSERT INTO noise SELECT decode(string_agg(md5(random()::text), ''), 'hex')
                FROM generate_series(1, 100000); CHECKPOINT",
        );
        if server.sql("postgres", status) != "reserved"
            && server.sql("postgres", status) != "extended"
        {
            break;
        }
    }
    until(LONG, "the slot to be lost", || {
        server.sql("postgres", "CHECKPOINT");
        server.log().contains("invalidating")
    });
    // What is not known to be delivered at this moment may be repeated, nothing else.
    let open = ids(
        &server,
        "NOT pg_visible_in_snapshot(xid, (SELECT certified_snapshot FROM walpost.relay))",
    );
    broker.thaw();
    insert(50);
    let _ = walpost.wait_for_log("is lost: it is made again", LONG);
    let _ = walpost.wait_for_log("the rows that waited are published", LONG);
    await_every_row(&server, &broker, &walpost);
    for (id, times) in arrivals(&broker) {
        assert!(times == 1 || open.contains(&id), "{id} arrived {times} times: {}", walpost.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_open_for_longer_than_the_retention_loses_nothing() {
    let server = Postgres::builder().fast().start();
    let broker = ScriptedBroker::start();
    let mut walpost = ready(&relay(&server, &broker).set("outbox.retention", "1s"));
    let long = server.client_to("postgres").await;
    long.batch_execute("BEGIN; SELECT walpost.publish('/queue/q', '\"long\"')").await.unwrap();
    let publish = "SELECT walpost.publish('/queue/q', '\"short\"')";
    server.sql("postgres", publish);
    broker.wait_for_sends(1, LONG);
    until(LONG, "the other row to be deleted", || ids(&server, "true").is_empty());
    long.batch_execute("COMMIT").await.unwrap();
    broker.wait_for_sends(2, LONG);
    until(LONG, "it, too, to be deleted", || ids(&server, "true").is_empty());
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    assert_eq!(broker.sends(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_asynchronous_commit_that_a_crash_undid_certifies_nothing() {
    let server = Postgres::builder()
        .fast()
        // Nothing is flushed unless somebody waits for it.
        .setting("wal_writer_delay", "10s")
        .setting("wal_writer_flush_after", "0")
        .start();
    let broker = ScriptedBroker::start();
    let settings = relay(&server, &broker);
    let mut walpost = ready(&settings);
    let writer = server.client_to("postgres").await;
    writer.batch_execute("SET synchronous_commit = off").await.unwrap();
    server.sql("postgres", "SELECT walpost.publish('/queue/q', '\"first\"')");
    broker.wait_for_sends(1, LONG);
    // A snapshot is taken in which the last of these is visible.
    let asked = "SELECT count(*) FROM pg_stat_activity
        WHERE application_name = 'walpost' AND query LIKE '%wal_block_size%'";
    let deadline = Instant::now() + LONG;
    let mut lost = String::new();
    while server.sql("postgres", asked) == "0" {
        assert!(Instant::now() < deadline, "no snapshot was taken: {}", walpost.log());
        let row = writer
            .query_one(
                "SELECT walpost.publish('/queue/q', '\"lost\"')::text, pg_current_xact_id()::text",
                &[],
            )
            .await
            .unwrap();
        lost = row.get(1);
    }
    server.kill();
    walpost.kill();
    server.restart();
    // Its id is used again, by transactions that are not delivered.
    for _ in 0..50 {
        server.sql("postgres", "SELECT walpost.publish('/queue/q', '\"again\"')");
    }
    println!(
        "transaction {lost} was the last; the next is {}",
        server.sql("postgres", "SELECT pg_current_xact_id()")
    );
    server.sql("postgres", "SELECT pg_drop_replication_slot('walpost')");
    let walpost = ready(&settings.arguments(["run", "--recover"]));
    await_every_row(&server, &broker, &walpost);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_waits_for_a_missing_standby_is_not_certified() {
    let server = Postgres::builder().fast().start();
    let broker = ScriptedBroker::start();
    let settings = relay(&server, &broker);
    let mut walpost = ready(&settings);
    server.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'missing'");
    server.sql("postgres", "SELECT pg_reload_conf()");
    until(LONG, "commits wait", || {
        server.sql("postgres", "SHOW synchronous_standby_names") == "missing"
    });
    let client = server.client_to("postgres").await;
    let waiting = tokio::spawn(async move {
        client.batch_execute("SELECT walpost.publish('/queue/q', '\"waits\"')").await
    });
    // It is delivered before it is visible.
    broker.wait_for_sends(1, LONG);
    let local = "SET synchronous_commit = local; SELECT walpost.publish('/queue/q', '\"local\"')";
    server.sql("postgres", local);
    broker.wait_for_sends(2, LONG);
    until(LONG, "a certified snapshot", || {
        let covered = "SELECT count(*) FROM walpost.outbox, walpost.relay
            WHERE pg_visible_in_snapshot(outbox.xid, certified_snapshot)";
        server.sql("postgres", covered) == "1"
    });
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    server.sql("postgres", "SELECT pg_drop_replication_slot('walpost')");
    let walpost = settings.arguments(["run", "--recover"]).start();
    server.sql("postgres", "ALTER SYSTEM RESET synchronous_standby_names");
    server.sql("postgres", "SELECT pg_reload_conf()");
    waiting.await.unwrap().unwrap();
    let _ = walpost.wait_for_log("the rows that waited are published", LONG);
    await_every_row(&server, &broker, &walpost);
    // The one that was visible is certified, the other one is repeated.
    until(LONG, "the repeat", || broker.sends() == 3);
    let mut times: Vec<_> = arrivals(&broker).into_values().collect();
    times.sort_unstable();
    assert_eq!(times, [1, 2], "{}", walpost.log());
}

/// A slot's exported snapshot goes by commit records, so that it sees what waits for a standby. Nobody
/// else does, and the slot does not bring it: it must be waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_only_the_slots_snapshot_sees_is_waited_for() {
    let server = Postgres::builder().fast().start();
    let broker = ScriptedBroker::start();
    let settings = relay(&server, &broker);
    let init = settings.clone().arguments(["init"]).output(LONG);
    assert!(init.status.success(), "{init:?}");
    let again = "SELECT pg_drop_replication_slot('walpost'); DELETE FROM walpost.relay";
    server.sql("postgres", again);
    server.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'missing'");
    server.sql("postgres", "SELECT pg_reload_conf()");
    until(LONG, "commits wait", || {
        server.sql("postgres", "SHOW synchronous_standby_names") == "missing"
    });
    // The slot waits for the first, then for the second; the third one's commit lies between.
    let begin =
        "SET synchronous_commit = local; BEGIN; SELECT walpost.publish('/queue/q', '\"x\"')";
    let (first, second) = (server.client_to("postgres").await, server.client_to("postgres").await);
    first.batch_execute(begin).await.unwrap();
    let walpost = settings.start();
    let slot_waits_for = |xid: &str| {
        format!(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND transactionid = '{xid}'::xid8::xid"
        )
    };
    let xid = |row: tokio_postgres::Row| row.get::<_, String>(0);
    let current = "SELECT pg_current_xact_id()::text";
    let of_first = xid(first.query_one(current, &[]).await.unwrap());
    until(LONG, "the slot to wait", || server.sql("postgres", &slot_waits_for(&of_first)) == "1");
    second.batch_execute(begin).await.unwrap();
    let of_second = xid(second.query_one(current, &[]).await.unwrap());
    first.batch_execute("COMMIT").await.unwrap();
    until(LONG, "it to wait again", || server.sql("postgres", &slot_waits_for(&of_second)) == "1");
    let third = server.client_to("postgres").await;
    let waiting = tokio::spawn(async move {
        third.batch_execute("SELECT walpost.publish('/queue/q', '\"third\"')").await
    });
    until(LONG, "the third to wait for a standby", || {
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        server.sql("postgres", waits) == "1"
    });
    second.batch_execute("COMMIT").await.unwrap();
    let _ = walpost.wait_for_log("committed and not visible yet", LONG);
    assert_eq!(broker.sends(), 0, "{}", walpost.log());
    server.sql("postgres", "ALTER SYSTEM RESET synchronous_standby_names");
    server.sql("postgres", "SELECT pg_reload_conf()");
    waiting.await.unwrap().unwrap();
    broker.wait_for_sends(3, LONG);
    await_every_row(&server, &broker, &walpost);
}
