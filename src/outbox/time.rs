//! PostgreSQL's clock as text.

use std::fmt::Write as _;

use crate::pgoutput::PgTime;

const MICROS: i64 = 1_000_000;
const SECONDS_A_DAY: i64 = 86_400;
/// Days from 0000-03-01 to 2000-01-01 in the Gregorian calendar.
const EPOCH: i64 = 730_425;
/// Days of 400 years.
const DAYS_AN_ERA: i64 = 146_097;

/// A time as Python's `str(datetime)` prints one in UTC: `2026-01-31 12:00:00.123456+00:00`,
/// without the fraction where that is zero.
///
/// It keeps the text up to the second, which thousands of rows share.
#[derive(Debug, Default)]
pub(super) struct TimeText {
    second: Option<i64>,
    /// Length of the part up to the second.
    prefix: usize,
    text: String,
}

impl TimeText {
    /// Makes the text that of `time`.
    pub(super) fn set(&mut self, time: PgTime) {
        let second = time.0.div_euclid(MICROS);
        if self.second == Some(second) {
            self.text.truncate(self.prefix);
        } else {
            self.text.clear();
            push_second(&mut self.text, second);
            self.second = Some(second);
            self.prefix = self.text.len();
        }
        let mut micros = time.0.rem_euclid(MICROS);
        if micros != 0 {
            let mut digits = *b".000000";
            for digit in digits[1..].iter_mut().rev() {
                // A remainder by ten fits.
                *digit = b'0' + (micros % 10) as u8;
                micros /= 10;
            }
            // Digits are UTF-8.
            self.text.push_str(std::str::from_utf8(&digits).unwrap_or_default());
        }
        self.text.push_str("+00:00");
    }

    /// The text of the time last set.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }
}

/// Appends `YYYY-MM-DD HH:MM:SS` for a second since 2000-01-01.
fn push_second(text: &mut String, second: i64) {
    let (year, month, day) = civil(second.div_euclid(SECONDS_A_DAY));
    let rest = second.rem_euclid(SECONDS_A_DAY);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    // Writing to a String cannot fail.
    let _ = write!(text, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}");
}

/// Year, month and day of a day since 2000-01-01.
///
/// Years are counted from March, so that the leap day is the last of its year.
fn civil(day: i64) -> (i64, i64, i64) {
    let day = day + EPOCH;
    let era = day.div_euclid(DAYS_AN_ERA);
    let day = day.rem_euclid(DAYS_AN_ERA);
    let year = (day - day / 1_460 + day / 36_524 - day / (DAYS_AN_ERA - 1)) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // From March, months of 31, 30, 31, 30, 31 days repeat every 153 days.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year;
    if month < 10 { (year, month + 3, day) } else { (year + 1, month - 9, day) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Microseconds from the Unix epoch to PostgreSQL's.
    const UNIX: i64 = 946_684_800 * MICROS;

    fn text(time: i64) -> String {
        let mut text = TimeText::default();
        text.set(PgTime(time));
        text.as_str().to_owned()
    }

    #[test]
    fn as_python_prints_them() {
        for (time, expected) in [
            (0, "2000-01-01 00:00:00+00:00"),
            (-1, "1999-12-31 23:59:59.999999+00:00"),
            (1, "2000-01-01 00:00:00.000001+00:00"),
            (823_176_000_123_456, "2026-01-31 12:00:00.123456+00:00"),
            (823_176_000_000_000, "2026-01-31 12:00:00+00:00"),
            (5_097_600_500_000, "2000-02-29 00:00:00.500000+00:00"),
        ] {
            assert_eq!(text(time), expected);
        }
    }

    proptest! {
        #[test]
        fn the_calendar_is_the_worlds(
            time in -62_000_000_000_000_000i64 - UNIX..253_000_000_000_000_000 - UNIX,
        ) {
            let peer = jiff::Timestamp::from_microsecond(time + UNIX).unwrap();
            let format = if time.rem_euclid(MICROS) == 0 { "%F %T+00:00" } else { "%F %T.%6f+00:00" };
            prop_assert_eq!(text(time), peer.strftime(format).to_string());
        }

        #[test]
        fn what_was_set_before_leaves_no_trace(times in prop::collection::vec(
            prop_oneof![any::<i64>(), -3_000_000i64..3_000_000], 1..20)) {
            let mut kept = TimeText::default();
            for time in times {
                kept.set(PgTime(time));
                prop_assert_eq!(kept.as_str(), text(time));
            }
        }
    }
}
