//! Doing something so many times a second.

use std::time::{Duration, Instant};

use walpost_testkit::postgres::Database;

use crate::frames;

/// Calls `each` with its number, `count` times, `rate` a second; gives when each call began. One that is late does not make
/// the next one later.
pub fn paced(count: usize, rate: u32, mut each: impl FnMut(usize)) -> Vec<Instant> {
    let interval = Duration::from_secs(1) / rate;
    let first = Instant::now();
    (0..count)
        .map(|number| {
            let due = first + interval * u32::try_from(number).expect("few enough");
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let began = Instant::now();
            each(number);
            began
        })
        .collect()
}

/// Commits `count` single-row transactions; gives when each statement was sent.
#[must_use]
pub fn commit_rows(database: &Database<'_>, count: usize, rate: u32) -> Vec<Instant> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let client = runtime.block_on(database.client());
    let insert = format!(
        "INSERT INTO walpost.outbox (destination, body) VALUES ('{}', '{}')",
        frames::DESTINATION,
        frames::body()
    );
    let insert = runtime.block_on(client.prepare(&insert)).expect("walpost is installed");
    paced(count, rate, |_| {
        runtime.block_on(client.execute(&insert, &[])).expect("the row is inserted");
    })
}
