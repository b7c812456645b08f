//! What an operator sees of the relay: metrics, the status snapshot, health and logs.
//!
//! One [`Telemetry`] is shared by the relay, which writes, and the HTTP listener, which reads.
//! Counters are bumped where things happen, through plain handles; those of SENDs follow the
//! engine's, before any receipt of them is counted. Everything else is a fact in
//! [`Status`], put there by [`Telemetry::update`] some times a second; the gauges of `/metrics`
//! are filled from it at each scrape, so the page, the probes and Prometheus never disagree.

mod beat;
pub mod clock;
pub mod consumers;
pub mod lag;
pub mod logs;
mod maker;
pub mod metrics;
pub mod slot_danger;
pub mod status;
pub mod throttle;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use beat::{BEAT_LIMIT, Beat};
pub use lag::Lag;
pub use metrics::Metrics;
pub use status::Status;

use crate::lsn::Lsn;

/// The shared handle: the relay writes, the HTTP listener reads.
#[derive(Debug)]
pub struct Telemetry {
    /// Counters and histograms, and the gauges that a scrape fills.
    pub metrics: Metrics,
    /// The relay's sign of life.
    pub beat: Beat,
    state: Mutex<State>,
}

/// What [`Telemetry::update`] changes.
#[derive(Debug)]
struct State {
    status: Status,
    lag: Lag,
    /// When the confirmed position, or the number of receipts, last moved.
    progress_at: Duration,
    /// What they were then.
    progress: (Option<Lsn>, u64),
}

impl Telemetry {
    /// A fresh handle for the relay of `slot` and `publication`, in phase *starting*.
    #[must_use]
    pub fn new(slot: &str, publication: &str) -> Arc<Self> {
        let now = clock::unix_now();
        let status = Status::new(slot, publication, &clock::rfc3339(now));
        Arc::new(Telemetry {
            metrics: Metrics::new(&status.version),
            beat: Beat::new(),
            state: Mutex::new(State {
                status,
                lag: Lag::new(now),
                progress_at: now,
                progress: (None, 0),
            }),
        })
    }

    /// Writes down what is known now. Called by the relay, some times a second and at every
    /// change of phase or connection; `change` must not block.
    ///
    /// The fields `as_of`, `counters`, `source.lag_bytes`, `source.lag_seconds` and
    /// `source.stalled_seconds` are filled by [`Telemetry::snapshot`]: leave them alone.
    pub fn update(&self, change: impl FnOnce(&mut Status, &mut Lag)) {
        let now = clock::unix_now();
        let receipts = self.metrics.receipts.get();
        let state = &mut *self.lock();
        change(&mut state.status, &mut state.lag);
        if state.status.phase == status::Phase::Standby {
            // Another instance's business; ours begins when the slot is ours.
            state.lag = Lag::new(now);
        }
        let progress = (state.status.source.confirmed_lsn, receipts);
        if progress != state.progress || state.lag.is_caught_up() {
            state.progress = progress;
            state.progress_at = now;
        }
    }

    /// The present status, complete.
    #[must_use]
    pub fn snapshot(&self) -> Status {
        self.snapshot_at(clock::unix_now())
    }

    /// As [`Telemetry::snapshot`], at `now` (since the Unix epoch).
    #[must_use]
    pub fn snapshot_at(&self, now: Duration) -> Status {
        let (mut status, seconds, stalled) = {
            let state = self.lock();
            let behind = !state.lag.is_caught_up();
            let stalled = behind.then(|| now.saturating_sub(state.progress_at).as_secs_f64());
            (state.status.clone(), state.lag.seconds(now), stalled)
        };
        status.as_of = clock::rfc3339(now);
        status.counters = self.metrics.counters();
        let source = &mut status.source;
        source.lag_bytes = match (source.server_lsn, source.confirmed_lsn) {
            (Some(server), Some(confirmed)) => Some(server.bytes_since(confirmed)),
            _ => None,
        };
        let standby = status.phase == status::Phase::Standby;
        source.lag_seconds = (!standby).then_some(seconds);
        source.stalled_seconds = stalled.filter(|_| !standby);
        status
    }

    /// `/metrics`: every metric in Prometheus' text format, gauges as of now.
    #[must_use]
    pub fn scrape(&self) -> String {
        self.metrics.show(&self.snapshot());
        self.metrics.text()
    }

    /// `/livez`: whether the relay turns.
    ///
    /// # Errors
    /// The reason, in one line: its last beat is older than [`BEAT_LIMIT`].
    pub fn liveness(&self) -> Result<(), String> {
        let age = self.beat.age();
        if age <= BEAT_LIMIT {
            return Ok(());
        }
        let (age, limit) = (age.as_secs(), BEAT_LIMIT.as_secs());
        Err(format!("the relay has not turned for {age} s (at most {limit} s)"))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic of another task while it wrote leaves plain data: still worth showing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
