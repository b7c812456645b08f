//! The relay's sign of life, read by `/livez`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How old the last beat may be before `/livez` fails.
pub const BEAT_LIMIT: Duration = Duration::from_secs(10);

/// When the relay task last turned. Wait-free on both sides.
#[derive(Debug)]
pub struct Beat {
    epoch: Instant,
    /// Milliseconds from `epoch` to the last beat.
    last: AtomicU64,
}

impl Beat {
    /// Counts as a beat itself.
    #[must_use]
    pub fn new() -> Self {
        Beat { epoch: Instant::now(), last: AtomicU64::new(0) }
    }

    /// The relay turns. Cheap; call it at least once a second.
    pub fn touch(&self) {
        self.last.store(self.millis(), Ordering::Relaxed);
    }

    /// Time since the last beat.
    #[must_use]
    pub fn age(&self) -> Duration {
        Duration::from_millis(self.millis().saturating_sub(self.last.load(Ordering::Relaxed)))
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// As if the last beat were `age` old.
    #[cfg(test)]
    pub(crate) fn aged(age: Duration) -> Self {
        let epoch = Instant::now().checked_sub(age).unwrap();
        Beat { epoch, last: AtomicU64::new(0) }
    }
}

impl Default for Beat {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_touch_makes_an_old_beat_young() {
        let beat = Beat::aged(Duration::from_secs(60));
        assert!(beat.age() >= Duration::from_secs(60));
        beat.touch();
        assert!(beat.age() < Duration::from_secs(30));
    }
}
