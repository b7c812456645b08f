//! How long a slot lasts at the present rate of WAL, and when that is too short.
//!
//! Pure; times are of any clock that never goes back. What it works on is read from the server, once
//! a second at most.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use crate::lsn::Lsn;

/// The rate is the greater of the one over this time …
const LONG: Duration = Duration::from_secs(300);
/// … and the one over this: a burst counts at once, and for long enough to be seen.
const SHORT: Duration = Duration::from_secs(30);
/// Ends of WAL kept are so far apart at least.
const APART: Duration = Duration::from_secs(5);
/// No rate is told of less than this.
const LEAST: Duration = Duration::from_millis(500);
/// Less time left than this is worth a warning …
pub const LOW: Duration = Duration::from_secs(3600);
/// … and than this another one.
pub const SHORTLY: Duration = Duration::from_secs(600);

/// The rate at which the server writes WAL.
#[derive(Clone, Debug, Default)]
pub struct WalRate {
    /// Ends of WAL and when they were read, the oldest first; never longer than `LONG / APART + 2`.
    ends: VecDeque<(Duration, Lsn)>,
    newest: Option<(Duration, Lsn)>,
}

impl WalRate {
    /// The WAL ended at `end` when it was read at `now`. An end before the last one is of another
    /// server or timeline: what was known is forgotten.
    pub fn seen(&mut self, now: Duration, end: Lsn) {
        if self.newest.is_some_and(|(at, last)| now < at || end < last) {
            self.ends.clear();
        }
        self.newest = Some((now, end));
        if self.ends.back().is_none_or(|(at, _)| now >= *at + APART) {
            self.ends.push_back((now, end));
        }
        // One that is older than the time measured stays: the rate is over at least that time.
        while self.ends.get(1).is_some_and(|(at, _)| *at + LONG <= now) {
            self.ends.pop_front();
        }
    }

    /// Nothing is known any more: the server could not be asked.
    pub fn forget(&mut self) {
        *self = WalRate::default();
    }

    /// Bytes a second; none: not known yet.
    #[must_use]
    pub fn bytes_a_second(&self) -> Option<f64> {
        let (now, end) = self.newest?;
        let over = |span: Duration| {
            let since = self.ends.iter().rev().find(|(at, _)| *at + span <= now);
            let (at, start) = since.or(self.ends.front())?;
            let passed = now.saturating_sub(*at);
            (passed >= LEAST).then(|| end.bytes_since(*start) as f64 / passed.as_secs_f64())
        };
        Some(over(LONG)?.max(over(SHORT)?))
    }

    /// For how many seconds `safe_bytes` last at this rate, should nothing more be confirmed; none:
    /// not known, or nothing is written.
    #[must_use]
    pub fn seconds_left(&self, safe_bytes: i64) -> Option<f64> {
        if safe_bytes <= 0 {
            return Some(0.0);
        }
        self.bytes_a_second().filter(|rate| *rate > 0.0).map(|rate| safe_bytes as f64 / rate)
    }
}

/// What the server says of the slot's WAL.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlotWal<'a> {
    /// `wal_status`.
    pub status: Option<&'a str>,
    /// Bytes that are kept for it.
    pub retained: Option<u64>,
    /// `safe_wal_size`; none: no limit is set.
    pub safe: Option<i64>,
    /// See [`WalRate::seconds_left`].
    pub seconds_left: Option<f64>,
}

/// How bad it is; a later one is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Danger {
    /// More WAL is kept than the server would keep by itself (`max_wal_size`).
    Extended,
    /// Less than [`LOW`] is left.
    Low,
    /// Less than [`SHORTLY`] is left.
    Shortly,
    /// The next checkpoint may remove WAL that the slot needs.
    Unreserved,
}

