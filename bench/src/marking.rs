//! What it costs to mark or delete rows when they are published, into a broker that only answers receipts:
//! beside the same statements in SQL alone, a thousand rows each, and beside rows that are kept.

use std::time::Instant;

use walpost_testkit::postgres::Database;
use walpost_testkit::{Postgres, until};

use crate::backlog::{cpu_per_row, drop_slot};
use crate::drain::between;
use crate::frames;
use crate::programs::{LONG, ReceiptBroker, walpost};
use crate::stats::Spread;
use crate::table::{Goal, Line, grouped};

/// Runs of each, in turn.
const RUNS: usize = 3;
/// Least share of the bare statements' rate.
const LEAST: f64 = 0.8;

/// What becomes of rows, in one layout.
struct Kind {
    name: &'static str,
    settings: &'static [(&'static str, &'static str)],
    /// A table of the application's own.
    table: &'static str,
    name_of_table: &'static str,
    /// The bare statement, about the ids of a batch.
    bare: &'static str,
    /// Counts rows that are not marked.
    open: &'static str,
}

const KINDS: [Kind; 2] = [
    Kind {
        name: "delete",
        settings: &[],
        table: "",
        name_of_table: "walpost.outbox",
        bare: "DELETE FROM walpost.outbox WHERE id = ANY (batch.ids)",
        open: "SELECT count(*) FROM walpost.outbox",
    },
    Kind {
        name: "mark",
        settings: &[("outbox.layout", "django")],
        table: "CREATE TABLE published (id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
            version varchar(100) NOT NULL DEFAULT 'v1', destination varchar(255) NOT NULL,
            body jsonb NOT NULL, added timestamptz NOT NULL DEFAULT now(),
            expires_at timestamptz NOT NULL DEFAULT now() + interval '15 days',
            retry integer NOT NULL DEFAULT 0, status integer NOT NULL DEFAULT 1)",
        name_of_table: "published",
        bare: "UPDATE published SET status = 2 WHERE id = ANY (batch.ids)",
        open: "SELECT count(*) FROM published WHERE status <> 2",
    },
];

/// Both.
#[must_use]
pub fn run(server: &Postgres, rows: u64) -> Vec<Line> {
    KINDS.iter().map(|kind| kind.measure(server, rows)).collect()
}

impl Kind {
    fn measure(&self, server: &Postgres, rows: u64) -> Line {
        let (mut rates, mut kept, mut bare) = (Vec::new(), Vec::new(), Vec::new());
        let rate = |seconds: f64| rows as f64 / seconds;
        for _ in 0..RUNS {
            let (marking, cost) = self.drain(server, rows, self.name);
            let (keeping, kept_cost) = self.drain(server, rows, "keep");
            let alone = self.bare(server, rows);
            eprintln!(
                "after_publish {}: {}/s ({cost:.2} µs of processor a message), kept {}/s ({kept_cost:.2} µs), \
                 SQL alone {}/s",
                self.name,
                grouped(rate(marking)),
                grouped(rate(keeping)),
                grouped(rate(alone))
            );
            rates.push(rate(marking));
            kept.push(rate(keeping));
            bare.push(rate(alone));
        }
        let (rates, kept, bare) = (Spread::of(&rates), Spread::of(&kept), Spread::of(&bare));
        Line {
            what: format!(
                "after_publish: {} (of {}/s that are kept)",
                self.name,
                grouped(kept.median)
            ),
            walpost: (rates.median, format!("{}/s", grouped(rates.median))),
            ceiling: Some((bare.median, format!("SQL alone {}/s", grouped(bare.median)))),
            goal: Goal::RatioAtLeast(LEAST),
            spread: between(rates, bare),
        }
    }

    /// A database with so many rows, which a slot of its name stands before.
    fn filled<'a>(&self, server: &'a Postgres, rows: u64) -> Database<'a> {
        let database = server.fresh_database();
        if !self.table.is_empty() {
            database.sql(self.table);
        }
        let done = self.walpost(&database).arguments(["init"]).output(LONG);
        assert!(done.status.success(), "walpost init: {}{}", done.stdout, done.stderr);
        database.sql("UPDATE walpost.relay SET state = 'streaming', exported_snapshot = NULL");
        database.sql(&format!(
            "INSERT INTO {} (destination, body) SELECT '{}', '{}' FROM generate_series(1, {rows})",
            self.name_of_table,
            frames::DESTINATION,
            frames::body()
        ));
        database.sql("CHECKPOINT");
        database
    }

    fn walpost(&self, database: &Database<'_>) -> walpost_testkit::walpost::Builder {
        let settings = self.settings.iter();
        settings.fold(walpost(&database.url(), database.name()), |builder, (name, value)| {
            builder.set(name, value)
        })
    }

    /// Seconds until every row is published, and marked unless it is kept; and processor time a message.
    fn drain(&self, server: &Postgres, rows: u64, after: &str) -> (f64, f64) {
        let database = self.filled(server, rows);
        let mut broker = ReceiptBroker::start();
        let builder = self
            .walpost(&database)
            .set("outbox.after_publish", after)
            .set("broker.hosts", &broker.address);
        let started = Instant::now();
        let mut walpost = builder.start();
        broker.await_sends(&mut walpost, rows);
        if after != "keep" {
            until(LONG, "every row to be marked", || database.sql(self.open) == "0");
        }
        let took = started.elapsed().as_secs_f64();
        let cost = cpu_per_row(&walpost, rows);
        drop(walpost);
        drop_slot(&database, database.name());
        (took, cost)
    }

    /// Seconds for the same statements alone.
    fn bare(&self, server: &Postgres, rows: u64) -> f64 {
        let database = self.filled(server, rows);
        drop_slot(&database, database.name());
        database.sql(&format!(
            "CREATE TABLE batches AS SELECT n, array_agg(id) AS ids FROM
                (SELECT id, (row_number() OVER () - 1) / 1000 AS n FROM {}) AS numbered GROUP BY n",
            self.name_of_table
        ));
        let started = Instant::now();
        database.sql(&format!(
            "DO $$ DECLARE batch record; BEGIN FOR batch IN SELECT ids FROM batches ORDER BY n LOOP
                {}; COMMIT; END LOOP; END $$",
            self.bare
        ));
        started.elapsed().as_secs_f64()
    }
}
