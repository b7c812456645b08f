//! A relay that stood still while another one took the slot: it sends nothing and writes nothing.

use walpost_testkit::{ScriptedBroker, until};

use crate::rig::LONG;
use crate::scene::{database, relay};

#[test]
fn a_relay_that_thaws_after_another_took_over_sends_and_writes_nothing() {
    let database = database();
    let (slow, other) = (ScriptedBroker::start(), ScriptedBroker::start());
    let mut stopped = relay(&database, &slow.address()).start();
    stopped.await_ready(LONG);
    // More than sockets hold: the window is full, and most of it is not written yet.
    slow.freeze();
    database.sql(
        "INSERT INTO walpost.outbox (destination, body)
         SELECT '/queue/q', to_jsonb(n || repeat('x', 20000)) FROM generate_series(1, 2000) n",
    );
    until(LONG, "a full window", || {
        stopped.status()["in_flight"]["bytes"].as_u64() > Some(16_000_000)
    });
    stopped.freeze();
    // A walsender that was told so while its socket was full goes only when it is told again: it wants to tell
    // its client, and waits.
    let end = format!(
        "SELECT count(pg_terminate_backend(active_pid)) FROM pg_replication_slots WHERE slot_name = '{}'",
        database.name()
    );
    until(LONG, "the slot is free", || database.sql(&end) == "0");
    let mut second = relay(&database, &other.address()).start();
    second.await_ready(LONG);
    other.wait_for_sends(2000, LONG);
    let epoch = database.sql("SELECT epoch FROM walpost.relay");

    // What was written before is read; then there is nothing more.
    slow.thaw();
    slow.await_all_read(LONG);
    let before = slow.sends();
    stopped.thaw();
    let _ = stopped.wait_for_log("standby until the slot is free", LONG);
    assert_eq!(slow.sends(), before, "{}", stopped.log());
    assert!((1..1500).contains(&before), "{before}: the window was not full");
    assert_eq!(database.sql("SELECT epoch FROM walpost.relay"), epoch);

    // And it is a standby like any other.
    assert!(second.terminate(LONG).success(), "{}", second.log());
    until(LONG, "the first one to take over", || stopped.status()["phase"] == "streaming");
    assert_eq!(database.sql(&format!("SELECT epoch > {epoch} FROM walpost.relay")), "t");
}
