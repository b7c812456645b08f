//! A physical standby is promoted. Where the server keeps failover slots (17 and later) nothing that the
//! new primary has is lost, and what it lacks is named; before, the slot is missing there, which is told.

mod standby_slots;
mod two_primaries;

use std::collections::HashSet;

use walpost_testkit::walpost::Builder;
use walpost_testkit::{Postgres, ScriptedBroker, Walpost, until};

use crate::init;
use crate::rig::{LONG, walpost};
use crate::scene::numbers;

/// The first version with failover slots.
const FAILOVER_SLOTS: u32 = 17;

/// A primary with a slot, its standby, and a broker.
struct Pair {
    primary: Postgres,
    standby: Postgres,
    broker: ScriptedBroker,
}

impl Pair {
    fn new() -> Self {
        let primary = Postgres::builder().fast().start();
        let standby = primary.standby();
        Pair { primary, standby, broker: ScriptedBroker::start() }
    }

    /// A walpost that knows both hosts, in this order.
    fn walpost(&self, hosts: [&Postgres; 2]) -> Builder {
        let hosts = hosts.map(|host| format!("127.0.0.1:{}", host.port())).join(",");
        walpost()
            .set("postgres.url", format!("postgresql://postgres@{hosts}/postgres"))
            .set("broker.hosts", self.broker.address())
    }

    /// Waits until the standby has every row.
    fn await_rows(&self) {
        let lsn = self.primary.sql("postgres", "SELECT pg_current_wal_insert_lsn()");
        let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{lsn}'");
        until(LONG, "the standby has the rows", || self.standby.sql("postgres", &replayed) == "t");
    }

    /// Waits until the standby has everything, and the slot where it can have one.
    fn await_standby(&self) {
        self.await_rows();
        if self.standby.major() < FAILOVER_SLOTS {
            return;
        }
        let synced = format!(
            "SELECT synced AND NOT temporary AND confirmed_flush_lsn >= '{}' FROM pg_replication_slots",
            confirmed(&self.primary)
        );
        until(LONG, "the standby has the slot", || {
            // Without it the new slot's position lies behind what the standby keeps.
            self.primary.sql("postgres", "SELECT pg_log_standby_snapshot()");
            self.standby.sql("postgres", &synced) == "t"
        });
    }

    /// The primary goes at once, and its standby takes its place.
    fn fail_over(&self) {
        self.primary.kill();
        self.standby.promote();
    }
}

/// A transaction for each of the numbers.
fn publish(server: &Postgres, from: u64, to: u64) {
    server.sql(
        "postgres",
        &format!(
            "DO $$ BEGIN FOR i IN {from}..{to} LOOP
               PERFORM walpost.publish('/queue/q', jsonb_build_object('n', i)); COMMIT;
             END LOOP; END $$"
        ),
    );
}

fn confirmed(server: &Postgres) -> String {
    let sql = "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_type = 'logical'";
    server.sql("postgres", sql)
}

#[track_caller]
fn await_all_confirmed(server: &Postgres) {
    let lsn = server.sql("postgres", "SELECT pg_current_wal_insert_lsn()");
    // The slot may be made only now.
    let reached = format!(
        "SELECT count(*) FROM pg_replication_slots
         WHERE slot_type = 'logical' AND confirmed_flush_lsn >= '{lsn}'"
    );
    until(LONG, "all is confirmed", || server.sql("postgres", &reached) == "1");
}

/// Without failover slots walpost ends, and says what an operator can do.
#[track_caller]
fn stops_without_its_slot(walpost: Walpost) {
    let finished = walpost.finish(LONG);
    assert_eq!(finished.status.code(), Some(3), "{finished:?}");
    let mut errors = finished.stderr.lines().filter(|line| line.starts_with("error: "));
    let error = errors.next().unwrap_or_default();
    for part in [
        "slot walpost does not exist any more: it was confirmed up to ",
        "Either publish those rows out of the table: 'walpost run --recover'",
        "or accept the gap: DELETE FROM walpost.relay WHERE slot = 'walpost', then walpost init",
    ] {
        assert!(error.contains(part), "{part} is not in {error}");
    }
}

/// The messages in the order in which they came first. Rows that are not known to be delivered come
/// again after a failover.
fn firsts(broker: &ScriptedBroker) -> Vec<u64> {
    let mut seen = HashSet::new();
    numbers(&broker.messages()).into_iter().filter(|n| seen.insert(*n)).collect()
}

/// The messages that walpost names as published and missing on the server.
fn named(line: &str) -> Vec<&str> {
    let (_, ids) = line.rsplit_once("which it does not have: ").unwrap_or_default();
    ids.split(' ').collect()
}

