//! The two clocks of the relay: one that never goes back, and the wall's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::pgoutput::PgTime;

/// From 1970-01-01 to 2000-01-01, PostgreSQL's epoch.
const POSTGRES_EPOCH: Duration = Duration::from_secs(946_684_800);

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
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let micros = unix.as_micros() as i64 - POSTGRES_EPOCH.as_micros() as i64;
        self.wall = PgTime(micros);
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
