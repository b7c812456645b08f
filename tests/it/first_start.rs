//! The first start of `walpost run`: what it makes, what it leaves to an operator.

use walpost_testkit::walpost::Finished;
use walpost_testkit::{Consumer, http, until};

use crate::init;
use crate::rig::{LONG, Rig};

/// `walpost run` ends for good, with one line of an error.
fn stopped(finished: &Finished) -> &str {
    assert_eq!(finished.status.code(), Some(3), "{finished:?}");
    let errors = finished.stderr.lines().filter(|line| line.starts_with("error: "));
    let errors: Vec<_> = errors.collect();
    assert_eq!(errors.len(), 1, "{finished:?}");
    errors[0]
}

fn publish(rig: &Rig) {
    rig.vhost.declare_queue("orders.v1");
    rig.database.sql("SELECT walpost.publish('/queue/orders', '{}')");
    let _ = Consumer::of_queue(&rig.vhost, "orders.v1").wait_for(1, LONG);
}

#[test]
fn an_empty_database_gets_everything() {
    let rig = Rig::new();
    let mut walpost = rig.start();
    for thing in ["schema walpost", "table walpost.outbox", "publication walpost", "slot "] {
        let _ = walpost.wait_for_log(&format!("created {thing}"), LONG);
    }
    publish(&rig);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    // From then on nothing is made.
    let mut again = rig.start();
    assert!(!again.log().contains("created"), "{}", again.log());
    assert!(again.terminate(LONG).success());
}

#[test]
fn two_first_starts_at_once_make_it_once_and_one_stands_by() {
    let rig = Rig::new();
    let mut both = [rig.walpost().start(), rig.walpost().start()];
    both.iter_mut().for_each(|walpost| walpost.await_ready(LONG));
    until(LONG, "one to stand by", || {
        let phases = both.each_ref().map(|walpost| walpost.status()["phase"].clone());
        phases.contains(&"standby".into()) && phases.contains(&"streaming".into())
    });
    publish(&rig);
    assert!(both.iter_mut().all(|walpost| walpost.terminate(LONG).success()));
}

#[test]
fn a_publication_alone_is_no_obstacle() {
    let rig = Rig::new();
    rig.database.sql("CREATE SCHEMA walpost; CREATE PUBLICATION walpost");
    let walpost = rig.start();
    assert!(walpost.log().contains("changed publication walpost"), "{}", walpost.log());
    publish(&rig);
}

#[test]
fn nothing_is_made_where_it_is_not_wanted() {
    let rig = Rig::new();
    let run = rig.walpost().set("replication.create", false).output(LONG);
    let error = stopped(&run);
    assert!(error.contains("replication.create is false; 'walpost init' makes"), "{error}");
    let made = "SELECT (SELECT count(*) FROM pg_namespace WHERE nspname = 'walpost')
                     + (SELECT count(*) FROM pg_publication)";
    assert_eq!(rig.database.sql(made), "0");
}

#[test]
fn a_table_that_is_not_published_is_no_silent_loss() {
    let rig = Rig::new();
    let _ = init::init(&rig.database);
    rig.database.sql("ALTER PUBLICATION walpost DROP TABLE walpost.outbox");
    let run = rig.walpost().output(LONG);
    let error = stopped(&run);
    let text = "publication walpost does not cover walpost.outbox: walpost init adds it";
    assert!(error.contains(text), "{error}");
    rig.vhost.declare_queue("orders.v1");
    rig.database.sql("SELECT walpost.publish('/queue/orders', '{}')");
    assert!(init::init(&rig.database).contains("changed publication walpost"));
    // The slot has passed over that row.
    let run = rig.walpost().output(LONG);
    assert!(stopped(&run).contains("'walpost run --recover'"), "{run:?}");
    let mut running = rig.walpost().arguments(["run", "--recover"]).start();
    running.await_ready(LONG);
    let _ = Consumer::of_queue(&rig.vhost, "orders.v1").wait_for(1, LONG);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_must_wait_is_no_dead_process() {
    let rig = Rig::new();
    let lunch = rig.database.client().await;
    lunch.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.unwrap();
    let pid: i32 = lunch.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let mut walpost = rig.walpost().start();
    let line = walpost.wait_for_log("waiting for transactions", LONG);
    assert!(line.contains(&format!("pid {pid} (user postgres")), "{line}");
    let reason = http::get(walpost.http_port(), "/readyz").unwrap();
    assert_eq!(reason.status, 503);
    assert!(reason.text().contains(&format!("pid {pid}")), "{}", reason.text());

    // Longer than a relay may stand still before a supervisor ends it.
    let limit = walpost::telemetry::BEAT_LIMIT + std::time::Duration::from_secs(1);
    let started = std::time::Instant::now();
    until(LONG, "the limit to pass", || {
        let alive = http::get(walpost.http_port(), "/livez").unwrap();
        assert_eq!(alive.status, 200, "{}", alive.text());
        started.elapsed() > limit
    });
    lunch.batch_execute("COMMIT").await.unwrap();
    walpost.await_ready(LONG);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_that_was_killed_is_taken_up_by_the_next() {
    let rig = Rig::new();
    let lunch = rig.database.client().await;
    lunch.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.unwrap();
    let mut first = rig.walpost().start();
    let _ = first.wait_for_log("waiting for transactions", LONG);
    first.kill();
    let mut second = rig.walpost().start();
    let _ = second.wait_for_log("waiting for transactions", LONG);
    lunch.batch_execute("COMMIT").await.unwrap();
    second.await_ready(LONG);
    publish(&rig);
}
