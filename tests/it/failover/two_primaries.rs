//! Two servers that accept writes: what a failover leaves behind when the former primary was not shut down for good.

use walpost_testkit::walpost::Finished;
use walpost_testkit::{Crossroads, Postgres, until};

use super::{Pair, await_all_confirmed, confirmed, firsts, publish};
use crate::rig::{LONG, walpost};

const CONNECTS: &str = "walpost_connects_total{peer=\"postgresql\"}";

fn address(server: &Postgres) -> String {
    format!("127.0.0.1:{}", server.port())
}

#[track_caller]
fn stops_with(finished: &Finished, words: &str) {
    assert_eq!(finished.status.code(), Some(3), "{finished:?}");
    let mut errors = finished.stderr.lines().filter(|line| line.starts_with("error: "));
    let error = errors.next().unwrap_or_default();
    assert!(error.contains(words), "{words} is not in {error}");
    assert!(error.contains("shut the former primary down, and make it a standby"), "{error}");
}

#[test]
fn a_former_primary_that_accepts_writes_again_is_not_read_from() {
    let pair = Pair::new();
    let (former, new) = (&pair.primary, &pair.standby);
    // Before 17 the new primary has no slot: it is made again there.
    let relay = pair.walpost([former, new]).set("replication.on_slot_lost", "recover");
    let mut walpost = relay.start();
    walpost.await_ready(LONG);
    publish(former, 1, 20);
    await_all_confirmed(former);
    pair.await_standby();
    pair.fail_over();
    publish(new, 21, 30);
    await_all_confirmed(new);

    // It is back, takes rows, and stands first in the url.
    former.restart();
    publish(former, 101, 110);
    let there = confirmed(former);
    new.end_walsenders();
    let words = format!(
        "{} is on timeline 1, and walpost has read on timeline 2 before: a former primary",
        address(former)
    );
    stops_with(&walpost.finish(LONG), &words);
    // A new process has read nothing before; the other host tells.
    let words = format!(
        "{former} accepts writes on timeline 1, and {} on timeline 2: {former} is a former primary",
        address(new),
        former = address(former),
    );
    stops_with(&relay.output(LONG), &words);
    assert_eq!(confirmed(former), there, "the former primary's slot has moved");

    // The new one is found first: it is read from, and the other one named.
    let mut walpost = pair.walpost([new, former]).start();
    let words = format!("{} accepts writes on timeline 1, too", address(former));
    walpost.wait_for_log(&words, LONG);
    walpost.await_ready(LONG);
    publish(new, 31, 40);
    await_all_confirmed(new);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());

    // As the remedy says.
    former.kill();
    let mut walpost = relay.start();
    walpost.await_ready(LONG);
    publish(new, 41, 50);
    await_all_confirmed(new);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    assert!(!walpost.log().contains("former primary"), "{}", walpost.log());
    assert_eq!(firsts(&pair.broker), (1..=50).collect::<Vec<_>>());
}

#[test]
fn connections_that_reach_different_servers_are_refused_until_they_meet() {
    let pair = Pair::new();
    let road = Crossroads::to(pair.primary.port());
    let through = || {
        walpost()
            .set(
                "postgres.url",
                format!("postgresql://postgres@127.0.0.1:{}/postgres", road.port()),
            )
            .set("broker.hosts", pair.broker.address())
    };
    let mut walpost = through().start();
    walpost.await_ready(LONG);
    publish(&pair.primary, 1, 10);
    await_all_confirmed(&pair.primary);
    pair.await_standby();
    pair.standby.promote();

    road.lead_sql_to(pair.standby.port());
    let words = format!(
        "the SQL connection leads to another server than the replication connection, which is at \
         127.0.0.1:{}: a failover, or two servers of postgres.url that accept writes",
        road.port()
    );
    walpost.wait_for_log(&words, LONG);
    let there = confirmed(&pair.primary);
    publish(&pair.primary, 11, 20);
    // Refused each time that it comes back, and it shows.
    let before = walpost.metric(CONNECTS);
    until(LONG, "two more attempts", || walpost.metric(CONNECTS) >= before + 2.0);
    let status = walpost.status();
    assert_eq!(status["source"]["connected"], false, "{status}");
    assert_eq!(status["source"]["last_error"], words, "{status}");
    assert_eq!(pair.broker.sends(), 10);
    assert_eq!(confirmed(&pair.primary), there);

    // Nor is a slot made on the one for the other's row.
    let second = through().set("replication.slot", "second").arguments(["init"]).output(LONG);
    assert!(!second.status.success(), "{second:?}");
    assert!(second.stderr.contains(&words), "{second:?}");
    for server in [&pair.primary, &pair.standby] {
        let slots = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'second'";
        assert_eq!(server.sql("postgres", slots), "0");
    }

    road.lead_sql_to(pair.primary.port());
    await_all_confirmed(&pair.primary);
    assert_eq!(firsts(&pair.broker), (1..=20).collect::<Vec<_>>());
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
}