#[test]
fn what_the_new_primary_has_arrives_and_what_it_lacks_is_named() {
    let pair = Pair::new();
    let mut walpost = pair.walpost([&pair.primary, &pair.standby]).start();
    walpost.await_ready(LONG);
    publish(&pair.primary, 1, 50);
    await_all_confirmed(&pair.primary);
    pair.await_standby();

    // On both, and without receipts until the primary goes its way alone.
    pair.broker.freeze();
    publish(&pair.primary, 51, 100);
    let lsn = pair.primary.sql("postgres", "SELECT pg_current_wal_insert_lsn()");
    let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{lsn}'");
    until(LONG, "the standby has the rows", || pair.standby.sql("postgres", &replayed) == "t");
    pair.primary.hold_back_standby();
    publish(&pair.primary, 101, 130);
    let alone =
        pair.primary.sql("postgres", "SELECT id FROM walpost.outbox ORDER BY (body->>'n')::int");
    let alone: Vec<&str> = alone.lines().skip(100).collect();
    pair.broker.thaw();
    pair.broker.wait_for_sends(130, LONG);
    await_all_confirmed(&pair.primary);
    let past = confirmed(&pair.primary);
    pair.fail_over();
    // Positions that were given to others before.
    let here = pair.standby.sql("postgres", "SELECT pg_current_wal_insert_lsn()");
    let reused = pair.standby.sql("postgres", &format!("SELECT '{here}' < '{past}'::pg_lsn"));
    assert_eq!(reused, "t", "{here} is not before {past}");

    if pair.standby.major() < FAILOVER_SLOTS {
        publish(&pair.standby, 201, 230);
        return stops_without_its_slot(walpost);
    }
    publish(&pair.standby, 201, 230);
    await_all_confirmed(&pair.standby);
    let expected: Vec<u64> = (1..=130).chain(201..=230).collect();
    assert_eq!(firsts(&pair.broker), expected);
    let line = walpost.wait_for_log("messages were published of rows committed at LSN", LONG);
    assert!(line.contains(" and 30 messages were published of rows"), "{line}");
    let last = alone.iter().skip(10).copied();
    let named = named(line.trim_end_matches(", and 10 before them"));
    assert_eq!(named, last.collect::<Vec<_>>(), "{line}");
    walpost.await_ready(LONG);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
}

#[test]
fn a_walpost_that_is_started_after_the_failover_goes_on_from_the_slot() {
    let pair = Pair::new();
    let relay = pair.walpost([&pair.standby, &pair.primary]);
    let mut walpost = relay.start();
    walpost.await_ready(LONG);
    publish(&pair.primary, 1, 50);
    await_all_confirmed(&pair.primary);
    pair.await_standby();
    walpost.kill();
    publish(&pair.primary, 51, 80);
    let lsn = pair.primary.sql("postgres", "SELECT pg_current_wal_insert_lsn()");
    let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{lsn}'");
    until(LONG, "the standby has the rows", || pair.standby.sql("postgres", &replayed) == "t");
    pair.fail_over();
    publish(&pair.standby, 101, 130);
    if pair.standby.major() >= FAILOVER_SLOTS {
        // As tools do that keep slots on standbys: what they pass over comes out of the table.
        let advance = "SELECT pg_replication_slot_advance('walpost', pg_current_wal_flush_lsn())";
        pair.standby.sql("postgres", advance);
    }

    let mut walpost = relay.start();
    if pair.standby.major() < FAILOVER_SLOTS {
        stops_without_its_slot(walpost);
        // Or it is made again, and the rows come out of the table.
        walpost = relay.set("replication.on_slot_lost", "recover").start();
    }
    walpost.await_ready(LONG);
    await_all_confirmed(&pair.standby);
    let expected: Vec<u64> = (1..=80).chain(101..=130).collect();
    assert_eq!(firsts(&pair.broker), expected);
    if pair.standby.major() >= FAILOVER_SLOTS {
        let line = walpost.wait_for_log("timeline 1 ended at ", LONG);
        assert!(line.contains("this walpost was started since"), "{line}");
    }
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
}

#[test]
fn the_slot_is_a_failover_slot_where_the_server_has_them() {
    let database = Postgres::shared().fresh_database();
    let can = Postgres::shared().major() >= FAILOVER_SLOTS;
    let is_one = || {
        let failover = if can { "failover" } else { "false" };
        database.sql(&format!(
            "SELECT {failover} FROM pg_replication_slots WHERE slot_name = '{}'",
            database.name()
        )) == "t"
    };
    let broker = ScriptedBroker::start();
    let with = |failover: &str, arguments: &[&str]| {
        walpost()
            .arguments(arguments.iter().copied())
            .set("postgres.url", database.url())
            .set("replication.slot", database.name())
            .set("replication.failover", failover)
            .set("broker.hosts", broker.address())
    };
    let init = |failover: &str| with(failover, &["init"]).output(LONG);
    let run = |failover: &str| with(failover, &["run"]);

    if !can {
        for finished in [init("true"), run("true").output(LONG)] {
            assert!(!finished.status.success(), "{finished:?}");
            assert!(finished.stderr.contains("has no failover slots"), "{finished:?}");
        }
        assert!(init::init(&database).contains("created slot "));
        assert!(!is_one());
        return;
    }
    let other = Postgres::shared().fresh_database();
    assert!(init::init(&other).contains("created slot "));
    let made =
        format!("SELECT failover FROM pg_replication_slots WHERE slot_name = '{}'", other.name());
    assert_eq!(other.sql(&made), "t");
    assert!(init("false").status.success());
    assert!(!is_one());
    // Said, or refused where it was asked for; `init` mends it, but not under a reader.
    let mut walpost = run("auto").start();
    let note = walpost.wait_for_log("is no failover slot", LONG);
    assert!(note.contains("walpost init makes it one"), "{note}");
    let finished = run("true").output(LONG);
    assert_eq!(finished.status.code(), Some(3), "{finished:?}");
    assert!(finished.stderr.contains("is no failover slot"), "{finished:?}");
    let active =
        format!("SELECT active FROM pg_replication_slots WHERE slot_name = '{}'", database.name());
    until(LONG, "it streams", || database.sql(&active) == "t");
    let busy = init("auto");
    assert!(busy.stdout.contains("is in use and stays no failover slot"), "{busy:?}");
    walpost.kill();
    until(LONG, "the slot is free", || database.sql(&active) == "f");
    let mended = init("auto");
    assert!(mended.stdout.contains("(a failover slot now)"), "{mended:?}");
    assert!(is_one());
    assert!(init("true").stdout.contains("exists slot "));
}
