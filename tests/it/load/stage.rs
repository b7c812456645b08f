//! A load under which something is killed: the servers, the link between walpost and the broker, and the judgement.

use std::collections::HashSet;
use std::time::Duration;

use walpost_testkit::walpost::Builder;
use walpost_testkit::{Database, Postgres, until};

use super::model::{Journal, Outcome};
use super::reader::Reader;
use super::seed;
use super::tap::Tap;
use super::target::Target;
use super::writers::{Load, Plan};
use crate::rig::{LONG, walpost};

const DESTINATIONS: usize = 6;

/// One test's servers, link and settings.
pub struct Stage<'a> {
    server: &'a Postgres,
    pub database: Database<'a>,
    broker: Target<'a>,
    pub tap: Tap,
    seed: u64,
    pub rng: fastrand::Rng,
}

impl<'a> Stage<'a> {
    pub fn new(test: &str, server: &'a Postgres, broker: impl Into<Target<'a>>) -> Self {
        let seed = seed(test);
        let broker = broker.into();
        broker.declare(DESTINATIONS);
        Stage {
            server,
            database: server.fresh_database(),
            tap: Tap::to(broker.stomp_port()),
            broker,
            seed,
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    pub fn walpost(&self) -> Builder {
        walpost()
            .set("postgres.url", self.database.url())
            .set("replication.slot", self.database.name())
            .set("broker.hosts", self.tap.address())
            .set("broker.vhost", self.broker.vhost())
            .set("broker.reconnect.max", "1s")
    }

    /// Makes schema and slot, so that the load is in the stream from its first row on.
    pub fn init(&self) {
        let made = self.walpost().arguments(["init"]).output(LONG);
        assert!(made.status.success(), "{}", made.stderr);
    }

    pub fn load(&self, rows_per_second: u32) -> Load {
        Load::start(Plan {
            url: self.database.url(),
            seed: self.seed,
            destinations: DESTINATIONS,
            rows_per_second,
        })
    }

    pub fn reader(&self) -> Reader {
        Reader::start(&self.broker, DESTINATIONS)
    }

    /// A moment that nothing leads up to.
    pub fn random_moment(&mut self, longest: Duration) {
        std::thread::sleep(Duration::from_micros(self.rng.u64(..longest.as_micros() as u64)));
    }

    /// Waits until `count` more messages have passed.
    #[track_caller]
    pub fn await_sends(&self, count: usize) {
        let before = self.tap.sent();
        until(LONG, "walpost sends", || self.tap.sent() >= before + count);
    }

    /// Ends the load; when all of it is confirmed, commits a last row for each destination. Then all
    /// has arrived, nothing else has, and both the first sendings and (where the broker keeps it) the
    /// first arrivals of each destination were in commit order. Gives the model and what came more than once.
    #[track_caller]
    pub fn judge(&self, load: Load, reader: Reader) -> (Journal, Vec<u64>) {
        let mut journal = load.finish();
        let sql = |sql: &str| self.server.sql(self.database.name(), sql);
        journal.settle(self.server, self.database.name());
        let lsn = sql("SELECT pg_current_wal_lsn()");
        let confirmed = format!(
            "SELECT confirmed_flush_lsn >= '{lsn}' FROM pg_replication_slots WHERE slot_name = '{}'",
            self.database.name()
        );
        until(LONG, "all is confirmed", || sql(&confirmed) == "t");
        let (statement, last) = journal.last_rows();
        sql(&statement);
        if !self.broker.keeps_order() {
            // The last ones need not be the last to come.
            reader.await_rows(journal.rows(), LONG);
        }
        let judged = journal.judge(&reader.finish(&last, LONG), self.broker.keeps_order());
        let repeats = judged.unwrap_or_else(|wrong| panic!("{wrong}"));
        let mut sends: Vec<_> =
            self.tap.connections().into_iter().flat_map(|one| one.sends).collect();
        sends.sort_by_key(|send| send.at);
        let in_order = journal.judge_sendings(sends.iter().map(|send| send.serial));
        assert_eq!(in_order, Ok(()));
        println!(
            "{} transactions committed, {} rolled back, {} rows, {} repeats",
            journal.count(Outcome::Committed),
            journal.count(Outcome::RolledBack),
            journal.rows(),
            repeats.len()
        );
        (journal, repeats)
    }

    /// How many sendings were not the first of their row, on whatever connection.
    pub fn sent_again(&self) -> usize {
        let mut seen = HashSet::new();
        let sends = self.tap.connections().into_iter().flat_map(|one| one.sends);
        sends.filter(|send| !seen.insert(send.serial)).count()
    }
}