/// The reading of rows that wait connects anew whenever it has made way for somebody: another host may accept
/// writes by then, and have rows of its own.
#[test]
fn rows_that_wait_are_read_from_the_server_whose_slot_is_held_only() {
    const ROWS: u64 = 3_000;
    let pair = Pair::new();
    let road = Crossroads::to(pair.primary.port());
    let through = walpost()
        .set("postgres.url", format!("postgresql://postgres@127.0.0.1:{}/postgres", road.port()))
        .set("broker.hosts", pair.broker.address())
        .set("broker.in_flight.messages", 128);
    let mut walpost = through.start();
    walpost.await_ready(LONG);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    publish(&pair.primary, 1, ROWS);
    pair.await_rows();
    pair.standby.promote();
    publish(&pair.standby, 9_001, 9_010);

    pair.broker.freeze();
    let mut walpost = through.clone().arguments(["run", "--recover"]).start();
    until(LONG, "the window is full", || {
        walpost.metrics().get("walpost_in_flight_messages").copied() == Some(128.0)
    });
    road.lead_new_sql_to(pair.standby.port());
    pair.primary
        .sql("postgres", "ALTER TABLE walpost.outbox ADD COLUMN more float DEFAULT random()");
    walpost.wait_for_log("the reading of walpost.outbox makes way", LONG);
    pair.broker.thaw();
    walpost.wait_for_log("is not the server whose slot is held", LONG);
    road.lead_sql_to(pair.primary.port());
    publish(&pair.primary, ROWS + 1, ROWS + 1);
    await_all_confirmed(&pair.primary);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    assert_eq!(firsts(&pair.broker), (1..=ROWS + 1).collect::<Vec<_>>());
}

/// What is refused is kept on a connection of its own, which comes back by itself.
#[test]
fn what_is_refused_is_kept_on_the_server_whose_slot_is_held_only() {
    let pair = Pair::new();
    let road = Crossroads::to(pair.primary.port());
    let mut walpost = walpost()
        .set("postgres.url", format!("postgresql://postgres@127.0.0.1:{}/postgres", road.port()))
        .set("broker.hosts", pair.broker.address())
        .start();
    walpost.await_ready(LONG);
    publish(&pair.primary, 1, 10);
    await_all_confirmed(&pair.primary);
    pair.await_standby();
    pair.standby.promote();
    road.lead_new_sql_to(pair.standby.port());
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE query LIKE '%walpost.undelivered%' AND pid <> pg_backend_pid()";
    until(LONG, "its connection ends", || pair.primary.sql("postgres", end) != "0");
    let words =
        "walpost.undelivered: the host of postgres.url that accepts writes first is not the server";
    walpost.wait_for_log(words, LONG);
    road.lead_sql_to(pair.primary.port());
    publish(&pair.primary, 11, 20);
    await_all_confirmed(&pair.primary);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    assert_eq!(firsts(&pair.broker), (1..=20).collect::<Vec<_>>());
}