impl SlotWal<'_> {
    /// Whether the slot is in danger. How much time is left says so only once half of what may be kept
    /// is kept: a relay that keeps up under a heavy load has little left should it stop, and stops not.
    #[must_use]
    pub fn danger(&self) -> Option<Danger> {
        if self.status == Some("unreserved") {
            return Some(Danger::Unreserved);
        }
        let half_used = self.retained.zip(self.safe).is_some_and(|(retained, safe)| {
            u64::try_from(safe).map_or(true, |safe| retained >= safe)
        });
        let within =
            |limit: Duration| self.seconds_left.is_some_and(|left| left < limit.as_secs_f64());
        match () {
            () if half_used && within(SHORTLY) => Some(Danger::Shortly),
            () if half_used && within(LOW) => Some(Danger::Low),
            () if self.status == Some("extended") => Some(Danger::Extended),
            () => None,
        }
    }

    /// A limit that gives as much time again as there was, as `max_slot_wal_keep_size` takes it; none:
    /// there is no limit.
    #[must_use]
    pub fn doubled_limit(&self) -> Option<String> {
        const MIB: u64 = 1 << 20;
        let safe = u64::try_from(self.safe?).unwrap_or(0);
        let doubled = self.retained.unwrap_or(0).saturating_add(safe).saturating_mul(2);
        let mib = doubled.div_ceil(MIB).max(1);
        Some(if mib < 10_240 { format!("{mib}MB") } else { format!("{}GB", mib.div_ceil(1024)) })
    }
}

