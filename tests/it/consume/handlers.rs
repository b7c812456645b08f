//! Handlers outside of the database: a URL, a command, standard output; and the consumers of `run`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;
use walpost_testkit::until;

use super::{Desk, consuming};
use crate::rig::LONG;

/// A request: its head, its body, and the connection's number.
#[derive(Clone, Debug)]
struct Request {
    head: String,
    body: Vec<u8>,
    connection: usize,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

type Requests = Arc<Mutex<Vec<Request>>>;

/// An application that answers with the status that the body asks for, one after the other.
fn application(listener: TcpListener) -> Requests {
    let requests = Requests::default();
    let seen = Arc::clone(&requests);
    thread::spawn(move || {
        for (connection, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            let seen = Arc::clone(&seen);
            thread::spawn(move || {
                let (mut reader, mut stream) =
                    (BufReader::new(stream.try_clone().unwrap()), stream);
                loop {
                    let (mut head, mut length) = (String::new(), 0);
                    while !head.ends_with("\r\n\r\n") {
                        let before = head.len();
                        if reader.read_line(&mut head).unwrap_or(0) == 0 {
                            return;
                        }
                        if let Some(text) = head[before..].strip_prefix("content-length: ") {
                            length = text.trim().parse().unwrap();
                        }
                    }
                    let mut body = vec![0; length];
                    reader.read_exact(&mut body).unwrap();
                    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
                    let mut seen = seen.lock().unwrap();
                    let same = seen.iter().filter(|request| request.body == body).count();
                    seen.push(Request { head, body, connection });
                    drop(seen);
                    let status = asked["status"][same].as_u64().unwrap_or(204);
                    write!(stream, "HTTP/1.1 {status} Said\r\ncontent-length: 0\r\n\r\n").unwrap();
                }
            });
        }
    });
    requests
}

fn of(requests: &Requests, body: &str) -> Vec<Request> {
    let all = requests.lock().unwrap();
    all.iter().filter(|request| request.body == body.as_bytes()).cloned().collect()
}

#[test]
fn an_application_is_posted_to() {
    let desk = Desk::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let url = format!("http://{address}/in?x=1");
    let builder = desk.subscribe(&["/queue/q", "--http", &url]);
    let mut walpost = consuming(&builder.set("retry.pause_after", 1).set("retry.wait", "100ms"));
    let mut sender = desk.sender();
    let headers = [("msg-id", "a"), ("note", "1:2\n%"), ("content-type", "application/json")];
    sender.send("/amq/queue/q", &headers, "{}");
    let _ = walpost.wait_for_log("again", LONG);
    // It is up now.
    let requests = application(TcpListener::bind(address).unwrap());
    until(LONG, "it is posted", || of(&requests, "{}").len() == 1);
    let request = &of(&requests, "{}")[0];
    assert!(request.head.starts_with("POST /in?x=1 HTTP/1.1\r\n"), "{}", request.head);
    for (name, value) in [
        ("host", address.to_string().as_str()),
        ("content-type", "application/json"),
        ("walpost-queue", "q"),
        ("walpost-message-id", "a"),
        ("walpost-destination", "/queue/q"),
        ("walpost-header-msg-id", "a"),
        ("walpost-header-note", "1:2%0A%25"),
    ] {
        assert_eq!(request.header(name), Some(value), "{}", request.head);
    }
    let busy = r#"{"status": [503, 500, 302, 200]}"#;
    sender.q("b", busy);
    sender.q("c", r#"{"status": [422, 200]}"#);
    sender.q("a", "{}");
    sender.send("/amq/queue/q", &[("msg-id", "a"), ("msg-replay-force", "true")], "[1]");
    until(LONG, "the last one is posted", || of(&requests, "[1]").len() == 1);
    assert_eq!((of(&requests, busy).len(), of(&requests, "{}").len()), (4, 1));
    assert_eq!(of(&requests, r#"{"status": [422, 200]}"#).len(), 1);
    let connections: Vec<usize> = requests.lock().unwrap().iter().map(|r| r.connection).collect();
    assert!(connections.iter().all(|connection| *connection == 0), "{connections:?}");
    let dead = desk.dead_letters("q", 1);
    assert_eq!(dead[0]["properties"]["headers"]["msg-id"], "c");
    desk.await_empty("q");
    assert_eq!(
        desk.sql("SELECT string_agg(message_id, ' ' ORDER BY message_id) FROM walpost.inbox"),
        "a b"
    );
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn after_the_last_attempt_it_is_a_dead_letter() {
    let desk = Desk::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let requests = application(listener);
    let builder = desk.subscribe(&["/queue/q", "--http", &url]).set("retry.wait", "50ms");
    let builder = builder.set("retry.pause_after", 1).set("retry.max_attempts", 3);
    let mut walpost = consuming(&builder);
    let body = r#"{"status": [500, 500, 500, 200]}"#;
    desk.sender().q("a", body);
    assert_eq!(desk.dead_letters("q", 1).len(), 1);
    assert_eq!(of(&requests, body).len(), 3);
    let line = walpost.wait_for_log("refused", LONG);
    assert!(line.contains("500") && line.contains("3 times"), "{line}");
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn a_command_is_run_for_each() {
    let desk = Desk::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("handled");
    let script = format!(
        "read body; test -z \"$WALPOST__POSTGRES__URL\" || exit 9; test \"$body\" != bad || exit 4;
         echo \"$WALPOST_QUEUE $WALPOST_MESSAGE_ID $WALPOST_HEADER_MSG_ID $body $1\" >> {}",
        file.display()
    );
    let builder = desk.subscribe(&["/queue/q", "--exec", "/bin/sh", "-c", &script, "sh", "-v"]);
    let mut walpost = consuming(&builder);
    let mut sender = desk.sender();
    for (id, body) in [("a", "one\n"), ("b", "bad\n"), ("a", "again\n"), ("c", "two\n")] {
        sender.q(id, body);
    }
    let handled = || std::fs::read_to_string(&file).unwrap_or_default();
    until(LONG, "all are handled", || handled().lines().count() >= 2);
    assert_eq!(handled(), "q a a one -v\nq c c two -v\n");
    let dead = desk.dead_letters("q", 1);
    assert_eq!(dead[0]["payload"], "bad\n");
    assert!(walpost.wait_for_log("refused", LONG).contains("exit status: 4"));
    desk.await_empty("q");
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn messages_are_printed_without_a_database() {
    let desk = Desk::new();
    let builder = desk.subscribe(&["/queue/q"]).set("postgres.url", "postgresql://x@127.0.0.1:1/x");
    let mut walpost = consuming(&builder);
    let mut sender = desk.sender();
    sender.q("a", "{\"n\":\n 1}");
    sender.send("/amq/queue/q", &[("msg-id", "b")], [0, 255]);
    until(LONG, "both are printed", || walpost.stdout().lines().count() == 2);
    let lines: Vec<Value> =
        walpost.stdout().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["id"], "a");
    assert_eq!(lines[0]["body"]["n"], 1);
    assert_eq!(lines[0]["headers"]["msg-id"], "a");
    assert_eq!((&lines[1]["encoding"], &lines[1]["body"]), (&"base64".into(), &"AP8=".into()));
    desk.await_empty("q");
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn run_consumes_what_the_configuration_says_and_counts_it() {
    let desk = Desk::new();
    let consumers = r#"[
        {"destination": "/queue/q", "handler": {"call": "handle"}},
        {"destination": "/topic/orders.#", "queue": "audit", "handler": {"call": "public.handle"}, "prefetch": 10}]"#;
    let mut walpost = desk.rig.walpost().set("consumers", consumers).start();
    walpost.await_ready(LONG);
    let _ = walpost.wait_for_log("queue=\"audit\"", LONG);
    let _ = walpost.wait_for_log("queue=\"q\"", LONG);
    let connected = || {
        let status = walpost.status();
        let all = status["consumers"].as_array().cloned().unwrap_or_default();
        all.len() == 2 && all.iter().all(|consumer| consumer["connected"] == true)
    };
    until(LONG, "the status shows both", connected);
    desk.sql(r#"SELECT walpost.publish('/topic/orders', '{"n": 1}')"#);
    desk.await_effects(1);
    let mut sender = desk.sender();
    for (id, body) in [("a", "{}"), ("a", "{}"), ("b", r#"{"fail": "x"}"#)] {
        sender.q(id, body);
    }
    desk.await_effects(2);
    let count = |queue: &str, outcome: &str| {
        walpost
            .metric(&format!("walpost_consumed_total{{outcome=\"{outcome}\",queue=\"{queue}\"}}"))
    };
    assert_eq!(count("audit", "handled"), 1.0);
    assert_eq!(
        (count("q", "handled"), count("q", "duplicate"), count("q", "refused")),
        (1.0, 1.0, 1.0)
    );
    desk.await_empty("q");
    assert!(walpost.terminate(LONG).success());
}
