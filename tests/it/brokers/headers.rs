//! The headers that walpost adds for each broker, by what its CONNECTED says or by what is configured.

use walpost_testkit::ScriptedBroker;
use walpost_testkit::stomp::Frame;

use crate::rig::LONG;
use crate::scene::{await_all_confirmed, database, relay};

const ARTEMIS: &str = "ActiveMQ-Artemis/2.40.0 ActiveMQ Artemis Messaging Engine";

/// The SENDs of a row to a queue, one to a topic, one to neither, and one with headers of its own.
fn sends(server: &str, kind: &str) -> Vec<Frame> {
    let (database, broker) = (database(), ScriptedBroker::builder().server(server).start());
    let mut walpost = relay(&database, &broker.address()).set("broker.kind", kind).start();
    walpost.await_ready(LONG);
    database.sql(
        r#"SELECT walpost.publish('/queue/q', '{}');
           SELECT walpost.publish('/topic/t', '{}');
           SELECT walpost.publish('plain', '{}');
           SELECT walpost.publish('/queue/own', '{}', headers =>
             '{"destination-type": "MULTICAST", "_AMQ_DUPL_ID": "mine", "amqp-message-id": "mine"}')"#,
    );
    await_all_confirmed(&database);
    assert!(walpost.terminate(LONG).success());
    let sends = broker.messages();
    assert_eq!(sends.len(), 4);
    sends
}

/// The values of `name`, of each message.
fn of<'a>(sends: &'a [Frame], name: &str) -> Vec<Option<&'a str>> {
    sends.iter().map(|send| send.header(name)).collect()
}

#[test]
fn of_artemis() {
    for (server, kind) in [(ARTEMIS, "auto"), ("", "artemis")] {
        let sends = sends(server, kind);
        let ids = of(&sends, "msg-id");
        assert!(ids.iter().all(Option::is_some), "{ids:?}");
        assert_eq!(of(&sends, "_AMQ_DUPL_ID"), [ids[0], ids[1], ids[2], Some("mine")]);
        let types = [Some("ANYCAST"), Some("MULTICAST"), None, Some("MULTICAST")];
        assert_eq!(of(&sends, "destination-type"), types);
        assert_eq!(of(&sends, "amqp-message-id")[..3], [None; 3]);
    }
}

#[test]
fn of_the_others() {
    for (server, kind) in [("RabbitMQ/3.10.8", "auto"), ("", "rabbitmq")] {
        let sends = sends(server, kind);
        let ids = of(&sends, "msg-id");
        assert_eq!(of(&sends, "amqp-message-id"), [ids[0], ids[1], ids[2], Some("mine")]);
        assert_eq!(of(&sends, "_AMQ_DUPL_ID")[..3], [None; 3]);
    }
    for (server, kind) in [("ActiveMQ/5.17.2", "auto"), ("", "auto"), (ARTEMIS, "other")] {
        let sends = sends(server, kind);
        for name in ["_AMQ_DUPL_ID", "destination-type", "amqp-message-id"] {
            assert_eq!(of(&sends, name)[..3], [None; 3], "{server} {kind}: {name}");
        }
    }
}
