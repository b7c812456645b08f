//! Virtual hosts, exchanges and queues through the management API.

use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use super::RabbitMq;

impl RabbitMq {
    /// A new, empty virtual host for one test. Dropping the handle removes it with all in it.
    #[must_use]
    pub fn fresh_vhost(&self) -> Vhost<'_> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.demand("PUT", &format!("/vhosts/{name}"), None);
        self.permit(&name, "guest", ".*", ".*", ".*");
        Vhost { broker: self, name }
    }

    /// The default virtual host `/`.
    #[must_use]
    pub fn default_vhost(&self) -> Vhost<'_> {
        Vhost { broker: self, name: "/".to_owned() }
    }

    /// Makes a user, or changes its password.
    pub fn add_user(&self, name: &str, password: &str) {
        self.demand(
            "PUT",
            &format!("/users/{name}"),
            Some(json!({"password": password, "tags": ""})),
        );
    }

    /// Sets what `user` may do in `vhost`: three regular expressions of names.
    pub fn permit(&self, vhost: &str, user: &str, configure: &str, write: &str, read: &str) {
        let permissions = json!({"configure": configure, "write": write, "read": read});
        self.demand("PUT", &format!("/permissions/{}/{user}", escaped(vhost)), Some(permissions));
    }

    #[track_caller]
    fn demand(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let body = body.map(|body| body.to_string());
        let answer = self
            .api(method, path, body.as_deref())
            .unwrap_or_else(|error| panic!("{method} {path}: {error}\n{}", self.log()));
        assert!(
            (200..300).contains(&answer.status),
            "{method} {path}: {} {}",
            answer.status,
            answer.text()
        );
        answer.json()
    }
}

/// A virtual host of a node.
#[derive(Debug)]
pub struct Vhost<'a> {
    broker: &'a RabbitMq,
    name: String,
}

impl Vhost<'_> {
    /// Its name, for `broker.vhost`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its node.
    #[must_use]
    pub fn broker(&self) -> &RabbitMq {
        self.broker
    }

    /// Declares a durable queue (in STOMP `/amq/queue/NAME`, or `/queue/NAME` if sent to with the same arguments).
    pub fn declare_queue(&self, queue: &str) {
        self.declare_queue_with(queue, json!({}));
    }

    /// The same with `x-` arguments.
    pub fn declare_queue_with(&self, queue: &str, arguments: Value) {
        let path = self.path("queues", queue);
        self.broker.demand("PUT", &path, Some(json!({"durable": true, "arguments": arguments})));
    }

    /// Removes a queue.
    pub fn delete_queue(&self, queue: &str) {
        self.broker.demand("DELETE", &self.path("queues", queue), None);
    }

    /// Takes all messages out of a queue.
    pub fn purge(&self, queue: &str) {
        self.broker.demand("DELETE", &format!("{}/contents", self.path("queues", queue)), None);
    }

    /// Declares a durable exchange of a kind: `topic`, `fanout`, `direct`.
    pub fn declare_exchange(&self, exchange: &str, kind: &str) {
        self.broker.demand(
            "PUT",
            &self.path("exchanges", exchange),
            Some(json!({"type": kind, "durable": true})),
        );
    }

    /// Binds a queue to an exchange. `/topic/KEY` in STOMP is the exchange `amq.topic` with that routing key.
    pub fn bind(&self, exchange: &str, queue: &str, routing_key: &str) {
        let path = format!(
            "/bindings/{}/e/{}/q/{}",
            escaped(&self.name),
            escaped(exchange),
            escaped(queue)
        );
        self.broker.demand("POST", &path, Some(json!({"routing_key": routing_key})));
    }

    /// How many messages a queue holds, ready and unacknowledged. A second or two old: await a value, never read it once.
    #[must_use]
    pub fn depth(&self, queue: &str) -> u64 {
        self.queue(queue)["messages"].as_u64().unwrap_or(0)
    }

    /// What the management API tells of a queue; `Null` if there is none.
    #[must_use]
    pub fn queue(&self, queue: &str) -> Value {
        match self.broker.api("GET", &self.path("queues", queue), None) {
            Ok(answer) if answer.status == 200 => answer.json(),
            _ => Value::Null,
        }
    }

    /// Takes up to `count` messages off a queue, exact at once: objects with `payload`, `payload_encoding` (`string` or
    /// `base64`), `properties` and `redelivered`.
    #[must_use]
    pub fn get(&self, queue: &str, count: u32) -> Vec<Value> {
        let ask = json!({"count": count, "ackmode": "ack_requeue_false", "encoding": "auto"});
        let answer =
            self.broker.demand("POST", &format!("{}/get", self.path("queues", queue)), Some(ask));
        answer.as_array().cloned().unwrap_or_default()
    }

    fn path(&self, kind: &str, name: &str) -> String {
        format!("/{kind}/{}/{}", escaped(&self.name), escaped(name))
    }
}

impl Drop for Vhost<'_> {
    fn drop(&mut self) {
        if self.name != "/" {
            // The node may be down by now.
            let _ = self.broker.api("DELETE", &format!("/vhosts/{}", self.name), None);
        }
    }
}

/// `text` as one part of a URL's path.
fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut path, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                path.push(char::from(byte))
            }
            _ => path += &format!("%{byte:02X}"),
        }
        path
    })
}
