//! When a standby status update is due, and whether the server still answers.

use std::time::Duration;

use crate::lsn::Lsn;

/// A moved watermark is reported after this time at the latest, so that a killed walpost repeats
/// little; more often would only cost the server work.
const ADVANCE: Duration = Duration::from_millis(100);
/// So many requests for a sign of life without one mean a dead link.
const UNANSWERED: u8 = 2;

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
    pub(super) fn new(interval: Duration, now: Duration) -> Self {
        Feedback {
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
            self.unanswered = 0;
        } else if periodic {
            if self.unanswered >= UNANSWERED {
                return Err(now.saturating_sub(self.last_heard));
            }
            self.unanswered += 1;
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
        let mut feedback = Feedback::new(INTERVAL, at(0.0));
        assert_eq!(feedback.update(Lsn(5), true, at(0.05)), Ok(None));
        let update = feedback.update(Lsn(5), true, at(0.1)).unwrap().unwrap();
        assert_eq!(update, Update { watermark: Lsn(5), reply_requested: false });
        assert_eq!(feedback.update(Lsn(5), true, at(5.0)), Ok(None));
        assert!(feedback.update(Lsn(6), true, at(5.0)).unwrap().is_some());
    }

    #[test]
    fn a_request_is_answered_at_once_with_what_is_done() {
        let mut feedback = Feedback::new(INTERVAL, at(0.0));
        feedback.asked();
        let update = feedback.update(Lsn::INVALID, true, at(0.0)).unwrap().unwrap();
        assert_eq!(update, Update { watermark: Lsn::INVALID, reply_requested: false });
        assert_eq!(feedback.update(Lsn::INVALID, true, at(0.0)), Ok(None));
    }

    #[test]
    fn two_unanswered_requests_are_a_dead_link() {
        let mut feedback = Feedback::new(INTERVAL, at(0.0));
        for seconds in [10.0, 20.0] {
            assert!(feedback.update(Lsn(1), true, at(seconds)).unwrap().unwrap().reply_requested);
        }
        assert_eq!(feedback.update(Lsn(1), true, at(30.0)), Err(at(30.0)));
        feedback.heard(at(30.0));
        assert!(feedback.update(Lsn(1), true, at(30.0)).is_ok());
    }

    #[test]
    fn while_nothing_is_read_silence_means_nothing() {
        let mut feedback = Feedback::new(INTERVAL, at(0.0));
        for seconds in 1..20 {
            let update = feedback.update(Lsn(1), false, at(f64::from(seconds) * 10.0));
            assert!(!update.unwrap().unwrap().reply_requested);
        }
    }
}
