//! When a standby status update is due, and whether the server still answers.

use std::time::Duration;

use crate::lsn::Lsn;

/// A moved watermark is reported after this time at the latest, so that a killed walpost repeats
/// little; more often would only cost the server work.
const ADVANCE: Duration = Duration::from_millis(100);
/// So many requests for a sign of life without one may mean a dead link …
const UNANSWERED: u8 = 2;
/// … once the server has been silent for so many intervals, and for so long. A server that works its
/// way through a large transaction of other tables sends nothing and looks for requests only when
/// half of [`sender_timeout`] has passed: this is more.
const SILENT_INTERVALS: u32 = 4;
const LEAST_SILENCE: Duration = Duration::from_secs(10);

/// The server's patience with us.
pub(super) fn sender_timeout(interval: Duration) -> Duration {
    Duration::from_secs(15).max(interval * 6)
}

/// The clock of the standby status updates; pure.
#[derive(Debug)]
pub(super) struct Feedback {
    interval: Duration,
    reported: Lsn,
    last_update: Duration,
    /// The server asked for an update.
    asked: bool,
    /// Updates with a request for a reply since anything was heard.
    unanswered: u8,
    last_heard: Duration,
    /// How long the server may be silent.
    allowed: Duration,
}

/// An update to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Update {
    /// What is done.
    pub(super) watermark: Lsn,
    /// Whether the server is to answer at once.
    pub(super) reply_requested: bool,
}

impl Feedback {
    /// `patience`: how many times longer than usual the server may be silent.
    pub(super) fn new(interval: Duration, patience: u32, now: Duration) -> Self {
        Feedback {
            allowed: LEAST_SILENCE.max(interval * SILENT_INTERVALS) * patience,
            interval,
            reported: Lsn::INVALID,
            last_update: now,
            asked: false,
            unanswered: 0,
            last_heard: now,
        }
    }

    /// The server asks for an update.
    pub(super) fn asked(&mut self) {
        self.asked = true;
    }

    /// Bytes came from the server.
    pub(super) fn heard(&mut self, now: Duration) {
        self.unanswered = 0;
        self.last_heard = now;
    }

    /// The last position that was reported.
    pub(super) fn reported(&self) -> Lsn {
        self.reported
    }

    /// When [`update`](Self::update) wants to be called at the latest.
    pub(super) fn deadline(&self, watermark: Lsn) -> Duration {
        let wait = match (self.asked, watermark != self.reported) {
            (true, _) => Duration::ZERO,
            (false, true) => ADVANCE.min(self.interval),
            (false, false) => self.interval,
        };
        self.last_update + wait
    }

    /// The update that is due now. While the caller does not read (`reading` is false, since the
    /// window is full) no answer can be heard, so none is asked for and silence means nothing.
    ///
    /// # Errors
    /// How long the server has been silent, when the link is dead.
    pub(super) fn update(
        &mut self,
        watermark: Lsn,
        reading: bool,
        now: Duration,
    ) -> Result<Option<Update>, Duration> {
        if self.deadline(watermark) > now {
            return Ok(None);
        }
        let periodic = !self.asked && now >= self.last_update + self.interval;
        let mut reply_requested = false;
        if !reading {
            self.heard(now);
        } else if periodic {
            let silent = now.saturating_sub(self.last_heard);
            if self.unanswered >= UNANSWERED && silent >= self.allowed {
                return Err(silent);
            }
            self.unanswered = self.unanswered.saturating_add(1);
            reply_requested = true;
        }
        self.asked = false;
        self.last_update = now;
        self.reported = watermark;
        Ok(Some(Update { watermark, reply_requested }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn an_advance_is_reported_within_a_tenth_of_a_second() {
        let mut feedback = Feedback::new(INTERVAL, 1, at(0.0));
        assert_eq!(feedback.update(Lsn(5), true, at(0.05)), Ok(None));
        let update = feedback.update(Lsn(5), true, at(0.1)).unwrap().unwrap();
        assert_eq!(update, Update { watermark: Lsn(5), reply_requested: false });
        assert_eq!(feedback.update(Lsn(5), true, at(5.0)), Ok(None));
        assert!(feedback.update(Lsn(6), true, at(5.0)).unwrap().is_some());
    }

    #[test]
    fn a_request_is_answered_at_once_with_what_is_done() {
        let mut feedback = Feedback::new(INTERVAL, 1, at(0.0));
        feedback.asked();
        let update = feedback.update(Lsn::INVALID, true, at(0.0)).unwrap().unwrap();
        assert_eq!(update, Update { watermark: Lsn::INVALID, reply_requested: false });
        assert_eq!(feedback.update(Lsn::INVALID, true, at(0.0)), Ok(None));
    }

    #[test]
    fn a_long_silence_in_spite_of_requests_is_a_dead_link() {
        let mut feedback = Feedback::new(INTERVAL, 1, at(0.0));
        for seconds in [10.0, 20.0, 30.0] {
            assert!(feedback.update(Lsn(1), true, at(seconds)).unwrap().unwrap().reply_requested);
        }
        assert_eq!(feedback.update(Lsn(1), true, at(40.0)), Err(at(40.0)));
        feedback.heard(at(40.0));
        assert!(feedback.update(Lsn(1), true, at(40.0)).is_ok());
    }

    #[test]
    fn a_server_that_is_busy_for_long_is_not_taken_for_dead() {
        // It answers within half of its timeout, however short the interval.
        for interval in [0.1, 1.0, 10.0, 60.0].map(at) {
            let mut feedback = Feedback::new(interval, 1, at(0.0));
            let mut now = interval;
            while now <= sender_timeout(interval) / 2 + Duration::from_secs(1) {
                assert!(feedback.update(Lsn(1), true, now).is_ok(), "{interval:?}: {now:?}");
                now += interval;
            }
        }
    }

    #[test]
    fn patience_is_a_multiple() {
        let mut feedback = Feedback::new(INTERVAL, 8, at(0.0));
        for seconds in 1..32 {
            assert!(feedback.update(Lsn(1), true, at(f64::from(seconds) * 10.0)).is_ok());
        }
        assert_eq!(feedback.update(Lsn(1), true, at(320.0)), Err(at(320.0)));
    }

    #[test]
    fn silence_counts_from_when_reading_began_again() {
        let mut feedback = Feedback::new(INTERVAL, 1, at(0.0));
        assert!(feedback.update(Lsn(1), false, at(100.0)).is_ok());
        for seconds in [110.0, 120.0, 130.0] {
            assert!(feedback.update(Lsn(1), true, at(seconds)).is_ok(), "{seconds}");
        }
        assert_eq!(feedback.update(Lsn(1), true, at(140.0)), Err(at(40.0)));
    }

    #[test]
    fn while_nothing_is_read_silence_means_nothing() {
        let mut feedback = Feedback::new(INTERVAL, 1, at(0.0));
        for seconds in 1..20 {
            let update = feedback.update(Lsn(1), false, at(f64::from(seconds) * 10.0));
            assert!(!update.unwrap().unwrap().reply_requested);
        }
    }
}
