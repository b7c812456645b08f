//! The table of django-outbox-pattern: each example of its README, read by two independent clients.

use std::time::{Duration, Instant};

use stomp_rs::client::{Client, ClientBuilder};
use stomp_rs::protocol::frame::Subscribe;
use stomp_rs::protocol::{Frame, ServerCommand};
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::timeout;
use walpost_testkit::rabbitmq::Vhost;
use walpost_testkit::{Consumer, Message, Walpost, python, until};

use crate::door;
use crate::rig::{LONG, Rig};
use crate::scene::{PUBLISHED, await_all_confirmed, is_confirmed, position};

/// Destination (the model has put the version behind it) and body, as the README shows them.
const EXAMPLES: [(&str, &str); 5] = [
    ("/topic/my_route_key.v1", r#"{"id": 1, "field_one": "Field One", "field_two": "Field Two"}"#),
    ("/topic/my_route_key.v1", r#"{"id": 1, "field_one": "Field One"}"#),
    ("/topic/my_route_key.v1", r#"{"id": 1, "one": "Field One", "two": "Field Two"}"#),
    ("/topic/my_route_key_1.v1", r#"{"id": 1, "one": "Field One"}"#),
    ("/topic/my_route_key_2.v1", r#"{"id": 1, "two": "Field Two"}"#),
];

fn insert(rig: &Rig, id: u32, destination: &str, body: &str, status: i32) {
    rig.database.sql(&format!(
        "INSERT INTO published (id, version, destination, body, added, expires_at, retry, status)
         VALUES ('{}', 'v1', '{destination}', '{body}', now(), now() + '15 days', 0, {status})",
        uuid(id)
    ));
}

/// Without a column for the transaction, a row that is committed before the waiting ones are read comes
/// both out of the table and from the slot.
fn await_streaming(walpost: &mut Walpost) {
    walpost.await_ready(LONG);
    let _ = walpost.wait_for_log("the slot is read from now on", LONG);
}

fn uuid(id: u32) -> String {
    format!("00000000-0000-4000-8000-{id:012}")
}

/// A queue's messages by `stomp-rs`. It cannot log in nor name a virtual host: a door does that for
/// it. And it drops what comes before it has noted its own subscription: subscribe while the queue
/// is empty.
struct StompRs {
    _client: Client,
    messages: Receiver<Frame<ServerCommand>>,
}

impl StompRs {
    async fn subscribe(vhost: &Vhost<'_>, queue: &str) -> Self {
        let connect =
            format!("CONNECT\nlogin:guest\npasscode:guest\nhost:{}\n", vhost.name()).into_bytes();
        let port = door::open(vhost.broker().stomp_port(), move |first| {
            door::replaced(&first, b"CONNECT\n", &connect)
        });
        let builder = ClientBuilder::new(format!("127.0.0.1:{port}"));
        let client = Client::connect(builder).await.unwrap();
        let (sender, messages) = channel(16);
        let subscribe = Subscribe::new_with_random_id(format!("/amq/queue/{queue}"));
        client.subscribe(subscribe, sender).await.unwrap();
        StompRs { _client: client, messages }
    }

    async fn read(&mut self, count: usize) -> Vec<Message> {
        let mut messages = Vec::new();
        while messages.len() < count {
            let frame = timeout(LONG, self.messages.recv()).await.unwrap().unwrap();
            // It knows no escapes either, and keeps the NUL that ends a frame.
            let headers = frame.headers.iter();
            let headers =
                headers.map(|(name, value)| (name.clone(), value.replace("\\c", ":"))).collect();
            let destination = frame.headers["destination"].clone();
            let body = frame.body.trim_end_matches('\0').as_bytes().to_vec();
            messages.push(Message { destination, headers, body, at: Instant::now() });
        }
        messages
    }
}

/// A time as Python prints it, `2026-01-31 12:00:00.123456+00:00`, the fraction optional.
fn is_pythons(time: &str) -> bool {
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    ["0000-00-00 00:00:00.000000+00:00", "0000-00-00 00:00:00+00:00"].contains(&shape.as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_example_of_the_readme_is_read_by_stomp_py_and_stomp_rs() {
    let rig = Rig::new();
    rig.database.sql(PUBLISHED);
    for queue in ["python", "rust"] {
        rig.vhost.declare_queue(queue);
        rig.vhost.bind("amq.topic", queue, "#");
    }
    let mut walpost = rig.walpost().set("outbox.layout", "django").start();
    await_streaming(&mut walpost);
    let mut rust = StompRs::subscribe(&rig.vhost, "rust").await;
    for (id, (destination, body)) in (0..).zip(EXAMPLES) {
        insert(&rig, id, destination, body, 1);
    }
    await_all_confirmed(&rig.database);

    let port = rig.vhost.broker().stomp_port();
    let python =
        python::read_messages(port, rig.vhost.name(), "/amq/queue/python", EXAMPLES.len(), LONG);
    let rust = rust.read(EXAMPLES.len()).await;
    for messages in [python, rust] {
        for (id, ((destination, body), message)) in (0..).zip(EXAMPLES.into_iter().zip(messages)) {
            assert_eq!(message.destination, destination);
            assert_eq!(message.text(), body);
            assert_eq!(message.header("msg-id"), Some(uuid(id).as_str()));
            assert_eq!(message.header("msg-destination"), Some(destination));
            assert_eq!(message.header("msg-type"), Some("Published"));
            let time = message.header("msg-sent-time").unwrap();
            assert!(is_pythons(time), "{time}");
            assert_eq!(message.header("content-type"), Some("application/json"));
        }
    }
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn only_scheduled_rows_are_published_and_updates_are_not() {
    let rig = Rig::new();
    rig.database.sql(PUBLISHED);
    rig.vhost.declare_queue("q.v1");
    let mut walpost = rig.walpost().set("outbox.layout", "django").start();
    await_streaming(&mut walpost);
    for (id, status) in [(0, -1), (1, 0), (2, 2), (3, 3), (4, 1)] {
        insert(&rig, id, "/queue/q.v1", "{}", status);
    }
    // Its own updates, and one that schedules a failed row again.
    rig.database.sql("UPDATE published SET status = 2 WHERE status = 1");
    rig.database.sql("UPDATE published SET status = 1");
    insert(&rig, 5, "/queue/q.v1", "[\"\u{fc}\"]", 1);
    let all = position(&rig.database);
    until(LONG, "all is confirmed", || is_confirmed(&rig.database, &all));
    let consumer = Consumer::of_queue(&rig.vhost, "q.v1");
    let messages = consumer.wait_for(2, LONG);
    let ids: Vec<_> = messages.iter().map(|message| message.header("msg-id").unwrap()).collect();
    assert_eq!(ids, [uuid(4), uuid(5)]);
    // Plain UTF-8, the same JSON.
    assert_eq!(messages[1].text(), "[\"\u{fc}\"]");
    assert_eq!(walpost.metric("walpost_rows_skipped_total{reason=\"status\"}"), 4.0);
    assert!(consumer.drain(Duration::ZERO).len() == 2 && rig.vhost.get("q.v1", 9).is_empty());
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn the_later_versions_have_headers_of_their_own() {
    let rig = Rig::new();
    rig.database.sql(PUBLISHED);
    rig.database.sql("ALTER TABLE published ADD headers jsonb, ALTER version DROP NOT NULL");
    rig.vhost.declare_queue("q.v1");
    let mut walpost =
        rig.walpost().set("outbox.layout", "django").set("outbox.header_style", "dop").start();
    await_streaming(&mut walpost);
    let with = |id: u32, headers: &str| {
        rig.database.sql(&format!(
            "INSERT INTO published (id, destination, body, added, expires_at, retry, status, headers)
             VALUES ('{}', '/queue/q.v1', '[]', now(), now(), 0, 1, {headers})",
            uuid(id)
        ));
    };
    with(0, "NULL");
    // As django-outbox-pattern stores them.
    with(
        1,
        &format!(
            r#"'{{"dop-msg-id": "{}", "dop-msg-destination": "/queue/q.v1", "dop-msg-type": "Published",
                  "dop-msg-sent-time": "2026-01-31 12:00:00+00:00", "dop-correlation-id": "mine",
                  "tenant": 7}}'"#,
            uuid(1)
        ),
    );
    let consumer = Consumer::of_queue(&rig.vhost, "q.v1");
    let messages = consumer.wait_for(2, LONG);
    for (id, message) in (0..).zip(&messages) {
        assert_eq!(message.header("dop-msg-id"), Some(uuid(id).as_str()));
        assert_eq!(message.header("dop-msg-destination"), Some("/queue/q.v1"));
        assert_eq!(message.header("dop-msg-type"), Some("Published"));
        assert_eq!(message.header("msg-id"), None);
        assert_eq!(message.header("amqp-message-id"), None);
    }
    assert_eq!(messages[0].header("dop-correlation-id"), Some(uuid(0).as_str()));
    assert!(is_pythons(messages[0].header("dop-msg-sent-time").unwrap()));
    assert_eq!(messages[1].header("dop-correlation-id"), Some("mine"));
    assert_eq!(messages[1].header("dop-msg-sent-time"), Some("2026-01-31 12:00:00+00:00"));
    assert_eq!(messages[1].header("tenant"), Some("7"));
    assert!(walpost.terminate(LONG).success());
}
