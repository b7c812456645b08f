//! A dump brings the registrations: `pg_dump` is of one version of PostgreSQL, so this is apart from the rest.

use std::process::Command;

use walpost_testkit::Postgres;

use super::{orders, published};
use crate::init;

/// Nothing but triggers and functions remembers a call, so a dump brings it all.
#[test]
fn a_dump_brings_the_registrations() {
    let (database, copy) = (orders(), Postgres::shared().fresh_database());
    database.sql("SELECT walpost.publish_on('orders', 'd', key => 'name')");
    let server = database.server();
    let own = server.bindir().join("pg_dump");
    let program = if own.exists() { own } else { "pg_dump".into() };
    let dump = Command::new(program).args(["-d", &database.url()]).output().unwrap();
    assert!(dump.status.success(), "{dump:?}");
    init::psql(server, copy.name(), &String::from_utf8(dump.stdout).unwrap());
    copy.sql("INSERT INTO orders VALUES (1, 'x')");
    assert_eq!(published(&copy), [r#"d x {"id": 1, "name": "x"}"#]);
    copy.sql("SELECT walpost.publish_on('orders', 'd', fields => '{}'); INSERT INTO orders VALUES (2, 'x')");
    assert_eq!(published(&copy), [r#"d - {"id": 2}"#]);
}
