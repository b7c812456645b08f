//! PostgreSQL's clock as it is on the wire.

use std::time::Duration;

/// Microseconds from the Unix epoch to PostgreSQL's, 2000-01-01 00:00:00 UTC.
const EPOCH: i64 = 946_684_800_000_000;

/// Microseconds since 2000-01-01 00:00:00 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PgTime(pub i64);

impl PgTime {
    /// From a time since the Unix epoch.
    #[must_use]
    pub fn from_unix(time: Duration) -> Self {
        let micros = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        PgTime(micros.saturating_sub(EPOCH))
    }

    /// From microseconds since the Unix epoch.
    #[must_use]
    pub fn from_unix_micros(micros: i64) -> Self {
        PgTime(micros.saturating_sub(EPOCH))
    }

    /// The time since the Unix epoch; zero where it lies before it.
    #[must_use]
    pub fn since_unix(self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_add(EPOCH)).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postgres_counts_from_2000() {
        assert_eq!(PgTime(0).since_unix(), Duration::from_secs(946_684_800));
        assert_eq!(PgTime::from_unix(Duration::from_secs(946_684_801)), PgTime(1_000_000));
        assert_eq!(PgTime::from_unix(Duration::ZERO).since_unix(), Duration::ZERO);
        assert_eq!(PgTime(i64::MIN).since_unix(), Duration::ZERO);
        assert_eq!(PgTime::from_unix(Duration::MAX), PgTime(i64::MAX - EPOCH));
    }
}
