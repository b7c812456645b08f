//! walpost and the brokers themselves killed under load. Artemis gets each message once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use walpost_testkit::{ActiveMq, Artemis, Consumer, Postgres, Said, Session, until};

use crate::load::{Life, Stage};
use crate::rig::LONG;
use crate::scene::{await_all_confirmed, database, relay};

const KILLS: usize = 8;

/// Kills walpost over and over. Gives what arrived more than once.
fn kills_of_walpost(mut stage: Stage<'_>, rows_per_second: u32) -> Vec<u64> {
    stage.init();
    let (load, reader) = (stage.load(rows_per_second), stage.reader());
    let mut hit = 0;
    for _ in 0..KILLS {
        let delay = stage.rng.u64(100..300);
        stage.tap.delay(Duration::from_millis(delay));
        let life = Life { started: Instant::now(), killed: Instant::now() };
        let mut walpost = stage.walpost().start();
        until(LONG, "walpost sends", || stage.tap.since(life.started).0 > 0);
        stage.random_moment(Duration::from_secs(1));
        walpost.kill();
        hit += stage.tap.since(life.started).1;
    }
    let mut walpost = stage.walpost().start();
    walpost.await_ready(LONG);
    let (_, repeats) = stage.judge(load, reader);
    assert!(walpost.terminate(LONG).success());
    let again = stage.sent_again();
    println!("{hit} messages unreceipted at the kills, {again} sent again");
    assert!(hit >= 50 * KILLS, "the kills found only {hit} messages unreceipted");
    assert!(repeats.len() <= again && again >= hit / 2, "{} repeats", repeats.len());
    repeats
}

/// Kills the broker under a load that is read afterwards. Gives what arrived more than once.
fn kills_of_broker(mut stage: Stage<'_>, kill: impl Fn(), rows_per_second: u32) -> Vec<u64> {
    stage.init();
    stage.tap.delay(Duration::from_millis(100));
    let mut walpost = stage.walpost().start();
    walpost.await_ready(LONG);
    let load = stage.load(rows_per_second);
    for _ in 0..2 {
        stage.await_sends(1000);
        stage.random_moment(Duration::from_millis(500));
        kill();
    }
    stage.await_sends(1000);
    let reader = stage.reader();
    let (_, repeats) = stage.judge(load, reader);
    assert!(walpost.metric("walpost_messages_resent_total") > 0.0, "the kills hit nothing");
    assert!(walpost.terminate(LONG).success());
    repeats
}

#[test]
fn of_walpost_on_activemq_lose_nothing() {
    let broker = ActiveMq::start();
    let stage = Stage::new("kills on ActiveMQ", Postgres::shared(), &broker);
    kills_of_walpost(stage, 1000);
}

#[test]
fn of_activemq_lose_nothing() {
    let broker = ActiveMq::start();
    let stage = Stage::new("killed ActiveMQ", Postgres::shared(), &broker);
    let kill = || {
        broker.kill();
        broker.restart();
    };
    kills_of_broker(stage, kill, 700);
}

#[test]
fn of_walpost_on_artemis_lose_and_repeat_nothing() {
    let broker = Artemis::start();
    let stage = Stage::new("kills on Artemis", Postgres::shared(), &broker);
    let repeats = kills_of_walpost(stage, 2000);
    assert_eq!(repeats.len(), 0, "arrived again: {:?} …", repeats.first());
}

#[test]
fn of_artemis_lose_and_repeat_nothing() {
    let broker = Artemis::start();
    let stage = Stage::new("killed Artemis", Postgres::shared(), &broker);
    let kill = || {
        broker.kill();
        broker.restart();
    };
    let repeats = kills_of_broker(stage, kill, 1000);
    assert_eq!(repeats.len(), 0, "arrived again: {:?} …", repeats.first());
}

#[test]
fn in_a_transaction_of_a_hundred_thousand_rows_on_artemis_repeat_nothing() {
    const ROWS: u64 = 100_000;
    const DESTINATION: &str = "/queue/hundred.thousand.v1";
    let broker = Artemis::shared();
    let database = database();
    // Beside all this: a connection that says nothing is ended after a minute.
    let mut silent = Session::connect(broker.stomp_port(), "/");
    let arrived = Arc::<Mutex<(BTreeSet<String>, u64)>>::default();
    let into = Arc::clone(&arrived);
    let _consumer = Consumer::builder(broker.stomp_port())
        .anycast()
        .subscribe(DESTINATION)
        .each(move |message| {
            let mut arrived = into.lock().unwrap();
            let new = arrived.0.insert(message.header("msg-id").unwrap().to_owned());
            arrived.1 += u64::from(!new);
        })
        .start();
    let count = || arrived.lock().unwrap().0.len() as u64;
    let relay = relay(&database, &broker.stomp_address());
    let mut walpost = relay.start();
    walpost.await_ready(LONG);
    database.sql(&format!(
        "INSERT INTO walpost.outbox (destination, body)
         SELECT '/queue/hundred.thousand', to_jsonb(n) FROM generate_series(1, {ROWS}) n"
    ));
    for part in 1..=4 {
        until(2 * LONG, "it is under way", || count() >= ROWS / 5 * part);
        walpost.kill();
        assert!(count() < ROWS, "it was killed too late");
        walpost = relay.start();
    }
    walpost.await_ready(2 * LONG);
    let said = format!("{} rows after the last kill, then every row", count());
    until(2 * LONG, &said, || count() == ROWS);
    await_all_confirmed(&database);
    assert!(walpost.terminate(LONG).success());
    let repeats = arrived.lock().unwrap().1;
    assert_eq!(repeats, 0, "messages that arrived again");
    let ends = |said: &Said| matches!(said, Said::Closed);
    until(2 * LONG, "the silent connection ends", || silent.next(LONG).as_ref().is_some_and(ends));
}
