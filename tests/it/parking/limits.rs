//! How long a destination is tried, and how much is kept of it.

use walpost_testkit::{ScriptedBroker, Verdict, http, until};

use super::Stage;
use crate::rig::LONG;
use crate::scene::{PUBLISHED, await_all_confirmed, database, is_confirmed, position, relay};

#[test]
fn a_destination_that_is_never_taken_is_given_up_and_tried_by_its_newest() {
    let stage = Stage::new();
    let mut walpost = stage.walpost().set("retry.max_attempts", "5").start();
    walpost.await_ready(LONG);
    stage.publish(1, 90);
    let said = walpost.wait_for_log("/queue/bad.v1 is given up", LONG);
    assert!(said.contains("walpost undelivered list"), "{said}");
    stage.await_kept("dead", 30);
    // What comes is dead from the first, and nothing is held.
    stage.publish(91, 120);
    stage.await_kept("dead", 40);
    await_all_confirmed(&stage.database);
    until(LONG, "the dead are counted", || walpost.metric("walpost_dead_letters_total") == 40.0);
    let dead = "walpost_undelivered_messages{state=\"dead\"}";
    until(LONG, "the dead are told of", || walpost.metric(dead) == 40.0);
    // Only the newest of them is tried.
    let tried = |sql: &str| -> u32 {
        stage.database.sql(&format!("SELECT {sql} FROM walpost.undelivered")).parse().unwrap()
    };
    let newest = "max(attempts) FILTER (WHERE id = (SELECT max(id) FROM walpost.undelivered))";
    until(LONG, "the newest is tried", || tried(newest) >= 2);
    assert!(walpost.ended().is_none());

    stage.mend();
    walpost.wait_for_log("/queue/bad.v1 takes messages again", LONG);
    stage.publish(121, 150);
    until(LONG, "what comes flows", || stage.firsts("/queue/bad.v1").ends_with(&[147, 150]));
    assert_eq!(stage.kept("dead"), 39, "they wait for an operator");
    let sent = stage.walpost().arguments(["undelivered", "retry", "--all"]).output(LONG);
    assert!(sent.status.success(), "{}", sent.stderr);
    until(LONG, "all have come", || stage.firsts("/queue/bad.v1").len() == 50);
    stage.await_kept("dead", 0);
    stage.await_kept("retrying", 0);
    assert!(walpost.terminate(LONG).success());
}

