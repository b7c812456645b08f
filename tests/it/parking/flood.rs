//! 30 000 messages to a destination that RabbitMQ refuses, among 300 000.

use std::collections::BTreeSet;

use walpost_testkit::walpost::release_binary;
use walpost_testkit::{Consumer, Postgres, RabbitMq, Walpost, until};

use crate::rig::LONG;
use crate::scene::{await_all_confirmed, number};

const ALL: u64 = 300_000;
/// Every tenth goes to the exchange that is not there.
const EACH: u64 = 10;
/// For the flood, on two slow processors.
const VERY_LONG: std::time::Duration = std::time::Duration::from_secs(300);
const BOUNDED: u64 = 64 << 20;

fn firsts(messages: &[walpost_testkit::Message]) -> Vec<u64> {
    let mut seen = BTreeSet::new();
    let numbers = messages.iter().filter_map(|message| number(&message.body));
    numbers.filter(|n| seen.insert(*n)).collect()
}

#[test]
fn the_others_flow_and_all_arrive_in_order_once_it_is_repaired() {
    let database = Postgres::shared().fresh_database();
    let vhost = RabbitMq::shared().fresh_vhost();
    vhost.declare_queue("good");
    vhost.declare_queue("late");
    let settings = Walpost::builder(release_binary())
        .set("postgres.url", database.url())
        .set("replication.slot", database.name())
        .set("broker.hosts", vhost.broker().stomp_address())
        .set("broker.vhost", vhost.name())
        .set("retry.first_wait", "100ms")
        .set("retry.pause", "1s")
        .set("retry.wait", "1s")
        .set("retry.max_attempts", "100000");
    let mut walpost = settings.start();
    walpost.await_ready(LONG);
    let good = Consumer::of_queue(&vhost, "good");
    database.sql(&format!(
        "DO $$ BEGIN FOR t IN 0..{ALL} / 1000 - 1 LOOP
           INSERT INTO walpost.outbox (destination, version, body)
           SELECT CASE WHEN n % {EACH} = 0 THEN '/exchange/missing/x' ELSE '/amq/queue/good' END, NULL,
               jsonb_build_object('n', n, 'pad', repeat('x', 150))
           FROM generate_series(t * 1000 + 1, t * 1000 + 1000) n;
           COMMIT;
         END LOOP; END $$"
    ));
    // The others arrive without waiting, and the log is let go of, while 30 000 are refused.
    let others = ALL - ALL / EACH;
    good.wait_until(VERY_LONG, "the others have come", |state| {
        state.messages.len() as u64 >= others
    });
    await_all_confirmed(&database);
    let kept = "SELECT count(*) FROM walpost.undelivered WHERE state = 'retrying'";
    until(LONG, "all that is refused is kept", || database.sql(kept) == (ALL / EACH).to_string());
    let expected: Vec<u64> = (1..=ALL).filter(|n| n % EACH != 0).collect();
    assert!(firsts(&good.messages()) == expected, "in order");
    assert!(walpost.vm_hwm() < BOUNDED, "{} bytes", walpost.vm_hwm());
    let status = walpost.status();
    assert_eq!(status["undelivered"]["parked"], 1, "{status}");
    walpost.kill();

    let mut walpost = settings.start();
    walpost.await_ready(LONG);
    vhost.declare_exchange("missing", "direct");
    vhost.bind("missing", "late", "x");
    let late = Consumer::of_queue(&vhost, "late");
    late.wait_until(VERY_LONG, "the refused have come", |state| {
        state.messages.len() as u64 >= ALL / EACH
    });
    until(LONG, "nothing is kept", || database.sql(kept) == "0");
    walpost.wait_for_log("/exchange/missing/x takes messages again", LONG);
    let expected: Vec<u64> = (1..=ALL).filter(|n| n % EACH == 0).collect();
    assert!(firsts(&late.messages()) == expected, "in order");
    assert!(walpost.vm_hwm() < BOUNDED, "{} bytes", walpost.vm_hwm());
    await_all_confirmed(&database);
    assert!(walpost.terminate(LONG).success());
}
