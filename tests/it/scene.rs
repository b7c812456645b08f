//! A database with its slot, seen from outside of walpost: where it stands, and many rows at once.

use walpost_testkit::postgres::Database;
use walpost_testkit::stomp::Frame;
use walpost_testkit::walpost::Builder;
use walpost_testkit::{Postgres, until};

use crate::rig::{LONG, walpost};

/// The table of django-outbox-pattern 0.7.
pub const PUBLISHED: &str = "CREATE TABLE public.published (
    id uuid PRIMARY KEY, version varchar(100) NOT NULL, destination varchar(255) NOT NULL,
    body jsonb NOT NULL, added timestamptz NOT NULL, expires_at timestamptz NOT NULL,
    retry integer NOT NULL, status integer NOT NULL)";

/// A database of the shared PostgreSQL, for tests that bring their own broker.
pub fn database() -> Database<'static> {
    Postgres::shared().fresh_database()
}

/// A walpost between `database` and any brokers. The slot has the database's name.
pub fn relay(database: &Database<'_>, hosts: &str) -> Builder {
    walpost()
        .set("postgres.url", database.url())
        .set("replication.slot", database.name())
        .set("broker.hosts", hosts)
}

/// Publishes messages with the bodies `{"n": from}` to `{"n": to}`, a transaction each.
pub fn publish_each(database: &Database<'_>, destination: &str, from: u64, to: u64) {
    database.sql(&format!(
        "DO $$ BEGIN FOR i IN {from}..{to} LOOP
           PERFORM walpost.publish('{destination}', jsonb_build_object('n', i)); COMMIT;
         END LOOP; END $$"
    ));
}

/// The `n` of each body that [`publish_each`] made.
pub fn numbers(frames: &[Frame]) -> Vec<u64> {
    frames.iter().filter_map(|frame| number(&frame.body)).collect()
}

/// The `n` of one such body.
pub fn number(body: &[u8]) -> Option<u64> {
    serde_json::from_slice::<serde_json::Value>(body).ok()?["n"].as_u64()
}

/// Where the server's WAL ends now.
pub fn position(database: &Database<'_>) -> String {
    database.sql("SELECT pg_current_wal_insert_lsn()")
}

/// Where the slot stands.
pub fn confirmed(database: &Database<'_>) -> String {
    database.sql(&format!(
        "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{}'",
        database.name()
    ))
}

/// Whether the slot has reached `lsn`.
pub fn is_confirmed(database: &Database<'_>, lsn: &str) -> bool {
    database.sql(&format!("SELECT '{}'::pg_lsn >= '{lsn}'", confirmed(database))) == "t"
}

/// Waits until everything committed so far is confirmed.
#[track_caller]
pub fn await_all_confirmed(database: &Database<'_>) {
    let lsn = position(database);
    until(LONG, "all is confirmed", || is_confirmed(database, &lsn));
}
