//! The metrics of `/metrics`, by the names that `docs/operations.md` lists.
//!
//! Counters and histograms are plain handles: no look-up and no lock on a row's way. Gauges are
//! private; [`Metrics::show`] fills them from a [`Status`] at each scrape.

use std::time::Duration;

use prometheus::{
    Encoder, GaugeVec, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
    TextEncoder,
};

use super::maker::Maker;
use super::status::{Counters, Phase, Status};

/// The values of `wal_status` that PostgreSQL 14 to 18 know.
const WAL_STATUSES: [&str; 4] = ["reserved", "extended", "unreserved", "lost"];

/// Every metric of a relay, in a registry of its own.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    gauges: Gauges,
    /// `walpost_messages_sent_total`: SENDs of messages not sent before.
    pub sent: IntCounter,
    /// `walpost_messages_resent_total`: SENDs of messages sent before.
    pub resent: IntCounter,
    /// `walpost_receipts_total`.
    pub receipts: IntCounter,
    /// `walpost_rejections_total{reason}`.
    pub rejections: Rejections,
    /// `walpost_rows_skipped_total{reason}`.
    pub skipped: Skipped,
    /// `walpost_dead_letters_total`: messages that were given up, or could never be sent.
    pub dead_letters: IntCounter,
    /// `walpost_headers_dropped_total`: headers that a row may not set.
    pub headers_dropped: IntCounter,
    /// `walpost_publish_seconds`; see [`Metrics::receipted`].
    publish_seconds: Histogram,
    /// `walpost_receipt_seconds`.
    receipt_seconds: Histogram,
    /// `walpost_consumed_total{queue,outcome}`; see [`Metrics::consumed`].
    consumed: IntCounterVec,
    /// `walpost_connects_total{peer}`: connections made.
    pub connects: Peers<IntCounter>,
}

/// One metric for each peer.
#[derive(Debug)]
pub struct Peers<T> {
    /// `peer="postgresql"`: the replication connection.
    pub postgresql: T,
    /// `peer="broker"`: all lanes together.
    pub broker: T,
}

/// `walpost_rejections_total`: how the broker refused.
#[derive(Debug)]
pub struct Rejections {
    /// `reason="error"`: an ERROR frame.
    pub error: IntCounter,
    /// `reason="closed"`: the connection ended with messages unreceipted.
    pub closed: IntCounter,
    /// `reason="missing"`: no receipt within `receipt_timeout` of a later answer.
    pub missing: IntCounter,
}

/// `walpost_rows_skipped_total`: changes in the stream that were no message.
#[derive(Debug)]
pub struct Skipped {
    /// `reason="other_table"`: of a table that is no outbox.
    pub other_table: IntCounter,
    /// `reason="operation"`: no insert but an update, delete or truncate.
    pub operation: IntCounter,
    /// `reason="status"`: a row of layout `django` that is not scheduled.
    pub status: IntCounter,
    /// `reason="other_prefix"`: a logical message with a prefix that is not ours.
    pub other_prefix: IntCounter,
    /// `reason="non_transactional"`: a logical message outside of any transaction.
    pub non_transactional: IntCounter,
    /// `reason="other_shard"`: a logical message of another shard.
    pub other_shard: IntCounter,
    /// `reason="known"`: came again after a reconnect and was recognised.
    pub known: IntCounter,
}

/// What a scrape fills.
#[derive(Debug)]
struct Gauges {
    lag_bytes: Known,
    lag_seconds: GaugeVec,
    confirmed_lsn: Known,
    retained: Known,
    safe: Known,
    seconds_left: GaugeVec,
    wal_status: IntGaugeVec,
    in_flight_messages: IntGauge,
    in_flight_bytes: IntGauge,
    unmarked_messages: IntGauge,
    parked: IntGauge,
    undelivered: IntGaugeVec,
    connected: Peers<IntGauge>,
    blocked: IntGauge,
    standby: IntGauge,
}

/// A gauge that is absent until its value is known: 0 would be a lie.
#[derive(Debug)]
struct Known(IntGaugeVec);

