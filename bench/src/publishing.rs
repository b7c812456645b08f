//! What it costs a writer that his rows are published: `walpost.publish_on`, beside an outbox row written by hand, and beside
//! a trigger for each statement, which would be cheaper for many rows and is not as safe (`sql/`).

use std::time::Instant;

use walpost_testkit::Postgres;
use walpost_testkit::postgres::Database;

use crate::programs::{LONG, walpost};
use crate::stats::Spread;
use crate::table::{Goal, Line};

/// Runs of each, in turn; one more beforehand does not count.
const RUNS: usize = 5;
/// Rows that are inserted in a transaction each.
const SINGLE: u64 = 10_000;

const TABLE: &str =
    "CREATE TABLE orders (id bigint PRIMARY KEY, customer bigint NOT NULL, state text NOT NULL,
    total numeric(12, 2) NOT NULL, placed_at timestamptz NOT NULL, note text)";
/// A row of some 150 bytes, out of its number.
const ROW: &str = "n, n % 1000, 'placed', n / 100.0, now(), repeat('x', 100)";
/// The body that `publish_on` makes of it.
const BODY: &str =
    "jsonb_build_object('id', id, 'customer', customer, 'state', state, 'total', total::text,
    'placed_at', walpost.body_timestamptz(placed_at), 'note', note)";

/// Who publishes.
#[derive(Clone, Copy, PartialEq)]
enum Publisher {
    Nobody,
    PublishOn,
    ByHand,
    EachStatement,
}

const PUBLISHERS: [Publisher; 4] =
    [Publisher::Nobody, Publisher::PublishOn, Publisher::ByHand, Publisher::EachStatement];

/// How rows are written.
struct Way {
    name: &'static str,
    rows: u64,
    /// The rows, in SQL.
    write: String,
    /// Their messages, in the same transaction, by hand.
    by_hand: String,
}

/// The ways, in which so many rows are written at once.
fn ways(rows: u64) -> [Way; 3] {
    let publish = format!(
        "INSERT INTO walpost.outbox (destination, body) SELECT '/topic/orders', {BODY} FROM orders"
    );
    let at_once = |name, write: String| Way { name, rows, write, by_hand: publish.clone() };
    [
        Way {
            name: "an INSERT a transaction",
            rows: SINGLE,
            write: format!(
                "DO $$ BEGIN FOR n IN 1..{SINGLE} LOOP INSERT INTO orders VALUES ({ROW}); /* by hand */ COMMIT; END LOOP; END $$"
            ),
            by_hand: format!("{publish} WHERE id = n"),
        },
        at_once(
            "INSERT ... SELECT",
            format!("INSERT INTO orders SELECT {ROW} FROM generate_series(1, {rows}) AS n"),
        ),
        at_once("COPY", "COPY orders FROM PROGRAM 'cat rows.tsv'".to_owned()),
    ]
}

/// Every way.
#[must_use]
pub fn run(server: &Postgres, rows: u64) -> Vec<Line> {
    ways(rows).iter().flat_map(|way| way.measure(server)).collect()
}

impl Way {
    fn measure(&self, server: &Postgres) -> Vec<Line> {
        let mut costs = [const { Vec::new() }; PUBLISHERS.len()];
        for run in 0..=RUNS {
            for (costs, publisher) in costs.iter_mut().zip(PUBLISHERS) {
                let cost = self.seconds(server, publisher) * 1e6 / self.rows as f64;
                if run > 0 {
                    costs.push(cost);
                }
            }
        }
        let [nobody, publish_on, by_hand, each_statement] = costs.map(|costs| Spread::of(&costs));
        let more = |spread: Spread| spread.median - nobody.median;
        let line = |other: Spread, name: &str| Line {
            what: format!("publishing: {}, overhead a row", self.name),
            walpost: (
                more(publish_on),
                format!("{:.1} µs (row {:.1} µs)", more(publish_on), nobody.median),
            ),
            ceiling: Some((more(other), format!("{name} {:.1} µs", more(other)))),
            goal: Goal::None,
            spread: format!(
                "{:.1} … {:.1} beside {:.1} … {:.1}",
                publish_on.min, publish_on.max, other.min, other.max
            ),
        };
        vec![line(by_hand, "by hand"), line(each_statement, "a trigger a statement")]
    }

    /// Seconds until the rows are committed.
    fn seconds(&self, server: &Postgres, publisher: Publisher) -> f64 {
        let database = self.prepared(server, publisher);
        let sql = match publisher {
            Publisher::ByHand if self.write.contains("/* by hand */") => {
                self.write.replace("/* by hand */", &format!("{};", self.by_hand))
            }
            Publisher::ByHand => format!("BEGIN; {}; {}; COMMIT", self.write, self.by_hand),
            _ => self.write.clone(),
        };
        let started = Instant::now();
        database.sql(&sql);
        let took = started.elapsed().as_secs_f64();
        let written = database.sql("SELECT count(*) FROM walpost.outbox").parse().unwrap_or(0);
        let expected = if publisher == Publisher::Nobody { 0 } else { self.rows };
        assert_eq!(written, expected, "messages of {}", self.name);
        took
    }

    fn prepared<'a>(&self, server: &'a Postgres, publisher: Publisher) -> Database<'a> {
        let database = server.fresh_database();
        let done = walpost(&database.url(), database.name()).arguments(["init"]).output(LONG);
        assert!(done.status.success(), "walpost init: {}{}", done.stdout, done.stderr);
        crate::backlog::drop_slot(&database, database.name());
        database.sql(TABLE);
        if self.write.contains("rows.tsv") {
            let rows = self.rows;
            database.sql(&format!(
                "COPY (SELECT {ROW} FROM generate_series(1, {rows}) AS n) TO PROGRAM 'cat > rows.tsv'"
            ));
        }
        match publisher {
            Publisher::Nobody | Publisher::ByHand => {}
            Publisher::PublishOn => {
                database.sql("SELECT walpost.publish_on('orders', '/topic/orders')");
            }
            Publisher::EachStatement => {
                database.sql(&format!(
                    "CREATE FUNCTION publish() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                         INSERT INTO walpost.outbox (destination, body) SELECT '/topic/orders', {BODY} FROM written;
                         RETURN NULL; END $$;
                     CREATE TRIGGER publish AFTER INSERT ON orders REFERENCING NEW TABLE AS written
                         FOR EACH STATEMENT EXECUTE FUNCTION publish()"
                ));
            }
        }
        database.sql("CHECKPOINT");
        database
    }
}
