//! ActiveMQ Classic and Artemis: queues, durable subscriptions, dead letters.

use walpost_testkit::stomp::Frame;
use walpost_testkit::walpost::Builder;
use walpost_testkit::{ActiveMq, Artemis, Said, Session, until};

use super::{HANDLER, Sender, consuming};
use crate::rig::{LONG, walpost};
use crate::scene::database;

/// A broker without virtual hosts.
struct Plain {
    port: u16,
    /// Headers of SEND to a queue, and of SUBSCRIBE to one.
    send: &'static [(&'static str, &'static str)],
    subscribe: &'static [(&'static str, &'static str)],
    /// Where refused messages of a queue go.
    dead: fn(&str) -> String,
}

fn classic() -> Plain {
    let broker = ActiveMq::shared();
    let dead = |_: &str| "/queue/ActiveMQ.DLQ".to_owned();
    Plain { port: broker.stomp_port(), send: &[], subscribe: &[], dead }
}

fn artemis() -> Plain {
    let broker = Artemis::shared();
    Plain {
        port: broker.stomp_port(),
        send: &[("destination-type", "ANYCAST")],
        subscribe: &[("subscription-type", "ANYCAST"), ("consumer-window-size", "-1")],
        dead: |queue| format!("/queue/DLQ.{queue}"),
    }
}

impl Plain {
    fn sender(&self) -> Sender {
        Sender(Session::connect(self.port, "/"))
    }

    fn builder(&self, url: &str, arguments: &[&str]) -> Builder {
        let all = ["subscribe"].iter().chain(arguments).copied();
        walpost()
            .set("postgres.url", url)
            .set("broker.hosts", format!("127.0.0.1:{}", self.port))
            .set("broker.reconnect.max", "1s")
            .arguments(all)
    }

    /// The first message at a destination.
    #[track_caller]
    fn take(&self, destination: &str) -> Frame {
        let mut session = Session::connect(self.port, "/");
        let mut frame =
            Frame::new("SUBSCRIBE", &[("id", "0"), ("destination", destination), ("ack", "auto")]);
        let headers = self.subscribe.iter();
        frame.headers.extend(headers.map(|(name, value)| ((*name).into(), (*value).into())));
        session.send(&frame);
        match session.next(LONG) {
            Some(Said::Frame(frame)) => frame,
            other => panic!("{other:?}"),
        }
    }
}

/// Each message once, refused ones to the dead letters, and what is not acknowledged comes again.
fn queue(broker: &Plain, queue: &str) {
    let database = database();
    let url = database.url();
    let made = walpost().set("postgres.url", &url).set("replication.slot", database.name());
    assert!(made.arguments(["init"]).output(LONG).status.success());
    database.sql(HANDLER);
    let destination = format!("/queue/{queue}");
    let many = format!(
        r#"[{{"destination": "{destination}", "handler": {{"call": "handle"}}, "prefetch": 20, "concurrency": 2}}]"#
    );
    let builder = broker.builder(&url, &[&destination, "--call", "handle"]);
    let mut walpost = consuming(&builder.clone().set("consumers", &many));
    let mut sender = broker.sender();
    let mut send = |id: &str, body: &str| {
        let headers: Vec<_> =
            broker.send.iter().copied().chain([("msg-id", id), ("note", "a:b\n")]).collect();
        sender.send(&destination, &headers, body);
    };
    for n in 0..100 {
        send(&n.to_string(), "{}");
        if n % 10 == 0 {
            send(&n.to_string(), "{}");
        }
    }
    send("bad", r#"{"fail": "no such thing"}"#);
    send("last", "[\"\u{fc}\"]");
    until(LONG, "all are handled", || database.sql("SELECT count(*) FROM effects") == "101");
    let dead = broker.take(&(broker.dead)(queue));
    assert_eq!(dead.header("msg-id"), Some("bad"));
    assert_eq!(dead.header("note"), Some("a:b\n"));
    assert_eq!(dead.body, br#"{"fail": "no such thing"}"#);
    assert!(walpost.terminate(LONG).success());
    // Nothing was left behind: with the inbox empty a message that comes again would be handled.
    database.sql("TRUNCATE walpost.inbox");
    let mut walpost = consuming(&builder);
    send("after", "{}");
    until(LONG, "one more is handled", || database.sql("SELECT count(*) FROM effects") == "102");
    // Killed with one in hand: it comes again.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let holder = runtime.block_on(database.client());
    let hold = |sql: &str| runtime.block_on(holder.batch_execute(sql)).unwrap();
    hold("SELECT pg_advisory_lock(7)");
    send("slow", r#"{"wait": 7}"#);
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'
                 AND datname = current_database()";
    until(LONG, "it is in hand", || database.sql(waits) == "1");
    walpost.kill();
    until(LONG, "its session has ended", || {
        database.sql(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid IN (SELECT pid FROM pg_stat_activity
             WHERE wait_event = 'advisory' AND datname = current_database())",
        ) == "0"
    });
    hold("SELECT pg_advisory_unlock(7)");
    let mut walpost = consuming(&builder);
    until(LONG, "it is handled", || database.sql("SELECT count(*) FROM effects") == "103");
    assert!(walpost.terminate(LONG).success());
}

/// What is published while nobody is there arrives afterwards.
fn topic(broker: &Plain, name: &str) {
    let database = database();
    let url = database.url();
    let made = walpost().set("postgres.url", &url).set("replication.slot", database.name());
    assert!(made.arguments(["init"]).output(LONG).status.success());
    database.sql(HANDLER);
    let destination = format!("/topic/{name}");
    let queue = format!("{name}-billing");
    let builder = broker.builder(&url, &[&destination, "--queue", &queue, "--call", "handle"]);
    let mut walpost = consuming(&builder);
    let mut sender = broker.sender();
    let effects =
        || database.sql("SELECT coalesce(string_agg(id, ' ' ORDER BY n), '') FROM effects");
    sender.send(&destination, &[("msg-id", "a")], "{}");
    until(LONG, "it is handled", || effects() == "a");
    assert!(walpost.terminate(LONG).success());
    sender.send(&destination, &[("msg-id", "b")], "{}");
    let mut walpost = consuming(&builder);
    until(LONG, "what was missed is handled", || effects() == "a b");
    walpost.kill();
    sender.send(&destination, &[("msg-id", "c")], r#"{"fail": "x"}"#);
    sender.send(&destination, &[("msg-id", "d")], "{}");
    let mut walpost = consuming(&builder);
    until(LONG, "what was missed is handled", || effects() == "a b d");
    let dead = broker.take(&(broker.dead)(&queue));
    assert_eq!(dead.header("msg-id"), Some("c"));
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn activemq_classic() {
    queue(&classic(), "consumed.classic");
    // Not at the same time: all dead letters are in one queue there.
    topic(&classic(), "consumed.classic.v1");
}

#[test]
fn activemq_artemis() {
    queue(&artemis(), "consumed.artemis");
    topic(&artemis(), "consumed.artemis.v1");
}