/// A number of bytes as a person reads it: `1.5 GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut size = self.0 as f64;
        for unit in ["B", "KiB", "MiB", "GiB"] {
            if size < 1024.0 {
                let decimals = usize::from(unit != "B");
                return write!(f, "{size:.decimals$} {unit}");
            }
            size /= 1024.0;
        }
        write!(f, "{size:.1} TiB")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn steady(rate: u64, seconds: u64) -> WalRate {
        let mut wal = WalRate::default();
        (0..=seconds).for_each(|n| wal.seen(at(n as f64), Lsn(1000 + n * rate)));
        wal
    }

    #[test]
    fn a_steady_rate_is_told_after_two_looks() {
        for seconds in [1, 4, 5, 29, 30, 31, 300, 301, 1000] {
            let wal = steady(500, seconds);
            assert_eq!(wal.bytes_a_second(), Some(500.0), "{seconds}");
            assert_eq!(wal.seconds_left(5000), Some(10.0), "{seconds}");
        }
        assert_eq!(steady(500, 0).bytes_a_second(), None);
        assert_eq!(steady(500, 0).seconds_left(5000), None);
    }

    #[test]
    fn nothing_left_is_zero_and_nothing_written_is_unknown() {
        assert_eq!(steady(0, 10).seconds_left(5000), None);
        for safe in [0, -1, i64::MIN] {
            assert_eq!(steady(0, 10).seconds_left(safe), Some(0.0));
            assert_eq!(WalRate::default().seconds_left(safe), Some(0.0));
        }
    }

    #[test]
    fn a_burst_counts_at_once_and_is_forgotten_in_time() {
        let mut wal = steady(10, 600);
        let end = Lsn(1000 + 6000 + 3_000_000);
        wal.seen(at(601.0), end);
        // 3 MB in half a minute, at most five seconds more.
        let burst = wal.bytes_a_second().unwrap();
        assert!((3_000_000.0 / 36.0..=100_500.0).contains(&burst), "{burst}");
        (602..=1000).for_each(|n| wal.seen(at(f64::from(n)), end));
        assert_eq!(wal.bytes_a_second(), Some(0.0));
    }

    #[test]
    fn another_timeline_starts_afresh() {
        let mut wal = steady(500, 100);
        wal.seen(at(101.0), Lsn(7));
        assert_eq!(wal.bytes_a_second(), None);
        wal.seen(at(103.0), Lsn(27));
        assert_eq!(wal.bytes_a_second(), Some(10.0));
        wal.forget();
        assert_eq!(wal.bytes_a_second(), None);
    }

    const FINE: SlotWal<'_> = SlotWal {
        status: Some("reserved"),
        retained: Some(10),
        safe: Some(90),
        seconds_left: Some(1e6),
    };

    #[test]
    fn each_danger_has_its_signs() {
        let (low, shortly) = (Some(3599.0), Some(599.0));
        let (extended, unreserved) = (Some("extended"), Some("unreserved"));
        let half = Some(50);
        let cases = [
            (FINE, None),
            // Keeps up: little would be left, but nothing is kept.
            (SlotWal { seconds_left: shortly, ..FINE }, None),
            (
                SlotWal { seconds_left: low, retained: half, safe: Some(50), ..FINE },
                Some(Danger::Low),
            ),
            (SlotWal { seconds_left: low, retained: half, safe: Some(51), ..FINE }, None),
            (
                SlotWal { seconds_left: shortly, retained: half, safe: Some(50), status: extended },
                Some(Danger::Shortly),
            ),
            (SlotWal { seconds_left: Some(0.0), retained: None, safe: Some(-1), ..FINE }, None),
            (SlotWal { seconds_left: Some(0.0), safe: Some(-1), ..FINE }, Some(Danger::Shortly)),
            (SlotWal { status: extended, ..FINE }, Some(Danger::Extended)),
            (
                SlotWal { status: extended, safe: None, seconds_left: None, ..FINE },
                Some(Danger::Extended),
            ),
            (SlotWal { status: unreserved, ..FINE }, Some(Danger::Unreserved)),
            (
                SlotWal { status: Some("lost"), safe: None, seconds_left: None, retained: None },
                None,
            ),
            (SlotWal { status: None, safe: None, seconds_left: None, retained: None }, None),
        ];
        for (wal, danger) in cases {
            assert_eq!(wal.danger(), danger, "{wal:?}");
        }
        assert!(Danger::Extended < Danger::Low && Danger::Shortly < Danger::Unreserved);
    }

    #[test]
    fn the_limit_to_type_is_twice_the_present_one() {
        let limit = |retained, safe| SlotWal { retained, safe, ..FINE }.doubled_limit();
        assert_eq!(limit(Some(30 << 20), Some(34 << 20)).as_deref(), Some("128MB"));
        assert_eq!(limit(Some(70 << 20), Some(-5)).as_deref(), Some("140MB"));
        assert_eq!(limit(Some(6 << 30), Some(4 << 30)).as_deref(), Some("20GB"));
        assert_eq!(limit(None, Some(0)).as_deref(), Some("1MB"));
        assert_eq!(limit(Some(5), None), None);
        assert_eq!(limit(Some(u64::MAX), Some(i64::MAX)).as_deref(), Some("17179869184GB"));
    }

    #[test]
    fn bytes_are_readable() {
        let text = [0, 1023, 1024, 1 << 20, 3 << 29, u64::MAX].map(|n| Bytes(n).to_string());
        assert_eq!(text, ["0 B", "1023 B", "1.0 KiB", "1.0 MiB", "1.5 GiB", "16777216.0 TiB"]);
    }

    proptest! {
        #[test]
        fn the_estimate_is_sane_and_the_memory_bounded(
            steps in prop::collection::vec((0u64..20_000, -1000i64..1_000_000), 1..400),
            safe in any::<i64>(),
        ) {
            let (mut wal, mut now, mut end) = (WalRate::default(), 0u64, 1_000_000_000u64);
            for (millis, bytes) in steps {
                now += millis;
                end = end.saturating_add_signed(bytes);
                wal.seen(Duration::from_millis(now), Lsn(end));
                prop_assert!(wal.ends.len() <= 62);
                if let Some(rate) = wal.bytes_a_second() {
                    prop_assert!(rate.is_finite() && rate >= 0.0);
                }
                if let Some(left) = wal.seconds_left(safe) {
                    prop_assert!(left.is_finite() && left >= 0.0);
                }
            }
        }

        /// However unevenly it is looked at, at a steady rate the estimate is exact.
        #[test]
        fn uneven_looks_do_not_bend_a_steady_rate(
            gaps in prop::collection::vec(1u64..60_000, 1..200),
            rate in 1u64..1_000_000,
        ) {
            let (mut wal, mut now) = (WalRate::default(), 0);
            wal.seen(Duration::ZERO, Lsn(0));
            for gap in gaps {
                now += gap;
                wal.seen(Duration::from_millis(now), Lsn(now * rate));
                if now >= 500 {
                    let left = wal.seconds_left(1_000_000_000).unwrap();
                    let exact = 1_000_000_000.0 / (rate as f64 * 1000.0);
                    prop_assert!((left / exact - 1.0).abs() < 1e-9, "{left} is not {exact}");
                }
            }
        }

        /// The worse of two states is never judged the lesser danger.
        #[test]
        fn danger_grows_with_what_is_kept_and_with_the_rate(
            limit in 1u64..1 << 40, used in 0.0..1.0f64, more in 0.0..1.0f64,
            left in 0.0..10_000f64, faster in 1.0..10f64,
        ) {
            let judge = |used: f64, left: f64| {
                let retained = (limit as f64 * used) as u64;
                let safe = i64::try_from(limit - retained).unwrap();
                let retained = Some(retained);
                SlotWal { retained, safe: Some(safe), seconds_left: Some(left), ..FINE }.danger()
            };
            let worse = used + (1.0 - used) * more;
            prop_assert!(judge(worse, left / faster) >= judge(used, left));
        }
    }
}
