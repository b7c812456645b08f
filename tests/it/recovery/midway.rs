//! In the middle of the rows that wait: killed in each chunk, told to stop, cut off, taken over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use walpost_testkit::{Receipts, ScriptedBroker, Verdict, http, until};

use super::{CHUNK, fill, firsts, kept, numbers_by_connection, repeats, schema_only, state};
use crate::load::seed;
use crate::rig::LONG;
use crate::scene::{numbers, publish_each, relay};

#[test]
fn killed_in_each_chunk_only_that_chunk_is_repeated() {
    const ROWS: u64 = 5_500;
    let mut random = fastrand::Rng::with_seed(seed("killed in each chunk"));
    let database = schema_only();
    fill(&database, 1, ROWS);
    let (seen, limit) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let broker = {
        let (seen, limit) = (Arc::clone(&seen), Arc::clone(&limit));
        ScriptedBroker::builder().on_frame(move |frame, _| {
            let is_send = frame.command == "SEND";
            // Beyond the limit there is no receipt.
            if is_send && seen.fetch_add(1, Ordering::AcqRel) >= limit.load(Ordering::Acquire) {
                Verdict::Taken
            } else {
                Verdict::Default
            }
        })
    }
    .start();
    let settings = relay(&database, &broker.address());
    let mut from = Vec::new();
    for life in 0..6 {
        let before = kept(&database);
        from.push(before);
        // The first is killed in its first chunk, each other one in its second.
        let chunks = if life == 0 { 0 } else { CHUNK as u64 };
        let receipts = chunks + random.u64(..CHUNK as u64 - 1);
        let left = ROWS - before;
        let until_sends = seen.load(Ordering::Acquire) + receipts.min(left - 1);
        limit.store(until_sends, Ordering::Release);
        let mut walpost = settings.start();
        until(LONG, "a message without a receipt", || seen.load(Ordering::Acquire) > until_sends);
        if chunks > 0 && left > chunks {
            until(LONG, "the first chunk to be kept", || kept(&database) > before);
        }
        walpost.kill();
        println!("killed after {receipts} receipts: {} to {} kept", before, kept(&database));
    }
    from.push(kept(&database));
    limit.store(u64::MAX, Ordering::Release);
    let mut walpost = settings.start();
    until(LONG, "the end of the recovery", || state(&database) == "streaming");
    publish_each(&database, "/queue/q", ROWS + 1, ROWS + 1);
    until(LONG, "the row of the stream", || {
        numbers(&broker.messages()).last() == Some(&(ROWS + 1))
    });
    // Each life sent everything behind what was kept before it, in order, and no more than a chunk
    // beyond what was kept after it.
    let lives = numbers_by_connection(&broker);
    assert_eq!(lives.len(), from.len());
    for (life, sent) in lives.iter().enumerate() {
        let expected: Vec<u64> = (from[life] + 1..).take(sent.len()).collect();
        assert!(*sent == expected, "life {life} from {:?}, not {}", sent.first(), from[life] + 1);
        if let Some(kept) = from.get(life + 1) {
            let beyond = sent.last().unwrap() - kept;
            assert!(beyond > 0 && beyond <= CHUNK as u64, "life {life}: {beyond} beyond {kept}");
        }
    }
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
}

#[test]
fn told_to_stop_it_ends_the_chunk_and_repeats_nothing() {
    const ROWS: u64 = 9_000;
    let database = schema_only();
    fill(&database, 1, ROWS);
    let broker = ScriptedBroker::builder().receipts(Receipts::PerSecond(2_000)).start();
    let settings = relay(&database, &broker.address());
    let mut walpost = settings.start();
    broker.wait_for_sends(1_500, LONG);
    // What it is at shows.
    until(LONG, "the status to tell", || {
        walpost.status()["recovery"]["published"].as_u64() > Some(0)
    });
    let status = walpost.status();
    assert_eq!(status["phase"], "recovering", "{status}");
    assert_eq!(status["recovery"]["table"], "walpost.outbox", "{status}");
    let up_to = status["recovery"]["up_to"].as_str().unwrap();
    let hour_ago = format!("SELECT now() - '{up_to}'::timestamptz BETWEEN '50 min' AND '70 min'");
    assert_eq!(database.sql(&hour_ago), "t", "{status}");
    let ready = http::get(walpost.http_port(), "/readyz").unwrap();
    assert_eq!(ready.status, 200, "{}", ready.text());

    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    let sent = broker.sends();
    assert!(sent < ROWS, "there was no middle");
    assert_eq!(kept(&database), sent, "sent, and not kept: it would come again");
    let mut walpost = settings.start();
    until(LONG, "the end of the recovery", || state(&database) == "streaming");
    until(LONG, "the status to tell", || walpost.status()["phase"] == "streaming");
    assert!(walpost.status()["recovery"].is_null());
    assert_eq!(numbers(&broker.messages()), (1..=ROWS).collect::<Vec<u64>>());
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
}

#[test]
fn a_lost_session_repeats_a_chunk_at_most() {
    const ROWS: u64 = 8_000;
    let database = schema_only();
    fill(&database, 1, ROWS);
    let broker = ScriptedBroker::builder().receipts(Receipts::PerSecond(2_000)).start();
    let mut walpost = relay(&database, &broker.address()).start();
    let lost = ["walsender", "client backend", "walsender", "client backend"];
    for (loss, kind) in lost.iter().enumerate() {
        until(LONG, "it goes on", || kept(&database) > loss as u64 * 1_000);
        let ended = database.sql(&format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
             WHERE datname = current_database() AND backend_type = '{kind}'
             AND application_name = 'walpost'"
        ));
        assert_ne!(ended, "0", "there is no {kind}");
    }
    until(LONG, "the end of the recovery", || state(&database) == "streaming");
    let sent = numbers(&broker.messages());
    assert_eq!(firsts(&sent), (1..=ROWS).collect::<Vec<u64>>());
    let repeated = repeats(&sent).len();
    println!("{repeated} repeated");
    assert!(repeated > 0 && repeated <= lost.len() * CHUNK, "{repeated} repeated");
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
}

#[test]
fn one_that_takes_over_goes_on_from_what_is_kept() {
    const ROWS: u64 = 10_000;
    let database = schema_only();
    fill(&database, 1, ROWS);
    let broker = ScriptedBroker::builder().receipts(Receipts::PerSecond(2_000)).start();
    let settings = relay(&database, &broker.address());
    let mut first = settings.start();
    until(LONG, "a chunk to be kept", || kept(&database) > 0);
    let mut second = settings.start();
    until(LONG, "a standby", || second.status()["phase"] == "standby");
    first.freeze();
    let behind = kept(&database);
    assert!(behind < ROWS - 2 * CHUNK as u64, "there was no middle: {behind}");
    database.sql(&format!(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{}'",
        database.name()
    ));
    until(LONG, "the second to publish", || kept(&database) > behind);
    first.thaw();
    until(LONG, "the first to stand by", || first.status()["phase"] == "standby");
    until(LONG, "the end of the recovery", || state(&database) == "streaming");
    publish_each(&database, "/queue/q", ROWS + 1, ROWS + 1);
    until(LONG, "the row of the stream", || numbers(&broker.messages()).contains(&(ROWS + 1)));
    let sent = numbers(&broker.messages());
    let mut all = firsts(&sent);
    all.sort_unstable();
    assert_eq!(all, (1..=ROWS + 1).collect::<Vec<u64>>());
    let repeated = repeats(&sent).len();
    println!("{repeated} repeated");
    assert!(repeated <= CHUNK, "{repeated} repeated");
    for walpost in [&mut first, &mut second] {
        assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    }
}
