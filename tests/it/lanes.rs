//! Several connections to the broker: each key keeps to one, and one that is slow or lost holds up its own keys only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use walpost_testkit::scripted::Verdict;
use walpost_testkit::{ScriptedBroker, until};

use crate::rig::LONG;
use crate::scene::{await_all_confirmed, database, is_confirmed, number, position, relay};

const KEYS: u64 = 16;

/// Of each key the numbers `from` to `to`, one transaction.
fn insert(from: u64, to: u64) -> String {
    format!(
        "INSERT INTO walpost.outbox (destination, key, headers, body)
         SELECT '/queue/q', 'k' || k, jsonb_build_object('k', k), jsonb_build_object('n', n)
         FROM generate_series({from}, {to}) n, generate_series(1, {KEYS}) k ORDER BY n, k"
    )
}

/// What was stored: the connection, the key and the number, in order.
type Stored = Arc<Mutex<Vec<(usize, u64, u64)>>>;

#[track_caller]
fn assert_in_order(stored: &Stored, last: u64) {
    let mut of: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (_, key, n) in stored.lock().unwrap().iter().filter(|(_, key, n)| seen.insert((*key, *n))) {
        of.entry(*key).or_default().push(*n);
    }
    assert_eq!(of.len() as u64, KEYS);
    for (key, numbers) in of {
        assert_eq!(numbers, (1..=last).collect::<Vec<u64>>(), "key {key}");
    }
}

#[test]
fn each_key_keeps_to_one_connection_and_a_lost_one_comes_back_in_order() {
    let stored = Stored::default();
    let store = Arc::clone(&stored);
    // Each of the first four is closed at its 50th message.
    let broker = ScriptedBroker::builder()
        .on_frame(move |frame, reply| {
            let Some(n) = number(&frame.body) else { return Verdict::Default };
            if reply.connection() < 4 && reply.sends() >= 50 {
                reply.close();
                return Verdict::Taken;
            }
            let key = frame.header("k").and_then(|key| key.parse().ok()).unwrap();
            store.lock().unwrap().push((reply.connection(), key, n));
            Verdict::Default
        })
        .start();
    let database = database();
    let mut walpost = relay(&database, &broker.address())
        .set("broker.connections", 4)
        .set("broker.reconnect.initial", "10ms")
        .start();
    walpost.await_ready(LONG);
    assert_eq!(broker.connections(), 4);
    assert_eq!(walpost.status()["broker"]["lanes"].as_array().map(Vec::len), Some(4));
    database.sql(&insert(1, 50));
    await_all_confirmed(&database);
    assert_in_order(&stored, 50);
    let mut of_key: BTreeMap<u64, BTreeSet<usize>> = BTreeMap::new();
    for (connection, key, _) in stored.lock().unwrap().iter().filter(|(at, ..)| *at < 4) {
        of_key.entry(*key).or_default().insert(*connection);
    }
    assert!(of_key.values().all(|connections| connections.len() == 1), "{of_key:?}");
    let used: BTreeSet<_> = of_key.into_values().flatten().collect();
    assert_eq!(used.len(), 4, "the keys are spread over all");
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn a_lane_that_hangs_holds_up_its_own_keys_only() {
    let stored = Stored::default();
    let store = Arc::clone(&stored);
    // The second connection takes nothing more after one message at least of each of its keys, until it is dropped.
    let broker = ScriptedBroker::builder()
        .on_frame(move |frame, reply| {
            let Some(n) = number(&frame.body) else { return Verdict::Default };
            if reply.connection() == 1 && reply.sends() >= KEYS {
                reply.stop_reading();
            }
            if reply.connection() == 1 && reply.sends() > KEYS {
                return Verdict::Taken; // it came in the same packet
            }
            let key = frame.header("k").and_then(|key| key.parse().ok()).unwrap();
            store.lock().unwrap().push((reply.connection(), key, n));
            Verdict::Default
        })
        .start();
    let database = database();
    let mut walpost = relay(&database, &broker.address()).set("broker.connections", 4).start();
    walpost.await_ready(LONG);
    database.sql(&insert(1, 20));
    let all = position(&database);
    let on_others = || {
        let stored = stored.lock().unwrap();
        let hung: BTreeSet<u64> =
            stored.iter().filter(|(at, ..)| *at == 1).map(|(_, key, _)| *key).collect();
        let flowed = stored.iter().filter(|(at, ..)| *at != 1).count() as u64;
        (hung.len() as u64, flowed)
    };
    until(LONG, "the others have arrived", || {
        let (hung, flowed) = on_others();
        hung > 0 && flowed == (KEYS - hung) * 20
    });
    assert!(!is_confirmed(&database, &all), "confirmed although a lane hangs");
    broker.drop_connections();
    await_all_confirmed(&database);
    assert_in_order(&stored, 20);
    assert!(walpost.terminate(LONG).success());
}
