//! `walpost send`: one message straight to the broker.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use walpost_testkit::walpost::{Builder, Finished};
use walpost_testkit::{ActiveMq, Artemis, Consumer, RabbitMq, ScriptedBroker, Verdict};

use crate::rig::{LONG, walpost};

fn send(hosts: &str) -> Builder {
    // PostgreSQL is not asked.
    walpost().set("postgres.url", "postgresql://nobody@127.0.0.1:1/none").set("broker.hosts", hosts)
}

fn run(builder: &Builder, arguments: &[&str]) -> Finished {
    let arguments = ["send"].iter().chain(arguments).copied();
    builder.clone().arguments(arguments).output(LONG)
}

#[test]
fn it_is_what_the_relay_would_send() {
    let broker = ScriptedBroker::start();
    let settings = send(&broker.address()).set("outbox.headers", r#"{"x-by": "tests"}"#);
    let json = ["/queue/q", r#"{"id": 7}"#, "--version", "v2", "--header", "tenant:a:b"];
    let done = run(&settings, &json);
    assert!(done.status.success(), "{done:?}");
    let bytes = ["/queue/q", "no json", "--header", "receipt:no"];
    let dropped = run(&settings, &bytes);
    assert!(dropped.stdout.contains("without 1 of its headers"), "{dropped:?}");
    assert!(run(&settings, &["/queue/empty"]).status.success());
    let messages = broker.messages();
    let [json, bytes, empty] = &messages[..] else { panic!("{messages:?}") };
    let id = json.header("msg-id").unwrap();
    assert!(done.stdout.starts_with(&format!("sent {id} to /queue/q.v2: stored by ")), "{done:?}");
    assert_eq!(json.header("destination"), Some("/queue/q.v2"));
    for (name, value) in [
        ("tenant", "a:b"),
        ("x-by", "tests"),
        ("persistent", "true"),
        ("msg-type", "Published"),
        ("content-type", "application/json"),
    ] {
        assert_eq!(json.header(name), Some(value), "{name}");
    }
    assert_eq!(&json.body[..], br#"{"id": 7}"#);
    assert_eq!(bytes.header("destination"), Some("/queue/q"));
    assert_eq!(bytes.header("content-type"), Some("application/octet-stream"));
    assert_eq!((empty.header("destination"), empty.body.len()), (Some("/queue/empty"), 0));
}

#[test]
fn the_body_comes_from_standard_input() {
    let broker = ScriptedBroker::start();
    let mut child = Command::new(env!("CARGO_BIN_EXE_walpost"))
        .args(["send", "/queue/q", "-"])
        .env("WALPOST__BROKER__HOSTS", broker.address())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"\0\xff\n").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(&broker.messages()[0].body[..], b"\0\xff\n");
}

#[test]
fn what_is_not_stored_is_said() {
    let refusing = ScriptedBroker::builder().on_frame(|frame, reply| {
        if frame.command == "SEND" {
            reply.error("not_found", "no such exchange", frame.header("receipt"));
            return Verdict::Taken;
        }
        Verdict::Default
    });
    let silent = ScriptedBroker::builder().on_frame(|frame, _| match frame.command.as_str() {
        "SEND" => Verdict::Taken,
        _ => Verdict::Default,
    });
    let (refusing, silent) = (refusing.start(), silent.start());
    let failed = |settings: &Builder, says: &str| {
        let done = run(settings, &["/queue/q", "{}"]);
        assert_eq!(done.status.code(), Some(1), "{done:?}");
        assert!(done.stderr.starts_with("error: ") && done.stderr.contains(says), "{done:?}");
        assert_eq!(done.stdout, "");
    };
    failed(&send(&refusing.address()), "the broker refused it: not_found: no such exchange");
    let impatient = send(&silent.address()).set("broker.receipt_timeout", "1s");
    failed(&impatient, "no receipt within 1s");
    failed(&send("127.0.0.1:1"), "no broker took us: 127.0.0.1:1: ");
    let small = send(&refusing.address()).set("broker.max_frame_size", "1KiB");
    let large = run(&small, &["/queue/q", &"x".repeat(2_000)]);
    assert_eq!(large.status.code(), Some(1), "{large:?}");
    assert!(large.stderr.contains("larger than broker.max_frame_size"), "{large:?}");
    let usage = run(&send("127.0.0.1:1"), &["/queue/q", "--header", "no colon"]);
    assert_eq!(usage.status.code(), Some(2), "{usage:?}");
}

#[test]
fn a_host_that_is_down_is_passed_over() {
    let broker = ScriptedBroker::start();
    let hosts = format!("127.0.0.1:1,{}", broker.address());
    assert!(run(&send(&hosts), &["/queue/q", "{}"]).status.success());
    assert_eq!(broker.sends(), 1);
}

#[test]
fn each_broker_stores_it() {
    let queue = format!("/queue/send-{}", fastrand::u32(..));
    let vhost = RabbitMq::shared().fresh_vhost();
    let rabbitmq = send(&vhost.broker().stomp_address()).set("broker.vhost", vhost.name());
    let activemq = send(&ActiveMq::shared().stomp_address());
    let artemis = send(&Artemis::shared().stomp_address());
    let reading = |port| Consumer::builder(port).subscribe(&queue);
    let readers = [
        (rabbitmq, reading(vhost.broker().stomp_port()).vhost(vhost.name())),
        (activemq, reading(ActiveMq::shared().stomp_port())),
        (artemis, reading(Artemis::shared().stomp_port()).anycast()),
    ];
    for (settings, reader) in readers {
        let done = run(&settings, &[&queue, r#"{"n": 1}"#]);
        assert!(done.status.success(), "{done:?}");
        let reader = reader.start();
        let messages = reader.wait_for(1, Duration::from_secs(30));
        assert_eq!(messages[0].text(), r#"{"n": 1}"#);
        assert!(done.stdout.contains(messages[0].header("msg-id").unwrap()), "{done:?}");
    }
}
