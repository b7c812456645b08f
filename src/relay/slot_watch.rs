//! Whether the slot is in danger: WAL that it needs may be removed before it is read, or a setting of
//! the server ends it one day. Fills the gauges, and warns while there is time to act.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use crate::lsn::Lsn;
use crate::store::{Lag, Store, StoreError};
use crate::telemetry::Telemetry;
use crate::telemetry::slot_danger::{Bytes, Danger, SlotWal, WalRate};
use crate::telemetry::throttle::Throttle;

/// How often the server's settings are read.
const SETTINGS_EACH: Duration = Duration::from_secs(10);
/// A danger that lasts is told again after this.
const SAID_AGAIN: Duration = Duration::from_secs(600);
/// The same of a setting, which harms only some day.
const SETTING_SAID_AGAIN: Duration = Duration::from_secs(86_400);

/// What was seen of the slot and told of it.
pub(super) struct SlotWatch {
    epoch: Instant,
    rate: WalRate,
    dangers: Throttle,
    settings: Throttle,
    next_settings: Duration,
    /// The danger that there was at the last look.
    last: Option<Danger>,
    /// How far PostgreSQL had sent when it was last seen waiting for standbys.
    held_at: Option<Lsn>,
}

impl SlotWatch {
    pub(super) fn new() -> Self {
        SlotWatch {
            epoch: Instant::now(),
            rate: WalRate::default(),
            dangers: Throttle::new(SAID_AGAIN),
            settings: Throttle::new(SETTING_SAID_AGAIN),
            next_settings: Duration::ZERO,
            last: None,
            held_at: None,
        }
    }

    /// The server could not be asked: the gauges stay as last heard, but the time runs out or not,
    /// nobody knows.
    pub(super) fn unknown(&mut self, telemetry: &Telemetry) {
        self.rate.forget();
        self.next_settings = Duration::ZERO;
        self.held_at = None;
        telemetry.update(|status, _| {
            status.source.slot_seconds_left = None;
            status.source.held_back = None;
        });
    }

    /// There is no such slot.
    pub(super) fn gone(&mut self, telemetry: &Telemetry) {
        self.unknown(telemetry);
        telemetry.update(|status, _| {
            status.source.retained_bytes = None;
            status.source.safe_bytes = None;
            status.source.wal_status = None;
        });
    }

    /// What the server said just now.
    pub(super) async fn seen(
        &mut self,
        store: &Store,
        slot: &str,
        lag: &Lag,
        telemetry: &Telemetry,
    ) -> Result<(), StoreError> {
        let now = self.epoch.elapsed();
        self.rate.seen(now, lag.insert_lsn);
        let left = lag.safe_wal_size.and_then(|safe| self.rate.seconds_left(safe));
        telemetry.update(|status, _| {
            status.source.retained_bytes = lag.retained_bytes;
            status.source.safe_bytes = lag.safe_wal_size;
            status.source.wal_status.clone_from(&lag.wal_status);
            status.source.slot_seconds_left = left;
        });
        let wal = SlotWal {
            status: lag.wal_status.as_deref(),
            retained: lag.retained_bytes,
            safe: lag.safe_wal_size,
            seconds_left: left,
        };
        self.tell_danger(slot, &wal, telemetry, now);
        if now >= self.next_settings {
            self.next_settings = now + SETTINGS_EACH;
            for hazard in store.slot_settings().await?.hazards() {
                let text = hazard.to_string();
                if self.settings.allow(&text, now).is_some() {
                    warn!("{text}");
                }
            }
            self.tell_held_back(store, slot, telemetry, now).await?;
        }
        Ok(())
    }

    /// Waiting for standbys is told when nothing was sent from one look to the next.
    async fn tell_held_back(
        &mut self,
        store: &Store,
        slot: &str,
        telemetry: &Telemetry,
        now: Duration,
    ) -> Result<(), StoreError> {
        let held = store.held_back(slot).await?;
        let at = held.as_ref().and_then(|held| held.sent);
        let held = held.filter(|held| held.sent.is_some() && held.sent == self.held_at);
        let text = held.map(|held| format!("slot {slot} {held}"));
        let before = telemetry.snapshot().source.held_back;
        match &text {
            // Each time anew, and once in a while.
            Some(text) if before.is_none() || self.dangers.allow("held back", now).is_some() => {
                warn!("{text}");
            }
            None if before.is_some() => info!("slot {slot} is no longer held back"),
            _ => {}
        }
        telemetry.update(|status, _| status.source.held_back = text);
        self.held_at = at;
        Ok(())
    }

