//! The two clocks of the relay: one that never goes back, and the wall's.

use std::time::Duration;

use tokio::time::Instant;

use crate::pgoutput::PgTime;
use crate::telemetry::clock;

/// A wait as a person reads it: `1s 20ms`.
pub(super) fn rounded(wait: Duration) -> impl std::fmt::Display {
    let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    humantime::format_duration(Duration::from_millis(millis))
}

/// Read once a turn of the pump, not once a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    epoch: Instant,
    /// Since the relay's start; never goes back.
    pub(super) now: Duration,
    /// The wall's time.
    pub(super) wall: PgTime,
}

impl Clock {
    pub(super) fn new(epoch: Instant) -> Self {
        let mut clock = Clock { epoch, now: Duration::ZERO, wall: PgTime(0) };
        clock.read();
        clock
    }

    pub(super) fn read(&mut self) {
        self.now = self.epoch.elapsed();
        self.wall = PgTime::from_unix(clock::unix_now());
    }

    /// When a time of [`Clock::now`]'s kind is, for a timer.
    pub(super) fn instant(&self, at: Duration) -> Instant {
        self.epoch + at
    }

    /// How long ago `time` was by the wall; zero for the future.
    pub(super) fn since(&self, time: PgTime) -> Duration {
        Duration::from_micros(u64::try_from(self.wall.0.saturating_sub(time.0)).unwrap_or(0))
    }
}