/// One that can't be sent is never tried by itself, and holds nobody up.
#[test]
fn of_a_destination_that_was_given_up_the_newest_may_be_too_large() {
    let stage = Stage::new();
    let settings = stage.walpost().set("retry.max_attempts", "3");
    let mut walpost = settings.set("broker.max_frame_size", "16KiB").start();
    walpost.await_ready(LONG);
    stage.publish(1, 9);
    walpost.wait_for_log("/queue/bad.v1 is given up", LONG);
    stage.await_kept("dead", 3);
    let large = |n: u32| {
        stage.database.sql(&format!(
            "SELECT walpost.publish('/queue/bad', jsonb_build_object('n', {n}, 'x', repeat('x', 20000)))"
        ))
    };
    large(100);
    stage.await_kept("dead", 4);
    large(101);
    stage.await_kept("dead", 5);
    stage.mend();
    walpost.wait_for_log("/queue/bad.v1 takes messages again", LONG);
    stage.publish(106, 108);
    until(LONG, "what comes flows", || stage.firsts("/queue/bad.v1").ends_with(&[108]));
    assert!(!stage.firsts("/queue/bad.v1").iter().any(|n| [100, 101].contains(n)));
    let unfit = "SELECT count(*) FROM walpost.undelivered WHERE unfit AND state = 'dead'";
    assert_eq!(stage.database.sql(unfit), "2");
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn no_more_is_kept_than_may_be_and_that_is_said() {
    let stage = Stage::new();
    let mut walpost = stage
        .walpost()
        .set("retry.max_parked", "10")
        .set("broker.in_flight.messages", "20")
        .start();
    walpost.await_ready(LONG);
    stage.publish(1, 150);
    let lsn = position(&stage.database);
    stage.await_kept("retrying", 10);
    walpost.wait_for_log("retry.max_parked messages are kept", LONG);
    let ready = || http::get(walpost.http_port(), "/readyz").unwrap();
    until(LONG, "it is not ready", || ready().status == 503);
    assert!(ready().text().contains("retry.max_parked"), "{}", ready().text());
    assert_eq!(stage.kept("retrying"), 10);
    assert!(!is_confirmed(&stage.database, &lsn), "the stream is held");

    stage.mend();
    stage.await_all_in_order(150);
    await_all_confirmed(&stage.database);
    until(LONG, "it is ready", || ready().status == 200);
    assert!(walpost.terminate(LONG).success());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_can_be_kept_nothing_is_confirmed() {
    let stage = Stage::new();
    let mut walpost = stage.walpost().start();
    walpost.await_ready(LONG);
    stage.database.sql("ALTER TABLE walpost.undelivered ADD CONSTRAINT no CHECK (id < 0)");
    let before = position(&stage.database);
    stage.publish(1, 30);
    let ready = || http::get(walpost.http_port(), "/readyz").unwrap();
    until(LONG, "it is not ready", || ready().text().contains("walpost.undelivered can't be"));
    until(LONG, "the others have come", || stage.firsts("/queue/good.v1").len() == 20);
    let lsn = position(&stage.database);
    assert!(!is_confirmed(&stage.database, &lsn), "not past {before}");
    stage.database.sql("ALTER TABLE walpost.undelivered DROP CONSTRAINT no");
    stage.await_kept("retrying", 10);
    await_all_confirmed(&stage.database);
    stage.mend();
    stage.await_all_in_order(30);
    assert!(walpost.terminate(LONG).success());
}

/// The predecessor's table says what became of each row.
#[test]
fn rows_of_django_are_marked_when_they_are_delivered_and_when_they_are_given_up() {
    let database = database();
    database.sql(PUBLISHED);
    let refuses = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let refused = std::sync::Arc::clone(&refuses);
    let broker = ScriptedBroker::builder()
        .on_frame(move |frame, reply| {
            let bad = frame.header("destination") == Some("/queue/bad");
            if bad && refused.load(std::sync::atomic::Ordering::SeqCst) {
                reply.error("no", "not now", frame.header("receipt"));
                reply.close();
                return Verdict::Taken;
            }
            Verdict::Default
        })
        .start();
    let insert = |destination: &str, rows: u32| {
        database.sql(&format!(
            "INSERT INTO public.published SELECT gen_random_uuid(), 'v1', '{destination}', '{{}}', now(), now(), 0, 1
             FROM generate_series(1, {rows})"
        ));
    };
    let count = |status: i32| {
        database.sql(&format!("SELECT count(*) FROM public.published WHERE status = {status}"))
    };
    let settings = |attempts: &str| {
        relay(&database, &broker.address())
            .set("outbox.layout", "django")
            .set("broker.reconnect.initial", "10ms")
            .set("retry.first_wait", "30ms")
            .set("retry.pause", "200ms")
            .set("retry.wait", "100ms")
            .set("retry.max_attempts", attempts)
    };
    let mut walpost = settings("100000").start();
    walpost.await_ready(LONG);
    let _ = walpost.wait_for_log("the slot is read from now on", LONG);
    insert("/queue/bad", 20);
    insert("/queue/good", 20);
    until(LONG, "the good ones are marked", || count(2) == "20");
    await_all_confirmed(&database);
    assert_eq!(count(1), "20");
    refuses.store(false, std::sync::atomic::Ordering::SeqCst);
    until(LONG, "all are marked", || count(2) == "40");
    until(LONG, "none is kept", || database.sql("SELECT count(*) FROM walpost.undelivered") == "0");

    refuses.store(true, std::sync::atomic::Ordering::SeqCst);
    walpost.kill();
    let mut walpost = settings("4").start();
    walpost.await_ready(LONG);
    insert("/queue/bad", 5);
    until(LONG, "they are given up", || count(-1) == "5");
    let facts = "SELECT bool_and(expires_at > now() + interval '14 days'), max(retry) FROM public.published WHERE status = -1";
    assert_eq!(database.sql(facts), "t|4");
    refuses.store(false, std::sync::atomic::Ordering::SeqCst);
    let sent = settings("4").arguments(["undelivered", "retry", "--all"]).output(LONG);
    assert!(sent.status.success(), "{}", sent.stderr);
    until(LONG, "all are marked", || count(2) == "45");
    await_all_confirmed(&database);
    assert!(walpost.terminate(LONG).success());
}
