//! A SQL function: its effect and the inbox commit together.

use walpost_testkit::{Postgres, RabbitMq, until};

use super::{Desk, HANDLER, Sender, consuming};
use crate::rig::{LONG, walpost};
use crate::scene::database;

#[test]
fn each_message_has_its_effect_once() {
    let desk = Desk::new();
    let mut walpost = desk.called();
    let mut sender = desk.sender();
    sender.q("a", r#"{"n": 1}"#);
    sender.q("a", r#"{"n": 1}"#);
    sender.q("b", r#"{"n": 2}"#);
    sender.q("a", r#"{"n": 1}"#);
    sender.q("c", r#"{"n": 3}"#);
    until(LONG, "c is handled", || desk.sql("SELECT count(*) FROM effects WHERE id = 'c'") == "1");
    assert_eq!(desk.sql("SELECT string_agg(id, ' ' ORDER BY n) FROM effects"), "a b c");
    assert_eq!(
        desk.sql(
            "SELECT queue, message_id, destination, headers ->> 'msg-id', body, body_bytes IS NULL
                  FROM walpost.inbox ORDER BY message_id LIMIT 1"
        ),
        r#"q|a|/queue/q|a|{"n": 1}|t"#
    );
    assert_eq!(desk.sql("SELECT count(*) FROM walpost.inbox"), "3");
    desk.await_empty("q");
    // Another queue's copy of the same message is another one.
    let mut other = consuming(&desk.subscribe(&["/queue/q2", "--call", "public.handle"]));
    sender.send("/amq/queue/q2", &[("msg-id", "a")], "{}");
    desk.await_effects(4);
    assert!(walpost.terminate(LONG).success() && other.terminate(LONG).success());
}

#[test]
fn what_the_function_refuses_has_no_effect_and_goes_to_the_dead_letters() {
    let desk = Desk::new();
    // Many at once: one transaction, until one of them fails.
    let builder = desk.subscribe(&["/queue/q", "--call", "handle"]);
    let many = r#"[{"destination": "/queue/q", "handler": {"call": "handle"}, "prefetch": 50}]"#;
    let mut walpost = consuming(&builder.set("consumers", many));
    let mut sender = desk.sender();
    for n in 0..40 {
        let body = if n % 10 == 5 { r#"{"fail": "no such thing"}"# } else { "{}" };
        sender.q(&n.to_string(), body);
    }
    let dead = desk.dead_letters("q", 4);
    desk.await_effects(36);
    assert_eq!(desk.sql("SELECT array_agg(id::integer) = array_agg(id::integer ORDER BY id::integer) FROM effects"), "t");
    assert_eq!(desk.sql("SELECT count(*) FROM effects WHERE id IN ('5', '15', '25', '35')"), "0");
    assert_eq!(desk.sql("SELECT count(*) FROM walpost.inbox"), "36");
    assert_eq!(dead.len(), 4);
    assert_eq!(dead[0]["properties"]["headers"]["msg-id"], "5");
    assert_eq!(dead[0]["payload"], r#"{"fail": "no such thing"}"#);
    let line = walpost.wait_for_log("refused", LONG);
    assert!(line.contains("no such thing") && line.contains("P0001"), "{line}");
    desk.await_empty("q");
    // Mended, and put back: it is no duplicate.
    sender.q("5", "{}");
    desk.await_effects(37);
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn a_forced_replay_is_handled_again() {
    let desk = Desk::new();
    let mut walpost = desk.called();
    let mut sender = desk.sender();
    let forced = [("msg-id", "a"), ("msg-replayed", "true"), ("msg-replay-force", "true")];
    sender.send("/amq/queue/q", &[("msg-id", "a"), ("msg-replayed", "true")], "1");
    desk.await_effects(1);
    let before = desk.sql("SELECT received_at FROM walpost.inbox");
    sender.send("/amq/queue/q", &[("msg-id", "a"), ("msg-replayed", "true")], "2");
    sender.send("/amq/queue/q", &forced, "3");
    desk.await_effects(2);
    assert_eq!(desk.sql("SELECT string_agg(body::text, ' ' ORDER BY n) FROM effects"), "1 3");
    assert_eq!(desk.sql("SELECT count(*) FROM walpost.inbox"), "1");
    assert_ne!(desk.sql("SELECT received_at FROM walpost.inbox"), before);
    assert!(walpost.terminate(LONG).success());
}

/// The broker keeps what the database can't take, and nothing is refused for it.
#[test]
fn a_database_that_is_down_is_nobodys_fault() {
    let server = Postgres::builder().fast().start();
    let (database, vhost) = (server.fresh_database(), RabbitMq::shared().fresh_vhost());
    let builder = walpost()
        .set("postgres.url", database.url())
        .set("broker.hosts", vhost.broker().stomp_address())
        .set("broker.vhost", vhost.name());
    assert!(builder.clone().arguments(["init"]).output(LONG).status.success());
    database.sql(HANDLER);
    let builder = builder.arguments(["subscribe", "/queue/q", "--call", "handle"]);
    let mut walpost = consuming(&builder);
    let mut sender =
        Sender(walpost_testkit::Session::connect(vhost.broker().stomp_port(), vhost.name()));
    sender.q("a", "{}");
    until(LONG, "a is handled", || database.sql("SELECT count(*) FROM effects") == "1");
    for (id, stop) in [("b", Postgres::stop_fast as fn(&Postgres)), ("c", Postgres::kill)] {
        stop(&server);
        sender.q(id, "{}");
        until(LONG, "it is held", || {
            vhost.queue("q")["messages_unacknowledged"].as_u64() == Some(1)
        });
        server.restart();
        let sql = format!("SELECT count(*) FROM effects WHERE id = '{id}'");
        until(LONG, "it is handled", || database.sql(&sql) == "1");
    }
    until(LONG, "q is empty", || vhost.queue("q")["messages"].as_u64() == Some(0));
    // The function is gone for a while: that is nobody's fault either.
    database.sql("ALTER FUNCTION handle RENAME TO renamed");
    sender.q("d", "{}");
    let line = walpost.wait_for_log("there is no function", LONG);
    assert!(line.contains("handle(jsonb, jsonb)"), "{line}");
    database.sql("ALTER FUNCTION renamed RENAME TO handle");
    until(LONG, "d is handled", || database.sql("SELECT count(*) FROM effects") == "4");
    assert_eq!(vhost.get("DLQ.q", 9).len(), 0);
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn what_is_missing_is_said_and_ends_it() {
    let desk = Desk::new();
    let ended = desk.subscribe(&["/queue/q", "--call", "no.such"]).output(LONG);
    assert_eq!(ended.status.code(), Some(3));
    assert!(
        ended.stderr.contains("there is no function no.such(jsonb, jsonb)"),
        "{}",
        ended.stderr
    );
    assert!(desk.rig.vhost.queue("q").is_null(), "nothing is taken before it can be handled");

    let bare = database();
    let builder = walpost().set("postgres.url", bare.url()).arguments([
        "subscribe",
        "/queue/q",
        "--exec",
        "true",
    ]);
    let ended = builder.output(LONG);
    assert_eq!(ended.status.code(), Some(3));
    assert!(ended.stderr.contains("run walpost init"), "{}", ended.stderr);
}

/// The role of the dry run's script may do it, and needs no more.
#[test]
fn a_role_with_few_rights() {
    let desk = Desk::new();
    desk.sql(&format!(
        "CREATE ROLE few_{0} LOGIN; GRANT CONNECT ON DATABASE {0} TO few_{0};
         GRANT SELECT, INSERT ON effects TO few_{0}; GRANT USAGE ON SCHEMA walpost TO few_{0}",
        desk.rig.database.name()
    ));
    let role = format!("few_{}", desk.rig.database.name());
    let url = desk.rig.database.url();
    let (_, rest) = url.split_once('@').unwrap();
    let builder = desk
        .subscribe(&["/queue/q", "--call", "handle"])
        .set("postgres.url", format!("postgresql://{role}@{rest}"));
    let ended = builder.output(LONG);
    let remedy = format!("GRANT SELECT, INSERT, UPDATE, DELETE ON walpost.inbox TO {role}");
    assert!(ended.stderr.contains(&remedy), "{}", ended.stderr);
    desk.sql(&remedy);
    let mut walpost = consuming(&builder);
    desk.sender().q("a", "{}");
    desk.await_effects(1);
    assert!(walpost.terminate(LONG).success());
    desk.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}
