//! `synchronized_standby_slots`: nothing is published that the standby does not have.

use walpost_testkit::{Postgres, until};

use super::{FAILOVER_SLOTS, Pair, await_all_confirmed, firsts, publish};
use crate::rig::LONG;

const SETTING: &str = "synchronized_standby_slots";

fn set(server: &Postgres, value: &str) {
    server.sql("postgres", &format!("ALTER SYSTEM SET {SETTING} = '{value}'"));
    server.sql("postgres", "SELECT pg_reload_conf()");
    until(LONG, "it is set", || server.sql("postgres", &format!("SHOW {SETTING}")) == value);
}

/// PostgreSQL has read what was committed, and waits for the standby before it sends it.
fn await_held_back(server: &Postgres) {
    let sql = "SELECT count(*) FROM pg_replication_slots s JOIN pg_stat_activity a ON a.pid = s.active_pid
        WHERE s.slot_type = 'logical' AND a.wait_event = 'WaitForStandbyConfirmation'";
    until(LONG, "the walsender waits for the standby", || server.sql("postgres", sql) == "1");
}

#[test]
fn what_the_standby_lacks_is_not_published_and_an_operator_sees_why() {
    let pair = Pair::new();
    let mut walpost = pair.walpost([&pair.primary, &pair.standby]).start();
    walpost.await_ready(LONG);
    if pair.primary.major() < FAILOVER_SLOTS {
        // Nothing is held back there, and nothing said.
        let known = format!("SELECT count(*) FROM pg_settings WHERE name = '{SETTING}'");
        assert_eq!(pair.primary.sql("postgres", &known), "0");
        pair.primary.hold_back_standby();
        publish(&pair.primary, 1, 10);
        await_all_confirmed(&pair.primary);
        assert_eq!(pair.broker.sends(), 10);
        assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
        assert!(!walpost.log().contains("is held back"), "{}", walpost.log());
        return;
    }
    set(&pair.primary, "standby");
    publish(&pair.primary, 1, 10);
    await_all_confirmed(&pair.primary);
    pair.await_standby();
    assert!(!walpost.log().contains("is held back"), "{}", walpost.log());

    pair.primary.hold_back_standby();
    publish(&pair.primary, 11, 20);
    await_held_back(&pair.primary);
    let line = walpost.wait_for_log("slot walpost is held back", LONG);
    assert!(
        line.contains("standbys in synchronized_standby_slots have (standby is at 0/"),
        "{line}"
    );
    assert!(line.contains("ALTER SYSTEM SET synchronized_standby_slots = ''; SELECT"), "{line}");
    assert_eq!(pair.broker.sends(), 10, "the standby does not have more");
    // The standby catches up.
    pair.primary.thaw_walsenders();
    await_all_confirmed(&pair.primary);
    assert_eq!(firsts(&pair.broker), (1..=20).collect::<Vec<_>>());
    pair.await_standby();

    // What was not published is what goes down with the primary.
    pair.primary.hold_back_standby();
    publish(&pair.primary, 21, 30);
    await_held_back(&pair.primary);
    pair.fail_over();
    publish(&pair.standby, 31, 40);
    await_all_confirmed(&pair.standby);
    walpost.wait_for_log("this server has the rows of all that was published", LONG);
    let expected: Vec<u64> = (1..=20).chain(31..=40).collect();
    assert_eq!(firsts(&pair.broker), expected);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
}