impl Metrics {
    /// All metrics at zero, for a walpost of this version.
    #[must_use]
    pub fn new(version: &str) -> Self {
        let new = Maker(Registry::new());
        let build = new.gauges("walpost_build_info", "The version that runs.", &["version"]);
        build.with_label_values(&[version]).set(1);
        Metrics {
            gauges: Gauges::new(&new),
            sent: new.counter(
                "walpost_messages_sent_total",
                "Messages sent to the broker for the first time.",
            ),
            resent: new.counter("walpost_messages_resent_total", "Messages sent again."),
            receipts: new.counter("walpost_receipts_total", "Receipts of messages."),
            rejections: Rejections::new(&new),
            skipped: Skipped::new(&new),
            dead_letters: new
                .counter("walpost_dead_letters_total", "Messages that became dead letters."),
            headers_dropped: new.counter(
                "walpost_headers_dropped_total",
                "Headers of rows left out because a row may not set them.",
            ),
            publish_seconds: new.histogram(
                "walpost_publish_seconds",
                "From a row's commit, by PostgreSQL's clock, to its receipt.",
            ),
            receipt_seconds: new
                .histogram("walpost_receipt_seconds", "From a message's last SEND to its receipt."),
            consumed: new.counters_of(
                "walpost_consumed_total",
                "Messages that consumers have answered, by queue and outcome.",
                &["queue", "outcome"],
            ),
            connects: {
                let help = "Connections made, by peer.";
                let connects = new.counters("walpost_connects_total", help, "peer");
                Peers::new(|peer| connects.with_label_values(&[peer]))
            },
            registry: new.0,
        }
    }

    /// A receipt came: counts it, with the time from the commit to it (0 where PostgreSQL's clock
    /// is ahead) and the time from the last SEND.
    pub fn receipted(&self, since_commit: Duration, since_send: Duration) {
        self.receipts.inc();
        self.publish_seconds.observe(since_commit.as_secs_f64());
        self.receipt_seconds.observe(since_send.as_secs_f64());
    }

    /// A consumer has a message of `queue` behind it: `handled`, `duplicate` or `refused`.
    pub fn consumed(&self, queue: &str, outcome: &str) {
        self.consumed.with_label_values(&[queue, outcome]).inc();
    }

    /// The totals, for [`Status::counters`].
    #[must_use]
    pub fn counters(&self) -> Counters {
        let Rejections { error, closed, missing } = &self.rejections;
        let Skipped {
            other_table,
            operation,
            status,
            other_prefix,
            non_transactional,
            other_shard,
            known,
        } = &self.skipped;
        let sum = |counters: &[&IntCounter]| counters.iter().map(|counter| counter.get()).sum();
        Counters {
            sent: self.sent.get(),
            resent: self.resent.get(),
            receipts: self.receipts.get(),
            rejections: sum(&[error, closed, missing]),
            skipped: sum(&[
                other_table,
                operation,
                status,
                other_prefix,
                non_transactional,
                other_shard,
                known,
            ]),
        }
    }

    /// Fills the gauges from `status`.
    pub fn show(&self, status: &Status) {
        self.gauges.show(status);
    }

    /// Everything in Prometheus' text format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = Vec::with_capacity(16 * 1024);
        // Writing to memory cannot fail, and the names are checked by a test.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Gauges {
    fn new(new: &Maker) -> Self {
        let connected = new.gauges(
            "walpost_connected",
            "Whether the connection to the peer stands; for the broker: all lanes.",
            &["peer"],
        );
        Gauges {
            lag_bytes: Known::new(
                new,
                "walpost_replication_lag_bytes",
                "WAL of the server past the confirmed position, of every database.",
            ),
            lag_seconds: new.float_gauges(
                "walpost_replication_lag_seconds",
                "Age of the oldest unconfirmed commit; 0 when everything is confirmed; absent on a \
                 standby.",
            ),
            confirmed_lsn: Known::new(
                new,
                "walpost_confirmed_lsn_bytes",
                "The position confirmed to PostgreSQL, as a number.",
            ),
            retained: Known::new(
                new,
                "walpost_slot_retained_wal_bytes",
                "WAL that the server keeps because of the slot.",
            ),
            safe: Known::new(
                new,
                "walpost_slot_safe_wal_bytes",
                "WAL that can be written before the slot may be lost; absent without a limit.",
            ),
            seconds_left: new.float_gauges(
                "walpost_slot_seconds_left",
                "Time until that WAL is written at the present rate; absent where nothing is known of it.",
            ),
            wal_status: new.gauges(
                "walpost_slot_wal_status",
                "1 for the slot's present wal_status.",
                &["status"],
            ),
            in_flight_messages: new.int_gauge(
                "walpost_in_flight_messages",
                "Messages read from PostgreSQL and not yet receipted, or not yet marked.",
            ),
            in_flight_bytes: new
                .int_gauge("walpost_in_flight_bytes", "Bytes of the messages in flight."),
            unmarked_messages: new.int_gauge(
                "walpost_unmarked_messages",
                "Messages with a receipt whose rows are not marked or deleted yet.",
            ),
            parked: new.int_gauge("walpost_parked_destinations", "Destinations that are parked."),
            undelivered: new.gauges(
                "walpost_undelivered_messages",
                "Messages of this slot in walpost.undelivered, by state.",
                &["state"],
            ),
            connected: Peers::new(|peer| connected.with_label_values(&[peer])),
            blocked: new.int_gauge(
                "walpost_broker_blocked",
                "Whether the broker is connected but takes nothing (memory or disk alarm).",
            ),
            standby: new.int_gauge(
                "walpost_standby",
                "Whether this instance waits for a slot that another one holds.",
            ),
        }
    }

