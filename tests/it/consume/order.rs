//! How much is taken at a time, and in which order it is handled.

use walpost_testkit::until;

use super::{Desk, consuming};
use crate::rig::LONG;

#[test]
fn no_more_is_taken_than_prefetch_says() {
    let desk = Desk::new();
    let three = r#"[{"destination": "/queue/q", "handler": {"call": "handle"}, "prefetch": 3}]"#;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let holder = runtime.block_on(desk.rig.database.client());
    let hold = |sql: &str| runtime.block_on(holder.batch_execute(sql)).unwrap();
    hold("SELECT pg_advisory_lock(7)");
    let builder = desk.subscribe(&["/queue/q", "--call", "handle"]).set("consumers", three);
    let mut walpost = consuming(&builder);
    let mut sender = desk.sender();
    for n in 0..10 {
        sender.q(&n.to_string(), r#"{"wait": 7}"#);
    }
    // A sum that the broker makes at one moment.
    let seen = || {
        let queue = desk.rig.vhost.queue("q");
        (queue["messages_unacknowledged"].as_u64(), queue["messages_ready"].as_u64())
    };
    until(LONG, "three are taken", || seen() == (Some(3), Some(7)));
    hold("SELECT pg_advisory_unlock(7)");
    desk.await_effects(10);
    desk.await_empty("q");
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn at_the_same_time_but_those_of_a_key_in_their_order() {
    const KEYS: usize = 8;
    const EACH: usize = 25;
    let desk = Desk::new();
    let four = r#"[{"destination": "/queue/q", "handler": {"call": "handle"}, "prefetch": 40, "concurrency": 4}]"#;
    let builder = desk.subscribe(&["/queue/q", "--call", "handle"]).set("consumers", four);
    let mut walpost = consuming(&builder);
    let mut sender = desk.sender();
    for n in 0..EACH {
        for key in 0..KEYS {
            let (id, key) = (format!("{key}-{n}"), key.to_string());
            sender.send("/amq/queue/q", &[("msg-id", &id), ("msg-key", &key)], n.to_string());
        }
    }
    desk.await_effects((KEYS * EACH) as u64);
    let ordered = "SELECT bool_and(sorted) FROM (
        SELECT array_agg(body::integer ORDER BY n) = array_agg(body::integer ORDER BY body::integer) AS sorted
        FROM effects GROUP BY headers ->> 'msg-key') AS keys";
    assert_eq!(desk.sql(ordered), "t");
    assert!(desk.sql("SELECT count(DISTINCT pid) FROM effects").parse::<u32>().unwrap() > 1);
    desk.await_empty("q");
    assert!(walpost.terminate(LONG).success());
}
