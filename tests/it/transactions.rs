//! Messages in STOMP transactions, whose COMMIT has the receipt.

use std::collections::BTreeMap;
use std::time::Duration;

use walpost_testkit::stomp::Frame;
use walpost_testkit::walpost::Finished;
use walpost_testkit::{ScriptedBroker, Verdict};

use crate::rig::LONG;
use crate::scene::{await_all_confirmed, database, is_confirmed, numbers, position, relay};

const ACTIVEMQ: &str = "ActiveMQ/5.17.2";

fn insert(rows: u64) -> String {
    format!(
        "INSERT INTO walpost.outbox (destination, body)
         SELECT '/queue/q', jsonb_build_object('n', n) FROM generate_series(1, {rows}) n"
    )
}

fn has(frame: &Frame, header: &str) -> bool {
    frame.header(header).is_some()
}

#[test]
fn groups_of_200_several_at_once_and_a_receipt_for_each_commit() {
    // The answer to the first COMMIT comes when the broker has read two more.
    let (mut commits, mut held) = (0, None);
    let broker = ScriptedBroker::builder().server(ACTIVEMQ).on_frame(move |frame, reply| {
        if frame.command == "COMMIT" {
            commits += 1;
            if commits == 1 {
                held = frame.header("receipt").map(str::to_owned);
                return Verdict::Taken;
            }
            if commits == 3 {
                reply.receipt(&held.take().expect("the first one"));
            }
        }
        Verdict::Default
    });
    let (database, broker) = (database(), broker.start());
    let mut walpost = relay(&database, &broker.address()).start();
    walpost.await_ready(LONG);
    database.sql(&insert(1000));
    await_all_confirmed(&database);

    assert_eq!(numbers(&broker.messages()), (1..=1000).collect::<Vec<_>>());
    let mut open = BTreeMap::<String, usize>::new();
    let mut sizes = Vec::new();
    for frame in broker.frames().into_iter().map(|received| received.frame) {
        let transaction = frame.header("transaction").map(str::to_owned);
        match frame.command.as_str() {
            "BEGIN" => assert_eq!(open.insert(transaction.unwrap(), 0), None),
            "SEND" => {
                assert!(!has(&frame, "receipt"), "{frame:?}");
                *open.get_mut(&transaction.unwrap()).expect("it is open") += 1;
            }
            "COMMIT" => {
                assert!(has(&frame, "receipt"), "{frame:?}");
                sizes.push(open.remove(&transaction.unwrap()).expect("it is open"));
            }
            _ => {}
        }
    }
    assert_eq!(sizes.iter().sum::<usize>(), 1000);
    assert!(sizes.iter().all(|size| (1..=200).contains(size)), "{sizes:?}");
    assert!(sizes.contains(&200), "{sizes:?}");
    assert_eq!(walpost.metric("walpost_receipts_total"), 1000.0);
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn nothing_is_confirmed_before_its_commit_is_answered() {
    let mut first = true;
    let broker = ScriptedBroker::builder().server(ACTIVEMQ).on_frame(move |frame, _| {
        let silent = frame.command == "COMMIT" && std::mem::take(&mut first);
        if silent { Verdict::Taken } else { Verdict::Default }
    });
    let (database, broker) = (database(), broker.start());
    let mut walpost =
        relay(&database, &broker.address()).set("broker.receipt_timeout", "1h").start();
    walpost.await_ready(LONG);
    database.sql(&insert(1));
    let lsn = position(&database);
    broker.wait_for_frame(LONG, |frame| frame.command == "COMMIT");
    // Those after it are answered.
    database.sql(&insert(1));
    let in_flight = || walpost.metric("walpost_receipts_total") == 1.0;
    walpost_testkit::until(LONG, "the second receipt", in_flight);
    assert!(!is_confirmed(&database, &lsn));
    broker.drop_connections();
    await_all_confirmed(&database);
    assert_eq!(numbers(&broker.messages()), [1, 1, 1]);
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn a_refused_commit_has_its_messages_sent_again() {
    let mut first = true;
    let broker = ScriptedBroker::builder().server(ACTIVEMQ).on_frame(move |frame, reply| {
        if frame.command == "COMMIT" && std::mem::take(&mut first) {
            // The connection stays open, as Classic leaves it.
            reply.error("COMMIT FAILED", "marked rollback only", frame.header("receipt"));
            return Verdict::Taken;
        }
        Verdict::Default
    });
    let (database, broker) = (database(), broker.start());
    let mut walpost = relay(&database, &broker.address()).start();
    walpost.await_ready(LONG);
    database.sql(&insert(30));
    await_all_confirmed(&database);
    let received = broker.frames();
    // Which of the later connections is the one for trials depends on who connects first.
    let sent = |on: &dyn Fn(usize) -> bool| {
        let frames = received.iter().filter(|received| on(received.connection));
        let sends = frames.filter(|received| received.frame.command == "SEND");
        numbers(&sends.map(|received| received.frame.clone()).collect::<Vec<_>>())
    };
    let again = sent(&|connection| connection > 0);
    assert_eq!(again, (1..=30).collect::<Vec<_>>(), "after {:?}", sent(&|first| first == 0));
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn receipts_where_they_are_wanted_and_transactions_where_they_are() {
    for (server, delivery, transactions) in
        [(ACTIVEMQ, "receipts", false), ("", "transactions", true), ("", "auto", false)]
    {
        let (database, broker) = (database(), ScriptedBroker::builder().server(server).start());
        let relay = relay(&database, &broker.address()).set("broker.delivery", delivery);
        let mut walpost = relay.start();
        walpost.await_ready(LONG);
        database.sql(&insert(1));
        await_all_confirmed(&database);
        let message = broker.messages().remove(0);
        assert_eq!(has(&message, "transaction"), transactions, "{server} {delivery}");
        assert_eq!(has(&message, "receipt"), !transactions, "{server} {delivery}");
        assert!(walpost.terminate(LONG).success());
    }
}

#[test]
fn transactions_are_refused_where_they_prove_nothing() {
    for (server, reason) in [
        ("RabbitMQ/3.10.8", "before the messages are stored"),
        ("ActiveMQ-Artemis/2.40.0 x", "drops a whole transaction"),
    ] {
        let (database, broker) = (database(), ScriptedBroker::builder().server(server).start());
        let walpost = relay(&database, &broker.address())
            .set("broker.delivery", "transactions")
            .set("broker.reconnect.max", "100ms")
            .start();
        let Finished { status, stderr, .. } = walpost.finish(LONG + Duration::from_secs(30));
        assert_eq!(status.code(), Some(3), "{stderr}");
        let word = stderr.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
        assert!(word.contains(reason) && word.contains("broker.delivery"), "{stderr}");
        assert_eq!(broker.sends(), 0);
    }
}
