//! How far behind the confirmed position is, in seconds: true when idle, behind and disconnected.
//!
//! Pure; times are wall-clock time since the Unix epoch, because a commit's time is PostgreSQL's
//! wall clock. A clock that differs from PostgreSQL's shifts the figure by that difference; it is
//! never negative.

use std::time::Duration;

/// The lag in seconds as a small state machine. Until told that everything is confirmed, it is
/// behind since it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lag {
    /// Since when something is unconfirmed; `None`: everything is confirmed.
    since: Option<Duration>,
    /// When everything was last known to be confirmed.
    caught_up_at: Duration,
}

impl Lag {
    /// Nothing is known yet: behind since `now`. It is shown so, neither 0 nor absent: a relay that
    /// never reaches PostgreSQL must set off the alert on its lag.
    #[must_use]
    pub fn new(now: Duration) -> Self {
        Lag { since: Some(now), caught_up_at: now }
    }

    /// All that PostgreSQL has is confirmed: a keepalive's WAL end was reached with nothing in
    /// flight. Say it again whenever it is known again: a later loss counts from there.
    pub fn caught_up(&mut self, now: Duration) {
        self.since = None;
        self.caught_up_at = now;
    }

    /// The oldest commit with an unreceipted message was made at `commit_time`.
    pub fn oldest(&mut self, commit_time: Duration) {
        self.since = Some(commit_time);
    }

    /// PostgreSQL has more than is confirmed, but no commit in it is known: it may be as old as
    /// the moment just after everything was last confirmed.
    pub fn behind(&mut self) {
        self.since.get_or_insert(self.caught_up_at);
    }

    /// The stream is lost: what happens there is unknown, so the lag grows, from the oldest
    /// unconfirmed commit or else from the last moment when everything was confirmed.
    pub fn disconnected(&mut self) {
        self.behind();
    }

    /// Whether everything known is confirmed.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.since.is_none()
    }

    /// The lag in seconds; 0 when caught up, and where the oldest commit lies in the future.
    #[must_use]
    pub fn seconds(&self, now: Duration) -> f64 {
        self.since.map_or(0.0, |since| now.saturating_sub(since).as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(1_700_000_000 + seconds)
    }

    fn is(lag: &Lag, now: Duration, seconds: f64) {
        assert!((lag.seconds(now) - seconds).abs() < 1e-9, "{} is not {seconds}", lag.seconds(now));
    }

    #[test]
    fn before_anything_is_known_it_grows_from_the_start() {
        let lag = Lag::new(at(0));
        is(&lag, at(0), 0.0);
        is(&lag, at(30), 30.0);
        assert!(!lag.is_caught_up());
    }

    #[test]
    fn idle_is_zero_for_as_long_as_it_lasts() {
        let mut lag = Lag::new(at(0));
        lag.caught_up(at(5));
        is(&lag, at(5), 0.0);
        is(&lag, at(5000), 0.0);
    }

    #[test]
    fn behind_is_the_age_of_the_oldest_commit() {
        let mut lag = Lag::new(at(100));
        lag.caught_up(at(101));
        lag.oldest(at(102));
        is(&lag, at(110), 8.0);
        lag.oldest(at(109));
        is(&lag, at(110), 1.0);
        // A backlog from before the start is as old as its commits.
        lag.oldest(at(40));
        is(&lag, at(110), 70.0);
        lag.caught_up(at(111));
        is(&lag, at(112), 0.0);
    }

    #[test]
    fn behind_without_a_known_commit_counts_from_the_last_time_all_was_confirmed() {
        let mut lag = Lag::new(at(0));
        lag.caught_up(at(10));
        lag.behind();
        is(&lag, at(25), 15.0);
        lag.oldest(at(20));
        lag.behind();
        is(&lag, at(25), 5.0);
    }

    #[test]
    fn disconnected_while_idle_grows_from_the_last_time_all_was_confirmed() {
        let mut lag = Lag::new(at(0));
        lag.caught_up(at(10));
        lag.caught_up(at(20));
        lag.disconnected();
        is(&lag, at(20), 0.0);
        is(&lag, at(50), 30.0);
        lag.disconnected();
        is(&lag, at(60), 40.0);
        lag.caught_up(at(61));
        is(&lag, at(61), 0.0);
    }

    #[test]
    fn disconnected_while_behind_goes_on_from_the_oldest_commit() {
        let mut lag = Lag::new(at(0));
        lag.caught_up(at(10));
        lag.oldest(at(11));
        lag.disconnected();
        is(&lag, at(50), 39.0);
    }

    #[test]
    fn a_commit_in_the_future_is_no_negative_lag() {
        let mut lag = Lag::new(at(0));
        lag.caught_up(at(1));
        lag.oldest(at(500));
        is(&lag, at(2), 0.0);
        is(&lag, at(501), 1.0);
        // Nor is a clock that was set back.
        lag.caught_up(at(500));
        lag.disconnected();
        is(&lag, at(3), 0.0);
    }

    proptest! {
        #[test]
        fn never_negative_and_never_shrinking_by_itself(
            steps in prop::collection::vec((0u8..4, 0u64..1000), 0..20),
            now in 0u64..1000,
            later in 0u64..1000,
        ) {
            let mut lag = Lag::new(at(0));
            for (step, time) in steps {
                match step {
                    0 => lag.caught_up(at(time)),
                    1 => lag.oldest(at(time)),
                    2 => lag.behind(),
                    _ => lag.disconnected(),
                }
            }
            prop_assert!(lag.seconds(at(now)) >= 0.0);
            prop_assert!(lag.seconds(at(now + later)) >= lag.seconds(at(now)));
        }
    }
}
