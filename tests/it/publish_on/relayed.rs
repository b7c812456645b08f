//! From the row of a table to the broker.

use walpost_testkit::ScriptedBroker;

use crate::init;
use crate::rig::LONG;
use crate::scene::{await_all_confirmed, database, relay};

#[test]
fn what_is_written_to_a_table_arrives() {
    let (database, broker) = (database(), ScriptedBroker::start());
    init::init(&database);
    database.sql(
        "CREATE TABLE orders (id int PRIMARY KEY, customer int, total numeric(10, 2));
         SELECT walpost.publish_on('orders', '/topic/orders', key => 'customer');
         SELECT walpost.publish_on('orders', '/queue/gone', fields => '{}', version => NULL, events => '{delete}')",
    );
    let mut walpost = relay(&database, &broker.address()).start();
    walpost.await_ready(LONG);
    database.sql("INSERT INTO orders SELECT n, n % 7, n / 10.0 FROM generate_series(1, 500) AS n");
    database.sql("BEGIN; UPDATE orders SET total = 1; ROLLBACK; DELETE FROM orders WHERE id = 500");
    broker.wait_for_sends(501, LONG);
    await_all_confirmed(&database);
    let messages = broker.messages();
    assert_eq!(messages.len(), 501);
    for (id, message) in (1..=500).zip(&messages) {
        assert_eq!(message.header("destination"), Some("/topic/orders.v1"));
        assert_eq!(message.header("event"), None);
        let body: serde_json::Value = serde_json::from_slice(&message.body).unwrap();
        let total = format!("{}.{}0", id / 10, id % 10);
        assert_eq!(body, serde_json::json!({"id": id, "customer": id % 7, "total": total}));
    }
    let gone = &messages[500];
    assert_eq!(gone.header("destination"), Some("/queue/gone"));
    assert_eq!(gone.header("event"), Some("delete"));
    assert_eq!(gone.body, br#"{"id": 500}"#);
    assert!(walpost.terminate(LONG).success());
}
