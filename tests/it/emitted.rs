//! `walpost.emit`: the outbox without a table.

use std::time::Duration;

use walpost_testkit::postgres::Database;
use walpost_testkit::walpost::release_binary;
use walpost_testkit::{ScriptedBroker, Verdict, Walpost, until};

use crate::rig::LONG;
use crate::scene::{await_all_confirmed, database, number, numbers, relay};

/// Messages `{"n": from}` to `{"n": to}` in one transaction.
fn emit(database: &Database<'_>, destination: &str, from: u64, to: u64) {
    database.sql(&format!(
        "SELECT count(walpost.emit('{destination}', jsonb_build_object('n', n))) FROM generate_series({from}, {to}) n"
    ));
}

#[test]
fn json_and_bytes_arrive_as_rows_would_and_leave_nothing_behind() {
    let (database, broker) = (database(), ScriptedBroker::start());
    let mut walpost = relay(&database, &broker.address()).start();
    walpost.await_ready(LONG);
    let id = database.sql(
        r#"SELECT walpost.emit('/queue/q', '{"ü": [1, 2.50], "a": "x\ny"}', 'v2', key => 'k', headers => '{"tenant": "a:b", "receipt": "no"}')"#,
    );
    let bytes = database.sql(r"SELECT walpost.emit_bytes('/queue/q', '\x00ff0a', NULL)");
    let none = database.sql("SELECT walpost.emit('/queue/q', NULL, headers => NULL)");
    database.sql("SELECT walpost.publish('/queue/q', '{\"ü\": [1, 2.50], \"a\": \"x\\ny\"}')");
    await_all_confirmed(&database);
    let messages = broker.messages();
    let [json, binary, empty, row] = &messages[..] else { panic!("{messages:?}") };
    assert_eq!(json.header("destination"), Some("/queue/q.v2"));
    assert_eq!(json.header("msg-id"), Some(id.as_str()));
    assert_eq!(json.header("tenant"), Some("a:b"));
    assert_eq!(json.header("content-type"), Some("application/json"));
    assert_eq!(json.body, row.body, "as a row's");
    assert_eq!(std::str::from_utf8(&json.body).unwrap(), r#"{"a": "x\ny", "ü": [1, 2.50]}"#);
    assert_eq!(binary.header("destination"), Some("/queue/q"));
    assert_eq!(binary.header("msg-id"), Some(bytes.as_str()));
    assert_eq!(binary.header("content-type"), Some("application/octet-stream"));
    assert_eq!(&binary.body[..], b"\x00\xff\n");
    assert_eq!((empty.header("msg-id"), empty.body.len()), (Some(none.as_str()), 0));
    assert_eq!(walpost.metric("walpost_headers_dropped_total"), 1.0);
    assert_eq!(database.sql("SELECT count(*) FROM walpost.outbox"), "1", "the row alone");
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn rows_and_emitted_messages_of_a_transaction_keep_their_order_and_its_fate() {
    let (database, broker) = (database(), ScriptedBroker::start());
    let mut walpost = relay(&database, &broker.address()).start();
    walpost.await_ready(LONG);
    database.sql(
        "DO $$ BEGIN
           FOR n IN 1..200 LOOP
             IF n % 3 = 0 THEN PERFORM walpost.publish('/queue/q', jsonb_build_object('n', n));
             ELSE PERFORM walpost.emit('/queue/q', jsonb_build_object('n', n)); END IF;
             -- What is rolled back was never there.
             BEGIN
               PERFORM walpost.emit('/queue/q', '{\"n\": 1000}');
               PERFORM walpost.publish('/queue/q', '{\"n\": 1001}');
               RAISE division_by_zero;
             EXCEPTION WHEN division_by_zero THEN END;
           END LOOP; END $$",
    );
    database.sql("BEGIN; SELECT walpost.emit('/queue/q', '{\"n\": 1002}'); ROLLBACK");
    emit(&database, "/queue/q", 201, 210);
    await_all_confirmed(&database);
    assert_eq!(numbers(&broker.messages()), (1..=210).collect::<Vec<_>>());
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn where_no_slot_would_see_it_the_call_fails() {
    let (database, broker) = (database(), ScriptedBroker::start());
    let relay = relay(&database, &broker.address());
    let mut walpost = relay.start();
    walpost.await_ready(LONG);
    assert!(walpost.terminate(LONG).success());
    // Stopped is not gone: the slot keeps it.
    emit(&database, "/queue/q", 1, 1);
    let mut walpost = relay.start();
    walpost.await_ready(LONG);
    await_all_confirmed(&database);
    assert_eq!(numbers(&broker.messages()), [1]);
    assert!(walpost.terminate(LONG).success());

    until(LONG, "the slot is free", || {
        let dropped = database.server().try_sql(
            database.name(),
            &format!("SELECT pg_drop_replication_slot('{}')", database.name()),
        );
        dropped.is_ok()
    });
    for call in ["emit('/queue/q', '{}')", "emit_bytes('/queue/q', '')"] {
        let error = database
            .server()
            .try_sql(database.name(), &format!("SELECT walpost.{call}"))
            .unwrap_err();
        assert!(error.contains("no replication slot of database"), "{error}");
        assert!(error.contains("walpost init"), "{error}");
    }
}

#[test]
fn what_could_never_be_a_message_fails_at_the_call() {
    let (database, broker) = (database(), ScriptedBroker::start());
    let mut walpost = relay(&database, &broker.address()).start();
    walpost.await_ready(LONG);
    for (call, says) in [
        ("emit(NULL, '{}')", "needs a destination"),
        ("emit('', '{}')", "needs a destination"),
        ("emit('/queue/q', '{}', headers => '[]')", "JSON object"),
        ("emit('/queue/q', '{}', headers => '{\"\": 1}')", "each has a name"),
        ("emit_bytes('', '')", "needs a destination"),
    ] {
        let error = database
            .server()
            .try_sql(database.name(), &format!("SELECT walpost.{call}"))
            .unwrap_err();
        assert!(error.contains(says) && error.contains("HINT"), "{call}: {error}");
    }
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn what_nobody_can_read_is_a_dead_letter_and_stops_nothing() {
    let (database, broker) = (database(), ScriptedBroker::start());
    let relay = relay(&database, &broker.address()).set("broker.max_frame_size", "16KiB");
    let mut walpost = relay.start();
    walpost.await_ready(LONG);
    emit(&database, "/queue/q", 1, 1);
    database.sql("SELECT pg_logical_emit_message(true, 'walpost', 'rubbish')");
    database.sql("SELECT pg_logical_emit_message(true, 'walpost', repeat('x', 3000000))");
    // Larger than a frame, and larger than what is read.
    let large = |size: u32| {
        database.sql(&format!("SELECT walpost.emit('/queue/q', to_jsonb(repeat('x', {size})))"))
    };
    let (over, far_over) = (large(20_000), large(3_000_000));
    emit(&database, "/queue/q", 2, 2);
    await_all_confirmed(&database);
    assert_eq!(numbers(&broker.messages()), [1, 2]);
    let kept = database
        .sql("SELECT state, message_id, length(body), error FROM walpost.undelivered ORDER BY id");
    let lines: Vec<&str> = kept.lines().collect();
    let [rubbish, long, over_line, far_line] = lines[..] else { panic!("{kept}") };
    assert!(rubbish.starts_with("dead||7|") && rubbish.contains("walpost.emit"), "{rubbish}");
    assert!(long.starts_with("dead|||") && long.contains("longer than what is read"), "{long}");
    assert!(over_line.starts_with(&format!("dead|{over}|20002|")), "{over_line}");
    assert!(far_line.starts_with(&format!("dead|{far_over}||")), "{far_line}");
    assert_eq!(walpost.metric("walpost_dead_letters_total"), 4.0);
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn those_of_a_refused_destination_are_kept_and_come_in_their_order() {
    let refusing = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let now = std::sync::Arc::clone(&refusing);
    let broker = ScriptedBroker::builder().on_frame(move |frame, reply| {
        let bad = frame.header("destination") == Some("/queue/bad.v1");
        if frame.command == "SEND" && bad && now.load(std::sync::atomic::Ordering::Relaxed) {
            reply.error("refused", "no", frame.header("receipt"));
            reply.close();
            return Verdict::Taken;
        }
        Verdict::Default
    });
    let (database, broker) = (database(), broker.start());
    let settings = relay(&database, &broker.address())
        .set("retry.first_wait", "50ms")
        .set("retry.pause_after", "2")
        .set("retry.pause", "200ms")
        .set("retry.wait", "200ms");
    let mut walpost = settings.start();
    walpost.await_ready(LONG);
    emit(&database, "/queue/bad", 1, 50);
    emit(&database, "/queue/q", 51, 60);
    await_all_confirmed(&database);
    let retrying = "SELECT count(*) FROM walpost.undelivered WHERE state = 'retrying'";
    assert_eq!(database.sql(retrying), "50");
    walpost.kill();
    let mut walpost = settings.start();
    walpost.await_ready(LONG);
    refusing.store(false, std::sync::atomic::Ordering::Relaxed);
    until(LONG, "all to be sent", || database.sql(retrying) == "0");
    let bad = |frame: &&walpost_testkit::stomp::Frame| {
        frame.header("destination") == Some("/queue/bad.v1")
    };
    let messages = broker.messages();
    let mut arrived: Vec<u64> =
        messages.iter().filter(bad).filter_map(|frame| number(&frame.body)).collect();
    arrived.dedup();
    assert_eq!(arrived, (1..=50).collect::<Vec<_>>());
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn a_database_that_is_not_utf8() {
    let server = walpost_testkit::Postgres::shared();
    let name = format!("latin_{}", fastrand::u32(..));
    server.sql(
        "postgres",
        &format!("CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"),
    );
    let broker = ScriptedBroker::start();
    let mut walpost = crate::rig::walpost()
        .set("postgres.url", server.url(&name))
        .set("replication.slot", &name)
        .set("broker.hosts", broker.address())
        .start();
    walpost.await_ready(LONG);
    server.sql(
        &name,
        r#"SELECT walpost.emit(U&'/queue/\00e9', '{"\u00fc": "\u00df"}', headers => '{"h": "\u00e9"}')"#,
    );
    broker.wait_for_sends(1, LONG);
    let message = &broker.messages()[0];
    assert_eq!(message.header("destination"), Some("/queue/é.v1"));
    assert_eq!(message.header("h"), Some("é"));
    assert_eq!(&message.body[..], "{\"ü\": \"ß\"}".as_bytes());
    assert!(walpost.terminate(LONG).success());
    until(LONG, "the slot is free", || {
        server.try_sql("postgres", &format!("SELECT pg_drop_replication_slot('{name}')")).is_ok()
    });
    server.sql("postgres", &format!("DROP DATABASE {name}"));
}

#[test]
fn a_million_in_one_transaction_through_kills() {
    const ROWS: u64 = 1_000_000;
    const BUSY: u64 = 32 << 20;
    let (database, broker) = (database(), ScriptedBroker::builder().count_only().start());
    let relay = Walpost::builder(release_binary())
        .set("postgres.url", database.url())
        .set("replication.slot", database.name())
        .set("broker.hosts", broker.address());
    let mut walpost = relay.start();
    walpost.await_ready(LONG);
    emit(&database, "/queue/q", 1, ROWS);
    let long = Duration::from_secs(300);
    let mut busy = 0;
    for part in 1..=3 {
        until(long, "it is under way", || broker.sends() >= ROWS / 4 * part);
        busy = busy.max(walpost.vm_hwm());
        walpost.kill();
        walpost = relay.start();
    }
    walpost.await_ready(long);
    let lsn = crate::scene::position(&database);
    until(long, "all is confirmed", || crate::scene::is_confirmed(&database, &lsn));
    busy = busy.max(walpost.vm_hwm());
    let repeated = broker.sends() - ROWS;
    println!("{repeated} repeated, {} KiB", busy >> 10);
    assert!(repeated <= 3 * (5_000 + 1_024), "{repeated} repeated");
    assert!(busy < BUSY, "{busy} bytes");
    assert_eq!(database.sql("SELECT count(*) FROM walpost.outbox"), "0");
    assert!(walpost.terminate(LONG).success());
}
