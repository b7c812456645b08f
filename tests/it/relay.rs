//! Rows that reach the broker.

use walpost_testkit::{Consumer, until};

use crate::rig::{LONG, Rig};

#[test]
fn a_committed_row_arrives_and_is_confirmed() {
    let rig = Rig::new();
    rig.vhost.declare_queue("orders.v1");
    let mut walpost = rig.start();
    rig.database.sql(
        r#"SELECT walpost.publish('/queue/orders', '{"id": 1}', key => 'k', headers => '{"a": "b:c"}')"#,
    );
    let consumer = Consumer::of_queue(&rig.vhost, "orders.v1");
    let messages = consumer.wait_for(1, LONG);
    assert_eq!(messages[0].text(), r#"{"id": 1}"#);
    assert_eq!(messages[0].header("a"), Some("b:c"));
    assert_eq!(messages[0].header("content-type"), Some("application/json"));
    assert_eq!(messages[0].header("msg-destination"), Some("/queue/orders.v1"));
    let lsn = rig.database.sql("SELECT pg_current_wal_lsn()");
    until(LONG, "the position to be confirmed", || {
        rig.database.sql(&format!(
            "SELECT confirmed_flush_lsn >= '{lsn}' FROM pg_replication_slots WHERE slot_name = '{}'",
            rig.database.name()
        )) == "t"
    });
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
}
