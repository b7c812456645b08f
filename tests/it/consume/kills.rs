//! What ends suddenly: walpost, the broker; and what ends in order.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use walpost_testkit::{RabbitMq, Session, until};

use super::{Desk, Sender, consuming};
use crate::rig::LONG;

/// How many sessions of the database wait for an advisory lock.
const WAITS: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE wait_event = 'advisory' AND datname = current_database()";

/// A way to the broker on which an ACK is the last thing that is tried, and does not arrive.
fn way_without_ack(to: u16) -> (u16, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let tried = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&tried);
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
            let (mut from, mut into) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let seen = Arc::clone(&seen);
            thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(count @ 1..) = from.read(&mut bytes) {
                    if bytes[..count].windows(4).any(|part| part == b"ACK\n") {
                        seen.store(true, Ordering::Release);
                        // Open, and silent.
                        let _ = from.read(&mut bytes);
                        return;
                    }
                    if into.write_all(&bytes[..count]).is_err() {
                        return;
                    }
                }
                let _ = into.shutdown(std::net::Shutdown::Both);
            });
            thread::spawn(move || std::io::copy(&mut &server, &mut &client));
        }
    });
    (port, tried)
}

#[test]
fn a_kill_between_commit_and_ack_repeats_nothing() {
    let desk = Desk::new();
    let (port, tried) = way_without_ack(desk.rig.vhost.broker().stomp_port());
    let builder = desk.subscribe(&["/queue/q", "--call", "handle"]);
    let mut walpost = consuming(&builder.clone().set("broker.hosts", format!("127.0.0.1:{port}")));
    desk.sender().q("a", "{}");
    until(LONG, "an ACK is on its way", || tried.load(Ordering::Acquire));
    desk.await_effects(1);
    walpost.kill();
    let redelivered = || desk.rig.vhost.queue("q")["messages_ready"].as_u64() == Some(1);
    until(LONG, "the broker has it again", redelivered);
    let mut walpost = consuming(&builder);
    desk.await_empty("q");
    desk.sender().q("b", "{}");
    desk.await_effects(2);
    assert_eq!(desk.sql("SELECT count(*) FROM effects WHERE id = 'a'"), "1");
    assert_eq!(desk.dead_letters("q", 0).len(), 0);
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn a_broker_that_is_killed_and_comes_back() {
    let broker = RabbitMq::start();
    let desk = Desk::new();
    let vhost = broker.fresh_vhost();
    let builder = desk
        .subscribe(&["/queue/q", "--call", "handle"])
        .set("broker.hosts", broker.stomp_address())
        .set("broker.vhost", vhost.name())
        .set("broker.reconnect.max", "1s");
    let mut walpost = consuming(&builder);
    let sender = || Sender(Session::connect(broker.stomp_port(), vhost.name()));
    sender().q("a", "{}");
    desk.await_effects(1);
    broker.ctl(&["eval", "ok = mnesia:sync_log()."]);
    for id in ["b", "c"] {
        broker.kill();
        broker.restart();
        sender().q(id, "{}");
        let sql = format!("SELECT count(*) FROM effects WHERE id = '{id}'");
        until(LONG, "it is handled", || desk.sql(&sql) == "1");
    }
    // With one in hand: it is finished, comes again, and is known.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let holder = runtime.block_on(desk.rig.database.client());
    let hold = |sql: &str| runtime.block_on(holder.batch_execute(sql)).unwrap();
    hold("SELECT pg_advisory_lock(7)");
    sender().q("d", r#"{"wait": 7}"#);
    until(LONG, "it is in hand", || desk.sql(WAITS) == "1");
    broker.ctl(&["eval", "ok = mnesia:sync_log()."]);
    broker.kill();
    broker.restart();
    until(LONG, "it came again", || {
        vhost.queue("q")["messages_unacknowledged"].as_u64() == Some(1)
    });
    hold("SELECT pg_advisory_unlock(7)");
    until(LONG, "q is empty", || {
        let queue = vhost.queue("q");
        (queue["messages"].as_u64(), queue["consumers"].as_u64()) == (Some(0), Some(1))
    });
    desk.await_effects(4);
    assert_eq!(vhost.depth("DLQ.q"), 0);
    assert!(walpost.terminate(LONG).success());
    drop(vhost);
}

/// What is in hand is finished and acknowledged, what waits is left to the broker.
#[test]
fn sigterm_finishes_what_is_in_hand() {
    let desk = Desk::new();
    let many = r#"[{"destination": "/queue/q", "handler": {"call": "handle"}, "prefetch": 5}]"#;
    let builder = desk.subscribe(&["/queue/q", "--call", "handle"]).set("consumers", many);
    let mut walpost = consuming(&builder);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let holder = runtime.block_on(desk.rig.database.client());
    let hold = |sql: &str| runtime.block_on(holder.batch_execute(sql)).unwrap();
    hold("SELECT pg_advisory_lock(7)");
    let mut sender = desk.sender();
    sender.q("a", r#"{"wait": 7}"#);
    until(LONG, "it is in hand", || desk.sql(WAITS) == "1");
    sender.q("b", "{}");
    let unacknowledged = || desk.rig.vhost.queue("q")["messages_unacknowledged"].as_u64();
    until(LONG, "b waits behind it", || unacknowledged() == Some(2));
    walpost.signal(walpost_testkit::Signal::TERM);
    hold("SELECT pg_advisory_unlock(7)");
    assert!(walpost.wait(LONG).success());
    assert_eq!(desk.sql("SELECT string_agg(id, ' ') FROM effects"), "a");
    until(LONG, "b is there", || desk.rig.vhost.queue("q")["messages_ready"].as_u64() == Some(1));
    let left = desk.rig.vhost.get("q", 9);
    assert_eq!(left.len(), 1);
    assert_eq!(left[0]["properties"]["headers"]["msg-id"], "b");
}
