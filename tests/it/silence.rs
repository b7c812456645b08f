//! A PostgreSQL that has gone silent: a dead link is noticed, and what comes after is relayed.

use walpost_testkit::http;
use walpost_testkit::{Postgres, ScriptedBroker, until};

use crate::rig::{LONG, walpost};

#[test]
fn a_silent_server_is_noticed_and_left() {
    let server = Postgres::builder().fast().start();
    let broker = ScriptedBroker::start();
    let mut walpost = walpost()
        .set("postgres.url", server.url("postgres"))
        .set("postgres.connect_timeout", "2s")
        .set("replication.status_interval", "1s")
        .set("broker.hosts", broker.address())
        .start();
    walpost.await_ready(LONG);
    server.sql("postgres", "SELECT walpost.publish('/queue/a', '1')");
    broker.wait_for_sends(1, LONG);

    server.freeze();
    // Before the link counts as dead, nobody knows what is committed there.
    until(LONG, "the lag grows", || {
        let metrics = walpost.metrics();
        metrics["walpost_replication_lag_seconds"] >= 5.0
            && metrics[r#"walpost_connected{peer="postgresql"}"#] == 1.0
    });
    walpost.wait_for_log("has been silent", LONG);
    let ready = http::get(walpost.http_port(), "/readyz").unwrap();
    assert_eq!(ready.status, 503, "{}", ready.text());
    assert!(ready.text().contains("PostgreSQL"), "{}", ready.text());
    server.thaw();

    walpost.await_ready(LONG);
    server.sql("postgres", "SELECT walpost.publish('/queue/a', '2')");
    broker.wait_for_sends(2, LONG);
    let bodies: Vec<_> = broker.messages().iter().map(|m| m.body.clone()).collect();
    assert_eq!(bodies, [b"1".to_vec(), b"2".to_vec()], "in order, none repeated");
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
}
