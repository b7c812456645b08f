//! What a consumer with JMS gets.

use walpost_testkit::jvm::JmsMessage;
use walpost_testkit::{ActiveMq, Artemis};

use crate::rig::LONG;
use crate::scene::{await_all_confirmed, database, relay};

/// What JMS reads off `queue` with `broker.body: BODY`, of a JSON body, a body of bytes with a NUL, and an empty one.
#[track_caller]
fn read(
    address: &str,
    queue: &str,
    body: &str,
    by_jms: impl Fn(usize) -> Vec<JmsMessage>,
) -> Vec<JmsMessage> {
    let database = database();
    let mut walpost = relay(&database, address).set("broker.body", body).start();
    walpost.await_ready(LONG);
    database.sql(&format!(
        r#"SELECT walpost.publish('{queue}', '{{"a": "ü"}}');
           SELECT walpost.publish_bytes('{queue}', '\x610062');
           SELECT walpost.publish('{queue}', NULL)"#
    ));
    await_all_confirmed(&database);
    assert!(walpost.terminate(LONG).success());
    by_jms(3)
}

fn text(text: &str) -> JmsMessage {
    JmsMessage::Text(text.to_owned())
}

fn bytes(bytes: &[u8]) -> JmsMessage {
    JmsMessage::Bytes(bytes.to_vec())
}

const JSON: &str = r#"{"a": "ü"}"#;

#[test]
fn of_activemq() {
    let broker = ActiveMq::shared();
    let by_jms = |queue: &'static str| move |count| broker.read_by_jms(queue, count);
    let address = broker.stomp_address();
    let got = read(&address, "/queue/jms.text", "text", by_jms("jms.text.v1"));
    assert_eq!(got, [text(JSON), bytes(b"a\0b"), text("")]);
    let got = read(&address, "/queue/jms.bytes", "bytes", by_jms("jms.bytes.v1"));
    assert_eq!(got, [bytes(JSON.as_bytes()), bytes(b"a\0b"), bytes(b"")]);
}

#[test]
fn of_artemis() {
    let broker = Artemis::shared();
    let by_jms = |queue: &'static str| move |count| broker.read_by_jms(queue, count);
    let address = broker.stomp_address();
    let got = read(&address, "/queue/jms.text", "text", by_jms("/queue/jms.text.v1"));
    assert_eq!(got, [text(JSON), bytes(b"a\0b"), text("")]);
    let got = read(&address, "/queue/jms.bytes", "bytes", by_jms("/queue/jms.bytes.v1"));
    assert_eq!(got, [bytes(JSON.as_bytes()), bytes(b"a\0b"), bytes(b"")]);
}
