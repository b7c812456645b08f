//! Nothing is lost, invented or put out of order when walpost, the broker or PostgreSQL is killed
//! under load, and nothing is repeated without need.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use walpost_testkit::sandbox::send;
use walpost_testkit::{Postgres, RabbitMq, Signal, Walpost, until};

use crate::load::{Life, Stage, repeats_of_lives};
use crate::rig::LONG;

const KILLS: usize = 20;

fn gauge(walpost: &Walpost, name: &str, value: f64) -> bool {
    walpost.metrics().get(name) == Some(&value)
}

#[test]
fn twenty_kills_of_walpost_lose_nothing() {
    let mut stage = Stage::new("twenty kills", Postgres::shared(), RabbitMq::shared());
    stage.init();
    let (load, reader) = (stage.load(2000), stage.reader());
    let (mut lives, mut hits) = (Vec::new(), Vec::new());
    for kill in 0..KILLS {
        // Two of them with a broker that is near, for what only speed shows.
        let near = kill % 7 == 6;
        let delay = if near { 0 } else { stage.rng.u64(200..400) };
        stage.tap.delay(Duration::from_millis(delay));
        let started = Instant::now();
        let mut walpost = stage.walpost().start();
        until(LONG, "walpost sends", || stage.tap.since(started).0 > 0);
        stage.random_moment(Duration::from_secs(1));
        lives.push(Life { started, killed: Instant::now() });
        walpost.kill();
        hits.push((lives.len() - 1, stage.tap.since(started).1));
        if kill % 5 == 4 {
            // One more in the middle of starting; not counted, it may have nothing in flight.
            let started = Instant::now();
            let mut walpost = stage.walpost().start();
            stage.random_moment(Duration::from_millis(400));
            lives.push(Life { started, killed: Instant::now() });
            walpost.kill();
        }
    }
    let started = Instant::now();
    let mut walpost = stage.walpost().start();
    walpost.await_ready(LONG);
    let (journal, repeats) = stage.judge(load, reader);
    lives.push(Life { started, killed: Instant::now() });

    let connections = stage.tap.connections();
    let found = repeats_of_lives(&lives, &connections, &journal, Duration::from_secs(1));
    for (life, unreceipted) in &hits {
        println!("kill with {unreceipted} unreceipted: {:?}", found[*life]);
    }
    let sent_again: usize = found.iter().map(|life| life.repeats).sum();
    assert!(repeats.len() <= sent_again, "{} arrived again, {sent_again} sent", repeats.len());
    let hit = hits.iter().filter(|(_, unreceipted)| *unreceipted >= 100).count();
    assert!(hit >= 15, "only {hit} kills found 100 messages unreceipted: {hits:?}");
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn a_killed_broker_loses_nothing() {
    // Bodies of all sizes in one store. With its default, 4096, RabbitMQ writes shorter ones with the
    // queue's index and longer ones elsewhere; killed, it may lose an unconfirmed longer one and keep
    // shorter ones that came after it, and then the order of arrival is not in anybody's hands.
    let broker = RabbitMq::start_with("queue_index_embed_msgs_below = 65536\n");
    let mut stage = Stage::new("killed broker", Postgres::shared(), &broker);
    stage.init();
    stage.tap.delay(Duration::from_millis(100));
    let mut walpost = stage.walpost().start();
    walpost.await_ready(LONG);
    let load = stage.load(1000);
    for _ in 0..2 {
        stage.await_sends(1000);
        stage.random_moment(Duration::from_millis(500));
        broker.kill();
        broker.restart();
    }
    stage.await_sends(1000);
    let (_, repeats) = stage.judge(load, stage.reader());
    let connections = stage.tap.connections();

    // Again only what had no receipt when its connection was lost, or one that may have been lost
    // with it.
    let mut last = std::collections::HashMap::new();
    let mut sent_again = 0;
    for connection in &connections {
        for send in &connection.sends {
            let Some((receipted, closed)) =
                last.insert(send.serial, (send.receipted, connection.closed))
            else {
                continue;
            };
            sent_again += 1;
            let closed: Instant = closed.expect("sent again, so the connection was lost");
            let since = receipted.map(|at: Instant| closed.saturating_duration_since(at));
            let lost_with_it = since.is_none_or(|since| since < Duration::from_millis(500));
            assert!(lost_with_it, "row {} was sent again, receipted {since:?} before", send.serial);
        }
    }
    println!("{sent_again} sent again");
    assert!(sent_again >= 2, "the kills hit nothing");
    assert!(repeats.len() <= sent_again, "{} arrived again, {sent_again} sent", repeats.len());
    // walpost also counts what it wrote to a connection that was lost before it left the machine.
    assert!(walpost.metric("walpost_messages_resent_total") >= sent_again as f64);
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn a_killed_postgresql_loses_and_repeats_nothing() {
    let server = Postgres::start();
    let mut stage = Stage::new("killed PostgreSQL", &server, RabbitMq::shared());
    stage.init();
    stage.tap.delay(Duration::from_millis(100));
    // A window that is nearly always full: sessions end in the middle of transactions.
    let mut walpost = stage.walpost().set("broker.in_flight.messages", 128).start();
    walpost.await_ready(LONG);
    let (load, reader) = (stage.load(1500), stage.reader());
    for kill in 0..3 {
        stage.await_sends(1000);
        stage.random_moment(Duration::from_millis(500));
        if kill == 1 {
            server.kill()
        } else {
            server.stop_immediate()
        }
        server.restart();
        let started = format!("test {kill}");
        until(LONG, &started, || gauge(&walpost, r#"walpost_connected{peer="postgresql"}"#, 1.0));
    }
    stage.await_sends(1000);
    let (_, repeats) = stage.judge(load, reader);

    assert_eq!(repeats.len(), 0, "came again: {:?} …", repeats.first());
    assert_eq!(stage.sent_again(), 0);
    assert_eq!(walpost.metric("walpost_messages_resent_total"), 0.0);
    assert_eq!(walpost.metric(r#"walpost_connects_total{peer="broker"}"#), 1.0);
    assert!(walpost.metric(r#"walpost_connects_total{peer="postgresql"}"#) >= 4.0);
    let known = walpost.metric(r#"walpost_rows_skipped_total{reason="known"}"#);
    println!("{known} rows came again from the slot and were recognised");
    assert!(known > 0.0, "the slot sent nothing again: the kills hit nothing");
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn a_stop_in_good_order_repeats_nothing() {
    let mut stage = Stage::new("stop in good order", Postgres::shared(), RabbitMq::shared());
    stage.init();
    stage.tap.delay(Duration::from_millis(150));
    let (load, reader) = (stage.load(2000), stage.reader());
    for _ in 0..6 {
        let started = Instant::now();
        let mut walpost = stage.walpost().start();
        until(LONG, "walpost sends", || stage.tap.since(started).0 > 0);
        stage.random_moment(Duration::from_millis(500));
        let (_, in_flight) = stage.tap.since(started);
        let status = walpost.terminate(LONG);
        assert_eq!(status.code(), Some(0), "{}", walpost.log());
        let (sent, unreceipted) = stage.tap.since(started);
        println!("stopped with {in_flight} in flight, {sent} sent");
        assert_eq!(unreceipted, 0, "it did not wait for the receipts: {}", walpost.log());
    }
    let mut walpost = stage.walpost().start();
    walpost.await_ready(LONG);
    let (_, repeats) = stage.judge(load, reader);
    assert_eq!(repeats.len(), 0, "came again: {:?} …", repeats.first());
    assert_eq!(stage.sent_again(), 0);
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn a_standby_takes_over() {
    let server = Postgres::builder().fast().start();
    let stage = Stage::new("standby", &server, RabbitMq::shared());
    stage.init();
    stage.tap.delay(Duration::from_millis(100));
    let mut first = stage.walpost().start();
    first.await_ready(LONG);
    assert!(gauge(&first, "walpost_standby", 0.0), "{:?}", first.metrics());
    let (load, reader) = (stage.load(1000), stage.reader());
    let standby = || {
        let mut waiting = stage.walpost().start();
        until(LONG, "a standby", || gauge(&waiting, "walpost_standby", 1.0));
        waiting.await_ready(LONG);
        assert_eq!(waiting.status()["phase"], "standby");
        waiting
    };
    let takes_over = |next: &mut Walpost| {
        until(LONG, "the standby takes over", || gauge(next, "walpost_standby", 0.0));
        next.await_ready(LONG);
        until(LONG, "it sends", || next.metric("walpost_messages_sent_total") > 500.0);
    };
    let walsender = || -> i32 {
        let name = stage.database.name();
        let active = format!(
            "SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{name}' AND active"
        );
        server.sql("postgres", &active).parse().expect("somebody has the slot")
    };
    let still_waits = |waiting: &Walpost| {
        let log = server.folder().path().join("server.log");
        let refusals =
            || std::fs::read_to_string(&log).unwrap().matches("is active for PID").count();
        let look = || {
            let name = stage.database.name();
            let looks = format!(
                "SELECT max(query_start) FROM pg_stat_activity WHERE datname = '{name}'
                AND application_name = 'walpost' AND query LIKE 'SELECT active_pid FROM %'"
            );
            server.sql("postgres", &looks)
        };
        let before = refusals();
        let mut looks = HashSet::from([look()]);
        until(LONG, "the standby looks at the slot", || {
            looks.insert(look());
            looks.len() > 8
        });
        assert!(refusals() <= before + 1, "the standby fills the server's log");
        assert!(gauge(waiting, "walpost_standby", 1.0), "{}", waiting.log());
        assert!(gauge(waiting, "walpost_messages_sent_total", 0.0), "{}", waiting.log());
    };

    // The first one is gone at once.
    let mut second = standby();
    still_waits(&second);
    first.kill();
    takes_over(&mut second);

    // The old one hangs, and with it its walsender; then it dies.
    let mut third = standby();
    second.freeze();
    still_waits(&third);
    second.kill();
    takes_over(&mut third);

    // The old one dies, and its walsender hangs on to the slot.
    let mut fourth = standby();
    let old = walsender();
    send(old, Signal::STOP);
    third.kill();
    still_waits(&fourth);
    assert_eq!(walsender(), old);
    send(old, Signal::CONT);
    takes_over(&mut fourth);

    // The old one hangs, loses the slot, and comes back: it is the standby now, and takes over again.
    let mut fifth = standby();
    fourth.freeze();
    still_waits(&fifth);
    server.sql("postgres", &format!("SELECT pg_terminate_backend({})", walsender()));
    takes_over(&mut fifth);
    fourth.thaw();
    until(LONG, "the old one waits", || gauge(&fourth, "walpost_standby", 1.0));
    fifth.kill();
    until(LONG, "it takes over again", || gauge(&fourth, "walpost_standby", 0.0));
    fourth.await_ready(LONG);

    let _ = stage.judge(load, reader);
    assert!(fourth.terminate(LONG).success());
}