    fn show(&self, status: &Status) {
        let source = &status.source;
        self.lag_bytes.set(source.lag_bytes.map(int));
        for (gauge, seconds) in [
            (&self.lag_seconds, source.lag_seconds),
            (&self.seconds_left, source.slot_seconds_left),
        ] {
            match seconds {
                Some(seconds) => gauge.with_label_values::<&str>(&[]).set(seconds),
                None => gauge.reset(),
            }
        }
        self.confirmed_lsn.set(source.confirmed_lsn.map(|lsn| int(lsn.0)));
        self.retained.set(source.retained_bytes.map(int));
        self.safe.set(source.safe_bytes);
        match &source.wal_status {
            Some(present) => {
                for wal_status in WAL_STATUSES {
                    let is = i64::from(wal_status == present);
                    self.wal_status.with_label_values(&[wal_status]).set(is);
                }
            }
            None => self.wal_status.reset(),
        }
        self.in_flight_messages.set(int(status.in_flight.messages));
        self.in_flight_bytes.set(int(status.in_flight.bytes));
        self.unmarked_messages.set(int(status.marking.owed));
        let kept = &status.undelivered;
        self.parked.set(int(kept.parked));
        for (state, messages) in [("retrying", kept.retrying), ("dead", kept.dead)] {
            self.undelivered.with_label_values(&[state]).set(int(messages));
        }
        let lanes = &status.broker.lanes;
        let broker = !lanes.is_empty() && lanes.iter().all(|lane| lane.connected);
        self.connected.postgresql.set(source.connected.into());
        self.connected.broker.set(broker.into());
        self.blocked.set(lanes.iter().any(|lane| lane.blocked).into());
        self.standby.set((status.phase == Phase::Standby).into());
    }
}

impl Known {
    fn new(new: &Maker, name: &str, help: &str) -> Self {
        Known(new.gauges(name, help, &[]))
    }

    fn set(&self, value: Option<i64>) {
        match value {
            Some(value) => self.0.with_label_values::<&str>(&[]).set(value),
            None => self.0.reset(),
        }
    }
}

impl<T> Peers<T> {
    fn new(make: impl Fn(&str) -> T) -> Self {
        Peers { postgresql: make("postgresql"), broker: make("broker") }
    }
}

impl Rejections {
    fn new(new: &Maker) -> Self {
        let help = "Refusals by the broker, by how it refused.";
        let counters = new.counters("walpost_rejections_total", help, "reason");
        let reason = |reason| counters.with_label_values(&[reason]);
        Rejections { error: reason("error"), closed: reason("closed"), missing: reason("missing") }
    }
}

impl Skipped {
    fn new(new: &Maker) -> Self {
        let help = "Changes in the stream that are no message, by reason.";
        let counters = new.counters("walpost_rows_skipped_total", help, "reason");
        let reason = |reason| counters.with_label_values(&[reason]);
        Skipped {
            other_table: reason("other_table"),
            operation: reason("operation"),
            status: reason("status"),
            other_prefix: reason("other_prefix"),
            non_transactional: reason("non_transactional"),
            other_shard: reason("other_shard"),
            known: reason("known"),
        }
    }
}

/// A `u64` or `usize` as the `i64` of a gauge, at most `i64::MAX`.
fn int(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}
