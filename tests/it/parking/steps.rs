//! walpost is killed at each step of the protocol: nothing is lost, and the order stays.

use walpost_testkit::{Walpost, until};

use super::Stage;
use crate::rig::LONG;
use crate::scene::await_all_confirmed;

const LAST: u64 = 300;
const BAD: u64 = LAST / 3;

/// A session of the test's own that holds something against walpost.
struct Hold<'a> {
    client: tokio_postgres::Client,
    stage: &'a Stage,
}

impl<'a> Hold<'a> {
    async fn new(stage: &'a Stage, sql: &str) -> Self {
        let database = &stage.database;
        let client = database.server().client_to(database.name()).await;
        client.batch_execute(&format!("BEGIN; {sql}")).await.unwrap();
        Hold { client, stage }
    }

    /// Waits until walpost waits for it.
    fn await_waiter(&self, query: &str) {
        let sql = format!(
            "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'walpost' AND datname = current_database()
             AND wait_event_type = 'Lock' AND query LIKE '%{query}%'"
        );
        until(LONG, "walpost waits for the lock", || self.stage.database.sql(&sql) == "t");
    }

    async fn end(self) {
        self.client.batch_execute("ROLLBACK").await.unwrap();
    }
}

/// walpost, streaming, with the bad destination parked and everything else delivered.
fn parked(stage: &Stage) -> Walpost {
    let mut walpost = stage.walpost().start();
    walpost.await_ready(LONG);
    stage.publish(1, LAST);
    stage.await_kept("retrying", BAD);
    walpost
}

/// Once it is mended, all arrive in order and nothing is kept.
fn ends_well(stage: &Stage, mut walpost: Walpost, last: u64) {
    walpost.await_ready(LONG);
    stage.mend();
    stage.await_all_in_order(last);
    stage.await_kept("retrying", 0);
    until(LONG, "nothing is set aside", || {
        walpost.status()["broker"]["refused"].as_array().is_some_and(Vec::is_empty)
    });
    await_all_confirmed(&stage.database);
    stage.publish(last + 1, last + 30);
    stage.await_all_in_order(last + 30);
    assert!(walpost.terminate(LONG).success());
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_anything_is_kept() {
    let stage = Stage::new();
    let mut walpost = stage.walpost().start();
    walpost.await_ready(LONG);
    let hold =
        Hold::new(&stage, "LOCK TABLE walpost.undelivered IN SHARE ROW EXCLUSIVE MODE").await;
    stage.publish(1, LAST);
    hold.await_waiter("INSERT INTO walpost.undelivered");
    walpost.kill();
    hold.end().await;
    assert!(stage.firsts("/queue/bad.v1").is_empty());
    ends_well(&stage, stage.walpost().start(), LAST);
}

#[test]
fn killed_when_the_first_are_kept() {
    let stage = Stage::new();
    let mut walpost = stage.walpost().start();
    walpost.await_ready(LONG);
    stage.publish(1, LAST);
    until(LONG, "some are kept", || stage.kept("retrying") > 0);
    walpost.kill();
    let walpost = stage.walpost().start();
    stage.await_kept("retrying", BAD);
    ends_well(&stage, walpost, LAST);
}

#[test]
fn killed_while_parked() {
    let stage = Stage::new();
    let mut walpost = parked(&stage);
    // What is refused holds up nobody, nor the log.
    await_all_confirmed(&stage.database);
    walpost.kill();
    let mut walpost = stage.walpost().start();
    walpost.await_ready(LONG);
    stage.publish(LAST + 1, LAST + 30);
    stage.await_kept("retrying", BAD + 10);
    await_all_confirmed(&stage.database);
    walpost.kill();
    ends_well(&stage, stage.walpost().start(), LAST + 30);
}

#[test]
fn killed_between_the_attempt_and_the_send() {
    let stage = Stage::new();
    let mut walpost = parked(&stage);
    let attempts = || {
        let sql =
            "SELECT attempts FROM walpost.undelivered WHERE state = 'retrying' ORDER BY id LIMIT 1";
        stage.database.sql(sql).parse::<u32>().unwrap()
    };
    for _ in 0..5 {
        let before = attempts();
        until(LONG, "an attempt is counted", || attempts() > before);
        walpost.kill();
        walpost = stage.walpost().start();
    }
    ends_well(&stage, walpost, LAST);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_when_the_oldest_is_taken_and_not_deleted() {
    let stage = Stage::new();
    let mut walpost = parked(&stage);
    let hold = Hold::new(
        &stage,
        "SELECT FROM walpost.undelivered WHERE id = (SELECT min(id) FROM walpost.undelivered) FOR KEY SHARE",
    ).await;
    stage.mend();
    hold.await_waiter("DELETE FROM walpost.undelivered");
    assert_eq!(stage.firsts("/queue/bad.v1"), [3]);
    walpost.kill();
    hold.end().await;
    ends_well(&stage, stage.walpost().start(), LAST);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_draining() {
    let stage = Stage::new();
    let mut walpost = parked(&stage);
    let hold = Hold::new(
        &stage,
        "SELECT FROM walpost.undelivered WHERE id = (SELECT id FROM walpost.undelivered ORDER BY id OFFSET 40 LIMIT 1) FOR KEY SHARE",
    ).await;
    stage.mend();
    hold.await_waiter("DELETE FROM walpost.undelivered");
    stage.publish(LAST + 1, LAST + 30);
    walpost.kill();
    hold.end().await;
    ends_well(&stage, stage.walpost().start(), LAST + 30);
}

#[test]
fn killed_again_and_again() {
    let stage = Stage::new();
    let mut walpost = stage.walpost().start();
    walpost.await_ready(LONG);
    let mut rng = fastrand::Rng::with_seed(7);
    let mut last = 0;
    for round in 0..12 {
        stage.publish(last + 1, last + 60);
        last += 60;
        stage.refuses.store(round % 3 != 2, std::sync::atomic::Ordering::SeqCst);
        let sends = stage.broker.sends();
        stage.broker.wait_for_sends(sends + rng.u64(1..60), LONG);
        walpost.kill();
        walpost = stage.walpost().start();
    }
    ends_well(&stage, walpost, last);
}

#[test]
fn a_destination_that_is_refused_again_while_it_drains_keeps_its_order() {
    let stage = Stage::new();
    let walpost = parked(&stage);
    for arrived in [20, 50] {
        stage.mend();
        until(LONG, "some have arrived", || stage.firsts("/queue/bad.v1").len() >= arrived);
        stage.refuses.store(true, std::sync::atomic::Ordering::SeqCst);
        stage.publish(LAST + arrived as u64 * 3 - 59, LAST + arrived as u64 * 3 - 30);
    }
    stage.mend();
    until(LONG, "nothing is kept", || stage.kept("retrying") == 0);
    walpost.wait_for_log("/queue/bad.v1 takes messages again", LONG);
    await_all_confirmed(&stage.database);
    let firsts = stage.firsts("/queue/bad.v1");
    assert!(firsts.is_sorted() && firsts.len() == BAD as usize + 20, "{firsts:?}");
}
