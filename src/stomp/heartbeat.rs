//! The heart-beat clock (chapter "Heart-beating").
//!
//! The specification gives agreed intervals and says that timing is inexact. Brokers differ:
//! ActiveMQ allows nothing for a late beat and sends its own almost twice as late as agreed. So
//! beats go out at half the agreed interval, and the peer is dead at three times the expected one.

use std::time::Duration;

/// The peer is never taken for dead before this much silence, however short the agreed interval.
const LEAST_SILENCE: Duration = Duration::from_secs(1);

/// Agreed intervals; zero means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Agreed {
    /// The peer must hear something at least this often.
    pub(super) send: Duration,
    /// The peer lets something be heard at least this often.
    pub(super) expect: Duration,
}

/// When something last went in each direction.
#[derive(Debug)]
pub(super) struct Clock {
    pub(super) agreed: Agreed,
    heard: Duration,
    wrote: Duration,
}

/// An interval as the `heart-beat` header writes it: whole milliseconds, and not zero unless it is
/// zero. Capped at what fits 32 bits with sign, since some brokers read no more.
pub(super) fn millis(interval: Duration) -> u64 {
    let rounded_up = interval.as_nanos().div_ceil(1_000_000);
    u64::try_from(rounded_up).unwrap_or(u64::MAX).min(i32::MAX as u64)
}

/// What both sides agree on: ours as in CONNECT, and the header of CONNECTED. `None` if the
/// header is malformed.
pub(super) fn agree(ours: (u64, u64), header: Option<&str>) -> Option<Agreed> {
    let Some(header) = header else {
        return Some(Agreed::default());
    };
    let (sends, expects) = header.split_once(',')?;
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let slower = |can: u64, wants: u64| match (can, wants) {
        (0, _) | (_, 0) => Duration::ZERO,
        _ => Duration::from_millis(can.max(wants)),
    };
    let (our_send, our_expect) = ours;
    Some(Agreed {
        send: slower(our_send, number(expects)?),
        expect: slower(number(sends)?, our_expect),
    })
}

impl Clock {
    pub(super) fn new(now: Duration) -> Clock {
        Clock { agreed: Agreed::default(), heard: now, wrote: now }
    }

    pub(super) fn heard(&mut self, now: Duration) {
        self.heard = self.heard.max(now);
    }

    pub(super) fn wrote(&mut self, now: Duration) {
        self.wrote = self.wrote.max(now);
    }

    /// When the next heart-beat is due.
    pub(super) fn beat_at(&self) -> Option<Duration> {
        (!self.agreed.send.is_zero()).then(|| self.wrote.saturating_add(self.agreed.send / 2))
    }

    /// How much silence of the peer is too much.
    pub(super) fn silence_allowed(&self) -> Option<Duration> {
        let expect = self.agreed.expect;
        (!expect.is_zero()).then(|| expect.saturating_mul(3).max(LEAST_SILENCE))
    }

    /// When the peer is dead unless it is heard.
    pub(super) fn dead_at(&self) -> Option<Duration> {
        self.silence_allowed().map(|allowed| self.heard.saturating_add(allowed))
    }

    pub(super) fn silent_for(&self, now: Duration) -> Duration {
        now.saturating_sub(self.heard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn negotiation() {
        // Ours (send, expect), the broker's header (sends, expects), agreed (send, expect).
        let table = [
            ((10_000, 10_000), "10000,10000", (10_000, 10_000)),
            ((10_000, 5_000), "7000,20000", (20_000, 7_000)),
            ((10_000, 5_000), "3000,1000", (10_000, 5_000)),
            ((0, 5_000), "3000,1000", (0, 5_000)),
            ((10_000, 0), "3000,1000", (10_000, 0)),
            ((10_000, 5_000), "0,1000", (10_000, 0)),
            ((10_000, 5_000), "3000,0", (0, 5_000)),
            ((0, 0), "0,0", (0, 0)),
            ((10, 10), " 20 , 30 ", (30, 20)),
        ];
        for (ours, header, (send, expect)) in table {
            let agreed =
                Agreed { send: Duration::from_millis(send), expect: Duration::from_millis(expect) };
            assert_eq!(agree(ours, Some(header)), Some(agreed), "{ours:?} {header}");
        }
        assert_eq!(agree((1, 1), None), Some(Agreed::default()));
        for header in ["", "1", "1,", ",1", "1,2,3", "-1,0", "a,b"] {
            assert_eq!(agree((1, 1), Some(header)), None, "{header}");
        }
    }

    #[test]
    fn milliseconds_of_the_header() {
        assert_eq!(millis(Duration::ZERO), 0);
        assert_eq!(millis(Duration::from_nanos(1)), 1);
        assert_eq!(millis(Duration::from_secs(10)), 10_000);
        assert_eq!(millis(Duration::MAX), i32::MAX as u64);
    }

    #[test]
    fn short_intervals_leave_a_second() {
        let mut clock = Clock::new(Duration::from_secs(5));
        assert_eq!((clock.beat_at(), clock.dead_at()), (None, None));
        clock.agreed = Agreed { send: Duration::from_secs(4), expect: Duration::from_millis(100) };
        assert_eq!(clock.beat_at(), Some(Duration::from_secs(7)));
        assert_eq!(clock.dead_at(), Some(Duration::from_secs(6)));
        clock.agreed.expect = Duration::from_secs(4);
        assert_eq!(clock.dead_at(), Some(Duration::from_secs(17)));
    }

    proptest! {
        #[test]
        fn no_header_overflows(text in "[0-9]{1,21},[0-9]{1,21}", sends: u64, expects: u64) {
            let mut clock = Clock::new(Duration::MAX);
            if let Some(agreed) = agree((sends, expects), Some(&text)) {
                clock.agreed = agreed;
                let _ = (clock.beat_at(), clock.dead_at());
            }
        }
    }
}
