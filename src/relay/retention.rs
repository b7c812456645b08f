//! Clean-up: rows that were delivered long ago are deleted, in small batches, off the way of a row.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};

use super::first_start::{FirstStart, GRANT_REMEDY};
use crate::store::name::{literal, one_line};
use crate::store::retention::HoldingBack;
use crate::store::{Store, StoreError};
use crate::telemetry::clock;
use crate::telemetry::throttle::Throttle;

/// Rows of a batch.
const BATCH: u32 = 1_000;
/// Between two batches, as long as there are old rows.
const REST: Duration = Duration::from_millis(500);
/// Between two looks, where there are none: at most and at least.
const LOOK_EACH: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(1));

/// A relay that has certified nothing for so much longer than the rows' age is gone.
const GONE_AFTER: Duration = Duration::from_secs(600);

/// What is deleted, and when.
pub(super) struct Retention {
    /// Delivered rows older than this.
    after: Duration,
    at: Instant,
    throttle: Throttle,
}

impl Retention {
    /// Rows are kept for `after`.
    pub(super) fn new(after: Duration) -> Self {
        let throttle = Throttle::new(Duration::from_secs(3600));
        Retention { after, at: Instant::now(), throttle }
    }

    /// A batch, if it is time.
    pub(super) async fn turn(
        &mut self,
        store: &Store,
        wanted: &FirstStart,
    ) -> Result<(), StoreError> {
        if Instant::now() < self.at {
            return Ok(());
        }
        let slot = wanted.source.slot.as_str();
        let mut more = false;
        for table in wanted.tables.iter() {
            match store.delete_delivered(slot, table, self.after, BATCH).await {
                Ok(deleted) => {
                    if deleted > 0 {
                        debug!(deleted, table = %table.table, "deleted rows that were delivered long ago");
                    }
                    more |= deleted >= u64::from(BATCH);
                }
                Err(error) if store.is_closed() => return Err(error),
                Err(error) => self.refused(&table.table.to_string(), &error),
            }
        }
        if !more {
            let longer = self.after + self.after.min(GONE_AFTER);
            for other in store.holding_back(slot, longer).await? {
                self.held_back(&other);
            }
        }
        self.at = Instant::now()
            + if more { REST } else { (self.after / 4).clamp(LOOK_EACH.1, LOOK_EACH.0) };
        Ok(())
    }
    /// The relay can do without.
    fn refused(&mut self, table: &str, error: &StoreError) {
        let key = format!("{table} {:?}", error.code());
        let Some(more) = self.throttle.allow(&key, clock::unix_now()) else { return };
        let remedy = match error.code() {
            Some("42501") => GRANT_REMEDY,
            Some("55P03") => "somebody has locked it",
            _ => "the relay goes on without (docs/operations.md, 'The outbox grows')",
        };
        warn!("old rows are not deleted, which is tried again: {error}; {remedy}{more}");
    }

    fn held_back(&mut self, other: &HoldingBack) {
        let HoldingBack { slot, since, has_slot, is_foreign } = other;
        let key = format!("slot {slot}");
        let Some(more) = self.throttle.allow(&key, clock::unix_now()) else { return };
        let name = one_line(&literal(slot));
        let drop = if *has_slot {
            format!("SELECT pg_drop_replication_slot({name}); ")
        } else {
            String::new()
        };
        if *is_foreign {
            warn!(
                "rows that were delivered are not deleted before the relay of slot {} has them, too: its row came \
                 from another database. 'walpost init --adopt' with its configuration takes it over; if there \
                 is no such relay: DELETE FROM walpost.relay WHERE slot = {name}{more}",
                one_line(slot)
            );
            return;
        }
        warn!(
            "rows that were delivered are not deleted before the relay of slot {} has them, too: it does not \
             run, and has certified nothing since {since} UTC. Start it; if it is gone for good: \
             {drop}DELETE FROM walpost.relay WHERE slot = {name} (docs/operations.md, 'The outbox grows'){more}",
            one_line(slot)
        );
    }
}
