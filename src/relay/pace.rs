//! A rest for the pump when much is on the move.
//!
//! PostgreSQL writes each message to the socket by itself, and a broker may write each receipt so.
//! A relay that jumps at every one of them makes five system calls and two wake-ups a message,
//! several times what the message itself costs, and takes them from the two that it waits for.
//! So above [`BUSY`] it rests a little before it looks again, and then finds many. Below, where
//! the time of a single message counts, it never rests.

use std::time::Duration;

/// Messages a second above which the pump rests.
const BUSY: f64 = 4_000.0;
/// The longest rest.
const REST: Duration = Duration::from_millis(1);
/// The same while the window is at least half full: a message waits far longer for the broker then.
const LONG_REST: Duration = Duration::from_millis(4);
/// How long messages are counted before the rate is taken for known.
const SPAN: Duration = Duration::from_millis(10);

/// How fast messages move.
#[derive(Debug, Default)]
pub(super) struct Pace {
    since: Duration,
    sent: u64,
    /// Messages a second in the last span.
    rate: f64,
}

impl Pace {
    /// Nothing is left to do at `now`, with `sent` messages sent since the start, and `in_flight` of
    /// the `window` without a receipt. How long to rest before the sockets are looked at again; at
    /// most for a quarter of the window, so that the broker never waits for us.
    pub(super) fn rest(
        &mut self,
        now: Duration,
        sent: u64,
        in_flight: usize,
        window: usize,
    ) -> Option<Duration> {
        let passed = now.saturating_sub(self.since);
        if passed >= SPAN {
            self.rate = sent.saturating_sub(self.sent) as f64 / passed.as_secs_f64();
            (self.since, self.sent) = (now, sent);
        }
        if self.rate < BUSY {
            return None;
        }
        let quarter = window as f64 / 4.0 / self.rate;
        let longest = if in_flight >= window.div_ceil(2) { LONG_REST } else { REST };
        Some(Duration::from_secs_f64(quarter).min(longest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn it_rests_only_while_much_is_on_the_move() {
        let mut pace = Pace::default();
        assert_eq!(pace.rest(at(100), 10, 0, 1024), None);
        // 20 messages in 10 ms: 2 000 a second.
        assert_eq!(pace.rest(at(110), 30, 0, 1024), None);
        // A burst that has not lasted yet.
        assert_eq!(pace.rest(at(111), 300, 0, 1024), None);
        assert_eq!(pace.rest(at(120), 500, 0, 1024), Some(REST));
        assert_eq!(pace.rest(at(121), 500, 511, 1024), Some(REST));
        assert_eq!(pace.rest(at(122), 500, 512, 1024), Some(LONG_REST));
        // It is over.
        assert_eq!(pace.rest(at(1_000), 510, 0, 1024), None);
    }

    #[test]
    fn a_small_window_is_not_kept_waiting() {
        let mut pace = Pace::default();
        pace.rest(at(100), 0, 0, 4);
        assert_eq!(pace.rest(at(200), 1_000, 4, 4), Some(Duration::from_micros(100)));
    }
}
