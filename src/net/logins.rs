//! How often a login may be refused until an operator must act.

use std::time::Duration;

/// Refusals in a row, by each host: a password may be on its way.
pub const LOGINS: u32 = 5;
/// A peer that has taken the login before may only be starting, or may have lost its directory.
const GRACE: Duration = Duration::from_secs(60);

/// The refusals in a row of a peer that may have several hosts.
#[derive(Debug)]
pub struct Logins {
    limit: u32,
    refused: u32,
    since: Duration,
    accepted_before: bool,
}

impl Logins {
    /// For as many hosts.
    #[must_use]
    pub fn new(hosts: usize) -> Self {
        let hosts = u32::try_from(hosts).unwrap_or(u32::MAX).max(1);
        Logins {
            limit: LOGINS.saturating_mul(hosts),
            refused: 0,
            since: Duration::ZERO,
            accepted_before: false,
        }
    }

    /// One more. `true`: trying again is no use.
    pub fn refused(&mut self, now: Duration) -> bool {
        if self.refused == 0 {
            self.since = now;
        }
        self.refused = self.refused.saturating_add(1);
        let grace = if self.accepted_before { GRACE } else { Duration::ZERO };
        self.refused >= self.limit && now >= self.since + grace
    }

    /// Something else was wrong.
    pub fn other(&mut self) {
        self.refused = 0;
    }

    /// The login was right.
    pub fn accepted(&mut self) {
        self.refused = 0;
        self.accepted_before = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1000);

    #[test]
    fn a_first_login_is_given_up_after_some_refusals_by_each_host() {
        let mut logins = Logins::new(2);
        assert!((1..10).all(|_| !logins.refused(NOW)));
        logins.other();
        assert!((1..10).all(|_| !logins.refused(NOW)));
        assert!(logins.refused(NOW));
    }

    #[test]
    fn a_login_that_was_right_before_may_be_refused_for_a_while() {
        let mut logins = Logins::new(1);
        logins.accepted();
        assert!((0..100).all(|_| !logins.refused(NOW)));
        assert!(logins.refused(NOW + GRACE));
    }
}
