//! `walpost.undelivered`: what a relay and an operator do with it, on a real server.

mod cli;
mod dead_marks;
mod keeping;
mod rights;
mod sending;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use walpost::engine::ChangeId;
use walpost::lsn::Lsn;
use walpost::net::PostgresTls;
use walpost::pgoutput::PgTime;
use walpost::store::marking::Holder;
use walpost::store::undelivered::{Identity, KeptState, NewRow};
use walpost::store::{ConnectSettings, Store};
use walpost_testkit::postgres::Database;
use walpost_testkit::{Postgres, until_some};

use crate::init;
use crate::rig::LONG;

const EPOCH: i64 = 7;

/// A database whose slot somebody holds who does nothing else.
struct Stage {
    database: Database<'static>,
    reader: Reader,
    store: Store,
}

impl Stage {
    async fn new() -> Self {
        Self::on(Postgres::shared().fresh_database()).await
    }

    async fn on(database: Database<'static>) -> Self {
        init::init(&database);
        database.sql(&format!("UPDATE walpost.relay SET state = 'streaming', epoch = {EPOCH}"));
        let reader = Reader::start(database.server(), database.name(), database.name());
        let store = store(&database.url()).await;
        Stage { database, reader, store }
    }

    fn holder(&self) -> Holder<'_> {
        Holder { slot: self.database.name(), epoch: EPOCH, walsender: self.reader.walsender }
    }

    /// Two that have it no longer: one that somebody came after, and one on another server.
    fn former(&self) -> [Holder<'_>; 2] {
        let holder = self.holder();
        [
            Holder { epoch: EPOCH - 1, ..holder },
            Holder { walsender: self.reader.walsender + 1, ..holder },
        ]
    }

    async fn keep(&self, rows: &[NewRow]) -> Lsn {
        self.store.keep(self.holder(), rows, &[]).await.unwrap().unwrap()
    }

    fn sql(&self, sql: &str) -> String {
        self.database.sql(sql)
    }

    /// What is there, a row a line.
    fn rows(&self, columns: &str) -> Vec<String> {
        let all = self.sql(&format!("SELECT {columns} FROM walpost.undelivered ORDER BY id"));
        all.lines().map(str::to_owned).collect()
    }
}

async fn store(url: &str) -> Store {
    let settings = ConnectSettings {
        client: url.parse().unwrap(),
        connect_timeout: LONG,
        tls: PostgresTls::never(),
    };
    Store::connect(&settings).await.unwrap()
}

/// A program that reads a slot and confirms what it reads. Ended on drop.
struct Reader {
    child: Child,
    walsender: u32,
}

impl Reader {
    /// Begins to read, and waits until it has the slot.
    fn start(server: &Postgres, database: &str, slot: &str) -> Self {
        let own = server.bindir().join("pg_recvlogical");
        let program = if own.exists() { own.as_path() } else { Path::new("pg_recvlogical") };
        let child = Command::new(program)
            .args(["--start", "-S", slot, "-d", &server.url(database), "-f", "/dev/null"])
            .args(["-o", "proto_version=1", "-o", "publication_names=walpost"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut reader = Reader { child, walsender: 0 };
        let held = format!(
            "SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{slot}' AND active"
        );
        let pid = || server.sql(database, &held).parse().ok();
        reader.walsender = until_some(LONG, "the slot to be held", pid);
        reader
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A message that came from the slot: the `nth` of its transaction.
fn message(destination: &str, nth: u32) -> NewRow {
    NewRow {
        identity: Some(Identity {
            commit_lsn: Lsn(0x1_0000_2000),
            xid: 4_000_000_000,
            commit_time: PgTime(836_000_000_123_456),
            change: ChangeId { lsn: Lsn(0x1_0000_1000), place: nth },
        }),
        state: KeptState::Retrying,
        message_id: Some(format!("{destination}-{nth}")),
        destination: Some(destination.to_owned()),
        key: None,
        headers: vec![("msg-id".to_owned(), format!("{destination}-{nth}"))],
        body: Some(Bytes::from_static(b"{}")),
        unfit: false,
        error: "not_found".to_owned(),
        attempts: 3,
        next_in: Some(Duration::from_secs(240)),
        table: None,
    }
}

/// The same, read from a table.
fn from_table(destination: &str, nth: u32) -> NewRow {
    NewRow {
        identity: None,
        table: Some((16_400, "walpost.outbox".to_owned())),
        ..message(destination, nth)
    }
}

/// Several messages of a destination, in order.
fn messages(destination: &str, nths: std::ops::Range<u32>) -> Vec<NewRow> {
    nths.map(|nth| message(destination, nth)).collect()
}
