//! A database whose slot has a backlog, and as many copies of that slot as there are runs.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use walpost_testkit::postgres::Database;
use walpost_testkit::sandbox::Folder;
use walpost_testkit::{Postgres, Walpost, until};

use crate::frames;
use crate::programs::{LONG, walpost};

/// How rows are grouped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A transaction for each row, of 64 ordering keys in turn.
    Single,
    /// One transaction for all.
    Huge,
}

impl Shape {
    /// For the table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Shape::Single => "single-row transactions",
            Shape::Huge => "one transaction",
        }
    }
}

/// A database that walpost is installed in, with committed rows that nobody has read.
pub struct Backlog<'a> {
    database: Database<'a>,
    rows: u64,
    /// Behind the last row.
    end: String,
    copies: usize,
}

/// Starts a server that loses nothing to the disk's speed: it does not sync.
#[must_use]
pub fn server() -> Postgres {
    Postgres::builder()
        .fast()
        .setting("max_wal_size", "4GB")
        .setting("max_connections", "50")
        .start()
}

/// Installs walpost in a new database: schema, publication and a slot of the database's name.
#[must_use]
pub fn installed(server: &Postgres) -> Database<'_> {
    let database = server.fresh_database();
    let done = walpost(&database.url(), database.name()).arguments(["init"]).output(LONG);
    assert!(done.status.success(), "walpost init: {}{}", done.stdout, done.stderr);
    database
}

impl<'a> Backlog<'a> {
    /// Commits `rows` rows.
    #[must_use]
    pub fn new(server: &'a Postgres, shape: Shape, rows: u64) -> Self {
        let database = installed(server);
        let insert = format!(
            "INSERT INTO walpost.outbox (destination, key, body) SELECT '{}', i % 64, '{}'",
            frames::DESTINATION,
            frames::body()
        );
        database.sql(&match shape {
            Shape::Single => {
                format!("DO $$ BEGIN FOR i IN 1..{rows} LOOP {insert}; COMMIT; END LOOP; END $$")
            }
            Shape::Huge => format!("{insert} FROM generate_series(1, {rows}) i"),
        });
        database.sql("CHECKPOINT");
        let end = database.sql("SELECT pg_current_wal_lsn()");
        // Something past the end: a reader told to stop there meets it at once.
        database.sql("SELECT pg_logical_emit_message(true, 'bench', 'end')");
        Backlog { database, rows, end, copies: 0 }
    }

    /// How many rows there are.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// A slot that stands before the first row.
    pub fn copy_slot(&mut self) -> String {
        self.copies += 1;
        let (slot, copy) =
            (self.database.name(), format!("{}_{}", self.database.name(), self.copies));
        self.database.sql(&format!("SELECT pg_copy_logical_replication_slot('{slot}', '{copy}')"));
        copy
    }

    /// Removes a copy that nobody reads any more.
    pub fn drop_slot(&self, slot: &str) {
        drop_slot(&self.database, slot);
    }

    /// `walpost run` on a copy of the slot.
    #[must_use]
    pub fn walpost(&self, slot: &str) -> walpost_testkit::walpost::Builder {
        // A copied slot has no row in walpost.relay: what is in the table is not to be published out of it.
        walpost(&self.database.url(), slot).set("outbox.backfill", false)
    }

    /// How long `pg_recvlogical` takes for the backlog from its start to its end, and until it streams.
    pub fn pg_recvlogical(&mut self) -> (Duration, Duration) {
        let slot = self.copy_slot();
        let times = recv(&self.database, &slot, &self.end);
        self.drop_slot(&slot);
        times
    }
}

/// Removes a slot as soon as its walsender has noticed that the reader is gone.
pub fn drop_slot(database: &Database<'_>, slot: &str) {
    let of_slot = format!("FROM pg_replication_slots WHERE slot_name = '{slot}'");
    until(LONG, "the slot is free", || {
        database
            .sql(&format!("SELECT pg_drop_replication_slot(slot_name) {of_slot} AND NOT active"));
        database.sql(&format!("SELECT count(*) {of_slot}")) == "0"
    });
}

/// With the options that walpost asks for, into nothing.
fn recv(database: &Database<'_>, slot: &str, end: &str) -> (Duration, Duration) {
    let folder = Folder::new("pg_recvlogical", None);
    let mut command = folder.command(database.server().bindir().join("pg_recvlogical"));
    command
        .args(["--start", "--file=/dev/null", "--no-loop", "--verbose", "--slot", slot])
        .args(["--dbname", &database.url(), "--endpos", end])
        .args([
            "--option=proto_version=1",
            "--option=publication_names=walpost",
            "--option=messages=true",
        ])
        .stderr(Stdio::piped());
    let started = Instant::now();
    let mut child = command.spawn().expect("pg_recvlogical can be started");
    let mut said = String::new();
    let mut streaming = None;
    for line in BufReader::new(child.stderr.take().expect("piped above")).lines() {
        let line = line.unwrap_or_default();
        if line.contains("streaming initiated") {
            streaming = Some(started.elapsed());
        }
        said += &line;
        said.push('\n');
    }
    let status = child.wait().expect("it was started");
    let took = started.elapsed();
    assert!(status.success(), "pg_recvlogical: {said}");
    (took, streaming.unwrap_or_else(|| panic!("pg_recvlogical did not stream: {said}")))
}

/// Microseconds of processor time, user and system, for each of `rows` messages.
#[must_use]
pub fn cpu_per_row(walpost: &Walpost, rows: u64) -> f64 {
    walpost.cpu_time().as_secs_f64() * 1e6 / rows as f64
}
