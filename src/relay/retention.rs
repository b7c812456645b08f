//! Clean-up: rows that were delivered long ago are deleted, in small batches, off the way of a row.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};

use super::first_start::{FirstStart, GRANT_REMEDY};
use crate::store::{Store, StoreError};
use crate::telemetry::clock;
use crate::telemetry::throttle::Throttle;

/// Rows of a batch.
const BATCH: u32 = 1_000;
/// Between two batches, as long as there are old rows.
const REST: Duration = Duration::from_millis(500);
/// Between two looks, where there are none: at most and at least.
const LOOK_EACH: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(1));

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
        let mut more = false;
        for table in wanted.tables.iter() {
            match store.delete_delivered(table, self.after, BATCH).await {
                Ok(deleted) => {
                    if deleted > 0 {
                        debug!(deleted, table = %table.table, "deleted rows that were delivered long ago");
                    }
                    more |= deleted >= u64::from(BATCH);
                }
                Err(error) if store.is_closed() => return Err(error),
                // The relay can do without.
                Err(error) => {
                    let remedy = match error.code() {
                        Some("42501") => GRANT_REMEDY,
                        _ => "the relay goes on without (docs/operations.md, 'The outbox grows')",
                    };
                    if let Some(more) = self.throttle.allow("retention", clock::unix_now()) {
                        warn!("old rows are not deleted: {error}; {remedy}{more}");
                    }
                }
            }
        }
        self.at = Instant::now()
            + if more { REST } else { (self.after / 4).clamp(LOOK_EACH.1, LOOK_EACH.0) };
        Ok(())
    }
}
