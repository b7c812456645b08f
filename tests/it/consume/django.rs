//! Beside and in place of django-outbox-pattern: its queues, and its table.

use std::process::Command;

use walpost_testkit::python::interpreter;

use super::{Desk, consuming};
use crate::rig::LONG;

/// What its `subscribe` does, with the client that it uses.
const ITS_CONSUMER: &str = "
import sys, time, stomp
port, vhost, destination, queue = sys.argv[1:]
connection = stomp.Connection12([('127.0.0.1', int(port))], vhost=vhost)
connection.connect('guest', 'guest', wait=True)
def headers(queue, dead):
    return {'durable': 'true', 'auto-delete': 'false', 'prefetch-count': '1', 'x-queue-name': queue,
            'x-dead-letter-routing-key': dead, 'x-dead-letter-exchange': ''}
dlq = 'DLQ.' + queue
connection.subscribe(dlq, '1', ack='client', headers=headers(dlq, 'DLQ.DLQ.' + dlq))
connection.unsubscribe('1')
connection.subscribe(destination, '2', ack='client', headers=headers(queue, dlq))
connection.disconnect(receipt='bye')
";

/// Its table from version 2 on; before that `msg_id` was not unique.
const RECEIVED: &str = "CREATE TABLE received (
    id uuid PRIMARY KEY, msg_id varchar(100), headers jsonb, body jsonb, added timestamptz NOT NULL,
    expires_at timestamptz NOT NULL, retry integer NOT NULL CHECK (retry >= 0), status integer NOT NULL)";

#[test]
fn its_queues_are_joined() {
    let desk = Desk::new();
    let (port, vhost) = (desk.rig.vhost.broker().stomp_port(), desk.rig.vhost.name());
    let declared = Command::new(interpreter())
        .args(["-c", ITS_CONSUMER, &port.to_string(), vhost, "/topic/orders.v1", "billing"])
        .output()
        .unwrap();
    assert!(declared.status.success(), "{}", String::from_utf8_lossy(&declared.stderr));
    walpost_testkit::until(LONG, "its queue is there", || {
        !desk.rig.vhost.queue("billing").is_null()
    });
    let arguments = |queue: &str| desk.rig.vhost.queue(queue)["arguments"].clone();
    let theirs = (arguments("billing"), arguments("DLQ.billing"));
    let subscribe = ["/topic/orders.v1", "--queue", "billing", "--call", "handle"];
    let mut walpost = consuming(&desk.subscribe(&subscribe));
    let mut sender = desk.sender();
    sender.send("/topic/orders.v1", &[("dop-msg-id", "a"), ("msg-id", "b")], "{}");
    sender.send("/topic/orders.v1", &[("msg-id", "c")], r#"{"fail": "x"}"#);
    desk.await_effects(1);
    assert_eq!(desk.dead_letters("billing", 1).len(), 1);
    assert_eq!(desk.sql("SELECT message_id FROM walpost.inbox"), "a");
    assert!(!walpost.log().contains("cannot be declared"), "{}", walpost.log());
    assert!(walpost.terminate(LONG).success());

    // And what walpost declares is what it would have declared.
    for queue in ["billing", "DLQ.billing"] {
        desk.rig.vhost.delete_queue(queue);
    }
    let mut walpost = consuming(&desk.subscribe(&subscribe));
    assert_eq!((arguments("billing"), arguments("DLQ.billing")), theirs);
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn dead_letters_that_somebody_else_has_declared_are_no_obstacle() {
    let desk = Desk::new();
    desk.rig.vhost.declare_queue("DLQ.q");
    let mut walpost = desk.called();
    let line = walpost.wait_for_log("cannot be declared", LONG);
    assert!(line.contains("DLQ.q"), "{line}");
    desk.sender().q("a", r#"{"fail": "x"}"#);
    assert_eq!(desk.dead_letters("q", 1).len(), 1);
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn its_table_is_the_inbox() {
    for unique in ["", "CREATE UNIQUE INDEX ON received (msg_id)"] {
        let desk = Desk::new();
        desk.sql(RECEIVED);
        desk.sql(unique);
        // Handled by it before; and what its callback has failed with.
        desk.sql(
            "INSERT INTO received VALUES
                (gen_random_uuid(), 'a', '{}', '{}', now(), now(), 0, 2),
                (gen_random_uuid(), 'b', '{}', '{}', now(), now(), 0, -1)",
        );
        let builder =
            desk.subscribe(&["/queue/q", "--call", "handle"]).set("outbox.layout", "django");
        let mut walpost = consuming(&builder);
        let mut sender = desk.sender();
        for id in ["a", "b", "c", "c", "b"] {
            sender.q(id, r#"{"n": 1}"#);
        }
        sender.q("last", "no JSON");
        walpost_testkit::until(LONG, "the last one is handled", || {
            desk.sql("SELECT count(*) FROM effects WHERE id = 'last'") == "1"
        });
        assert_eq!(desk.sql("SELECT string_agg(id, ' ' ORDER BY n) FROM effects"), "b c last");
        assert_eq!(
            desk.sql(
                "SELECT msg_id, status, retry, body, headers ->> 'msg-id' FROM received
                      WHERE msg_id <> 'a' ORDER BY msg_id"
            ),
            "b|2|0|{\"n\": 1}|b\nc|2|0|{\"n\": 1}|c\nlast|2|0|\"no JSON\"|last"
        );
        assert_eq!(desk.sql("SELECT count(*) FROM walpost.inbox"), "0");
        assert!(walpost.terminate(LONG).success());
    }
}
