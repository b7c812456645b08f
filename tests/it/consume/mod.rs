//! `walpost subscribe` and the consumers of `walpost run`, on real brokers and databases.

mod bodies;
mod brokers;
mod call;
mod django;
mod handlers;
mod kills;
mod order;

use walpost_testkit::stomp::Frame;
use walpost_testkit::walpost::Builder;
use walpost_testkit::{Said, Session, Walpost, until};

use crate::rig::{LONG, Rig};

/// A function that notes what it was called with, and does as the body says.
const HANDLER: &str = "CREATE TABLE effects (
        n bigint GENERATED ALWAYS AS IDENTITY, id text, body jsonb, headers jsonb, pid integer);
    CREATE FUNCTION handle(body jsonb, headers jsonb) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO effects (id, body, headers, pid)
        VALUES (headers ->> 'msg-id', body, headers, pg_backend_pid());
        IF body ->> 'wait' IS NOT NULL THEN
            PERFORM pg_advisory_xact_lock((body ->> 'wait')::bigint);
        END IF;
        IF body ->> 'fail' IS NOT NULL THEN
            RAISE EXCEPTION '%', body ->> 'fail';
        END IF;
    END $$";

/// A queue in front of a database.
struct Desk {
    rig: Rig,
}

impl Desk {
    fn new() -> Desk {
        let rig = Rig::new();
        let made = rig.walpost().arguments(["init"]).output(LONG);
        assert!(made.status.success(), "{}", made.stderr);
        rig.database.sql(HANDLER);
        Desk { rig }
    }

    /// `walpost subscribe` with these arguments.
    fn subscribe(&self, arguments: &[&str]) -> Builder {
        let all = ["subscribe"].iter().chain(arguments).copied();
        self.rig.walpost().arguments(all).set("retry.first_wait", "50ms")
    }

    /// `walpost subscribe /queue/q --call handle`, when it consumes.
    fn called(&self) -> Walpost {
        consuming(&self.subscribe(&["/queue/q", "--call", "handle"]))
    }

    fn sender(&self) -> Sender {
        Sender(Session::connect(self.rig.vhost.broker().stomp_port(), self.rig.vhost.name()))
    }

    fn sql(&self, sql: &str) -> String {
        self.rig.database.sql(sql)
    }

    fn effects(&self) -> u64 {
        self.sql("SELECT count(*) FROM effects").parse().unwrap()
    }

    #[track_caller]
    fn await_effects(&self, count: u64) {
        until(LONG, &format!("{count} effects"), || self.effects() >= count);
        assert_eq!(self.effects(), count);
    }

    /// Nothing is in the queue, not even unacknowledged.
    #[track_caller]
    fn await_empty(&self, queue: &str) {
        let is_empty = |kind: &str| self.rig.vhost.queue(queue)[kind].as_u64() == Some(0);
        until(LONG, &format!("{queue} is empty"), || {
            is_empty("messages") && is_empty("messages_unacknowledged")
        });
    }

    /// Headers and bodies of the dead letters, when there are so many.
    #[track_caller]
    fn dead_letters(&self, queue: &str, count: u64) -> Vec<serde_json::Value> {
        let name = format!("DLQ.{queue}");
        until(LONG, &format!("{count} dead letters"), || self.rig.vhost.depth(&name) >= count);
        self.rig.vhost.get(&name, 100)
    }
}

/// Starts it, and waits until it consumes.
fn consuming(builder: &Builder) -> Walpost {
    let walpost = builder.start();
    let _ = walpost.wait_for_log("consuming", LONG);
    walpost
}

/// Sends, and waits for the receipt.
struct Sender(Session);

impl Sender {
    #[track_caller]
    fn send(&mut self, destination: &str, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) {
        let mut frame = Frame::new(
            "SEND",
            &[("destination", destination), ("receipt", "r"), ("persistent", "true")],
        );
        frame.headers.extend(headers.iter().map(|(name, value)| ((*name).into(), (*value).into())));
        self.0.send(&frame.with_body(body));
        match self.0.next(LONG) {
            Some(Said::Frame(frame)) if frame.command == "RECEIPT" => {}
            other => panic!("{other:?}"),
        }
    }

    /// To the queue of RabbitMQ that a consumer has made.
    #[track_caller]
    fn q(&mut self, id: &str, body: &str) {
        self.send("/amq/queue/q", &[("msg-id", id)], body);
    }
}