    /// A danger that is worse than the one before has its own key, and so is told at once.
    fn tell_danger(&mut self, slot: &str, wal: &SlotWal<'_>, telemetry: &Telemetry, now: Duration) {
        let danger = wal.danger();
        if let Some(danger) = danger {
            if self.dangers.allow(&format!("{danger:?}"), now).is_some() {
                let ready = telemetry.snapshot().readiness();
                warn!("slot {slot} {}", described(danger, wal, ready.err().as_deref()));
            }
        } else if self.last.is_some() && wal.status == Some("reserved") {
            info!("slot {slot} is out of danger");
        }
        self.last = danger;
    }
}

/// What is wrong, why, and what to type. `unready` is why the relay does not move, if it does not.
fn described(danger: Danger, wal: &SlotWal<'_>, unready: Option<&str>) -> String {
    let kept = Bytes(wal.retained.unwrap_or(0));
    let what = match danger {
        Danger::Extended => format!(
            "makes PostgreSQL keep {kept} of WAL, more than max_wal_size; {}",
            match wal.safe {
                Some(safe) => format!("{} more, and it is lost", Bytes(positive(safe))),
                None => "nothing limits it, and the disk may fill".to_owned(),
            }
        ),
        Danger::Low | Danger::Shortly => {
            let left = Duration::try_from_secs_f64(wal.seconds_left.unwrap_or(0.0));
            format!(
                "is lost in about {} at the present rate of WAL: {kept} are kept for it, {} more may be",
                humantime::format_duration(Duration::from_secs(left.unwrap_or_default().as_secs())),
                Bytes(positive(wal.safe.unwrap_or(0))),
            )
        }
        Danger::Unreserved => format!(
            "may be lost at any checkpoint: the {kept} of WAL that it needs are more than \
             max_slot_wal_keep_size"
        ),
    };
    let why = match unready {
        Some(reason) => format!("mend what keeps walpost from reading on ({reason})"),
        None => {
            "walpost reads on, but too slowly, or an old transaction holds its WAL: end those that \
                 pg_stat_activity shows with an old xact_start"
                .to_owned()
        }
    };
    match wal.doubled_limit() {
        Some(limit) => format!(
            "{what}; {why}, or, if the disk has room, ALTER SYSTEM SET max_slot_wal_keep_size = '{limit}'; \
             SELECT pg_reload_conf()"
        ),
        None => format!("{what}; {why}"),
    }
}

fn positive(bytes: i64) -> u64 {
    u64::try_from(bytes).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAL: SlotWal<'_> = SlotWal {
        status: Some("extended"),
        retained: Some(3 << 30),
        safe: Some(1 << 30),
        seconds_left: Some(550.9),
    };

    #[test]
    fn each_danger_says_what_why_and_what_to_type() {
        let broker = Some("the broker at mq:61613 is not connected: refused");
        let cases = [
            (
                Danger::Shortly,
                broker,
                "is lost in about 9m 10s at the present rate of WAL: 3.0 GiB are kept for it, 1.0 GiB more may \
                 be; mend what keeps walpost from reading on (the broker at mq:61613 is not connected: \
                 refused), or, if the disk has room, ALTER SYSTEM SET max_slot_wal_keep_size = '8192MB'; \
                 SELECT pg_reload_conf()",
            ),
            (
                Danger::Extended,
                broker,
                "more than max_wal_size; 1.0 GiB more, and it is lost; mend",
            ),
            (Danger::Unreserved, broker, "at any checkpoint: the 3.0 GiB of WAL that it needs are"),
            (
                Danger::Low,
                None,
                "end those that pg_stat_activity shows with an old xact_start, or,",
            ),
        ];
        for (danger, unready, expected) in cases {
            let text = described(danger, &WAL, unready);
            assert!(text.contains(expected), "{text}");
        }
        let text = described(Danger::Extended, &SlotWal { safe: None, ..WAL }, broker);
        assert!(text.contains("nothing limits it, and the disk may fill; mend"), "{text}");
        assert!(!text.contains("ALTER SYSTEM"), "{text}");
    }
}
