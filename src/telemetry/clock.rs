//! Wall-clock time as telemetry writes it: since the Unix epoch, printed in UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::{SignedDuration, Timestamp};

/// Now, since the Unix epoch; zero on a machine whose clock is set before it.
#[must_use]
pub fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// `2026-01-31T12:00:00.123Z`, of a time since the Unix epoch.
#[must_use]
pub fn rfc3339(time: Duration) -> String {
    let timestamp = SignedDuration::try_from(time)
        .ok()
        .and_then(|since_epoch| Timestamp::from_duration(since_epoch).ok());
    // Cut, not rounded: a line never carries a time that has not come yet.
    let timestamp = timestamp.unwrap_or(Timestamp::MAX);
    let millis = Timestamp::from_millisecond(timestamp.as_millisecond()).unwrap_or(timestamp);
    format!("{millis:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_printed_in_utc_with_milliseconds() {
        assert_eq!(rfc3339(Duration::ZERO), "1970-01-01T00:00:00.000Z");
        let time = Duration::from_micros(1_769_860_800_123_999);
        assert_eq!(rfc3339(time), "2026-01-31T12:00:00.123Z");
        assert!(rfc3339(Duration::MAX).starts_with("9999-12-30T"));
    }
}
