//! A deterministic simulator for the engine, and a judge.
//!
//! A seed decides everything: the sizes, the shape of the trouble, each step, each virtual
//! millisecond. The parts:
//!
//! - `postgres`, `slot`, `trouble`: a WAL, an outbox, a publication, a slot and a walsender that take any
//!   position, forget the unsaved one in a crash, and after a failover use positions and xids again;
//! - `broker`: lanes that are lost before and after a message is stored, receipts in any order,
//!   alarms, messages that nothing ever answers, refusals;
//! - `driver` and `pump`: the pump between them and the engine;
//! - `relay`, `relay_row` and `certifying`: what the relay does before it streams, and beside: the slot's row,
//!   the slot, the recovery, the certified snapshot;
//! - `marker` and `table`: the SQL side that marks rows once they have a receipt, with locks, deletions and
//!   lost answers;
//! - `kept` and `parker`: the table of what was refused, and the SQL side that keeps it;
//! - `judge`, `identity`, `lanes`, `troubles`, `parked`, `delivered` and `marked`: the rules, kept with plain lists and nothing
//!   of the engine's own ideas.
//!
//! **How it argues.** The promise is that the position confirmed to PostgreSQL is never past a
//! committed row without a receipt, nor, where rows are marked, past one that is not marked. The judge
//! sees both ends: what exists on the server's present timeline, what is marked there and what the
//! broker has answered, so it needs no trust in the engine to check that whenever a confirmed position
//! moves, as far as the slot's stream brings the rows. No row is marked that no receipt was given for.
//! Then all faults end, and everything that exists must be stored, confirmed, certified and marked within
//! bounded time: an engine that is safe because it does nothing fails.
//! These two are the *outside* rules. The others hold the engine to an exact value wherever one
//! follows from the design (the watermark, the window, the next message of a lane, which change is
//! known, when to probe and when to close), so a fault shows in the step that commits it.
//!
//! A judge that never finds anything proves nothing. `mutants` runs the same schedules against
//! engines with deliberate faults, and relays with missteps in their protocol: each must be caught,
//! those that lose events by the outside rules alone; and `Tally` shows that the trouble really comes.
//!
//! By hand: `SEEDS=1000000 cargo test sim::` runs so many schedules, `SEED=123 cargo test sim::`
//! one, printing what happened.

mod broker;
mod certifying;
mod delivered;
mod driver;
mod identity;
mod judge;
mod kept;
mod lanes;
mod lives;
mod marked;
mod marker;
mod message;
mod misstep;
mod mutants;
mod parked;
mod parker;
mod postgres;
mod pump;
mod relay;
mod relay_row;
mod rule;
mod schedule;
mod slot;
mod step;
mod table;
mod tally;
mod tests;
mod trouble;
mod troubles;

use std::time::Duration;

use super::Addressed;
use driver::Driver;
use misstep::Defect;
use rule::Violation;
use tally::Tally;

/// The engine's settings that all schedules share.
const RECEIPT_TIMEOUT: Duration = Duration::from_secs(30);
const PROBE_AFTER: Duration = Duration::from_secs(5);
const FIRST_WAIT: Duration = Duration::from_secs(1);
const PAUSE_AFTER: u32 = 3;
const PAUSE: Duration = Duration::from_secs(20);
const WAIT: Duration = Duration::from_secs(7);
const MAX_ATTEMPTS: u32 = 4;
/// The destinations.
const NAMES: [&str; 3] = ["a", "b", "c"];

/// What the engine carries: which message of the judge's, and which row of the model's.
#[derive(Clone, Copy, Debug)]
struct Payload {
    message: usize,
    serial: usize,
    destination: usize,
}

impl Addressed for Payload {
    fn destination(&self) -> &str {
        NAMES[self.destination]
    }
}

/// Which rules the judge holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rules {
    /// All.
    All,
    /// Only those that a user would see broken.
    Outside,
}

/// Runs one schedule.
fn run(seed: u64, defect: Option<Defect>, rules: Rules) -> Result<Tally, Violation> {
    let mut driver = Driver::new(seed, defect, rules == Rules::All, false);
    driver.run().map(|()| driver.tally)
}

/// Runs one schedule again and tells what happened, the last `lines` of it.
fn story(seed: u64, defect: Option<Defect>, rules: Rules, lines: usize) -> String {
    let mut driver = Driver::new(seed, defect, rules == Rules::All, true);
    let verdict = driver.run();
    let trace = driver.trace.take().unwrap_or_default();
    let first = trace.first().cloned().unwrap_or_default();
    let last = trace[trace.len().saturating_sub(lines)..].join("\n");
    match verdict {
        Ok(()) => format!("{first}\n…\n{last}\nseed {seed}: all rules hold"),
        Err(Violation { rule, what }) => {
            format!(
                "{first}\n…\n{last}\nseed {seed}: {rule:?}: {what}\nagain: SEED={seed} cargo test sim::"
            )
        }
    }
}
