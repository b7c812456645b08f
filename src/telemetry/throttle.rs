//! A rate limiter for log lines, so that a reconnect storm is told, not poured out.
//!
//! Pure: time comes in as `now`, since an arbitrary epoch.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

/// Most keys remembered; keys are kinds of events, of which there are few.
const MAX_KEYS: usize = 64;

/// Lets the first event of a key through, then at most one a period, with the number held back.
#[derive(Debug)]
pub struct Throttle {
    period: Duration,
    keys: HashMap<String, Key>,
}

/// What is remembered of a key.
#[derive(Debug)]
struct Key {
    last: Duration,
    held_back: u64,
}

/// How many events were held back, ready for the end of a log line: `… and 37 more`, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct More(pub u64);

impl Throttle {
    /// At most one event a `period` and key.
    #[must_use]
    pub fn new(period: Duration) -> Self {
        Throttle { period, keys: HashMap::new() }
    }

    /// Whether the event may be logged now: `Some` with the number of its like that were held
    /// back since the last one that was let through, or `None`: hold it back.
    ///
    /// A key silent for longer than the period starts afresh; with more than 64 keys the one let
    /// through longest ago is forgotten.
    pub fn allow(&mut self, key: &str, now: Duration) -> Option<More> {
        let period = self.period;
        if let Some(known) = self.keys.get_mut(key) {
            // A `now` before the last one is no reason to hold anything back for ever.
            if now.checked_sub(known.last).is_some_and(|silence| silence < period) {
                known.held_back += 1;
                return None;
            }
            known.last = now;
            return Some(More(std::mem::take(&mut known.held_back)));
        }
        if self.keys.len() >= MAX_KEYS {
            let oldest = self.keys.iter().min_by_key(|(_, known)| known.last);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.keys.remove(&oldest);
            }
        }
        self.keys.insert(key.to_owned(), Key { last: now, held_back: 0 });
        Some(More(0))
    }
}

impl Default for Throttle {
    /// One line a key every ten seconds.
    fn default() -> Self {
        Throttle::new(Duration::from_secs(10))
    }
}

impl fmt::Display for More {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 { Ok(()) } else { write!(f, " … and {} more", self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_storm_is_its_first_line_and_one_every_ten_seconds() {
        let mut throttle = Throttle::default();
        let lines: Vec<_> =
            (0..38).filter_map(|n| throttle.allow("connect", ms(n * 100))).collect();
        assert_eq!(lines, [More(0)]);
        assert_eq!(throttle.allow("connect", ms(10_000)), Some(More(37)));
        assert_eq!(throttle.allow("connect", ms(10_001)), None);
        assert_eq!(throttle.allow("other", ms(10_001)), Some(More(0)));
        assert_eq!(More(37).to_string(), " … and 37 more");
        assert_eq!(More(0).to_string(), "");
    }

    #[test]
    fn a_clock_that_went_back_does_not_silence_a_key() {
        let mut throttle = Throttle::default();
        assert!(throttle.allow("key", ms(1_000_000)).is_some());
        assert!(throttle.allow("key", ms(5)).is_some());
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut throttle = Throttle::default();
        for n in 0..1000 {
            assert_eq!(throttle.allow(&n.to_string(), ms(n)), Some(More(0)));
            assert!(throttle.keys.len() <= MAX_KEYS);
        }
        assert_eq!(throttle.allow("999", ms(1000)), None);
    }

    proptest! {
        #[test]
        fn every_event_is_told_or_counted(gaps in prop::collection::vec(0u64..15_000, 1..200)) {
            let mut throttle = Throttle::default();
            let (mut now, mut told) = (0, 0);
            let mut last_told = None;
            for gap in &gaps {
                now += gap;
                if let Some(More(held_back)) = throttle.allow("key", ms(now)) {
                    prop_assert!(last_told.is_none_or(|last| now - last >= 10_000));
                    last_told = Some(now);
                    told += 1 + held_back;
                }
            }
            prop_assert_eq!(told + throttle.keys["key"].held_back, gaps.len() as u64);
        }
    }
}
