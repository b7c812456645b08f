use std::time::Duration;

use super::status::{Lane, Phase, STALL_LIMIT, Status};
use super::*;

fn telemetry() -> Arc<Telemetry> {
    Telemetry::new("walpost", "walpost")
}

/// A relay at work with nothing to do.
fn idle(status: &mut Status, lag: &mut Lag) {
    status.phase = Phase::Streaming;
    status.source.connected = true;
    status.source.host = Some("db:5432".to_owned());
    status.source.confirmed_lsn = Some(Lsn(0x1_0000_0000));
    status.source.server_lsn = Some(Lsn(0x1_0000_0000));
    let host = Some("mq:61613".to_owned());
    status.broker.lanes = vec![Lane { host, connected: true, ..Lane::default() }];
    lag.caught_up(clock::unix_now());
}

fn readiness_after(change: impl FnOnce(&mut Status, &mut Lag)) -> Result<(), String> {
    let telemetry = telemetry();
    telemetry.update(idle);
    telemetry.update(change);
    telemetry.snapshot().readiness()
}

#[test]
fn ready_when_both_ends_stand_and_all_is_confirmed() {
    assert_eq!(readiness_after(|_, _| {}), Ok(()));
}

type Change = fn(&mut Status);

#[test]
fn each_reason_not_to_be_ready_is_named() {
    let reason = |change: Change| readiness_after(|status, _| change(status)).unwrap_err();
    let cases: [(Change, &str); 7] = [
        (
            |status| {
                status.source.connected = false;
                status.source.last_error = Some("connection refused".to_owned());
            },
            "not streaming from PostgreSQL at db:5432: connection refused",
        ),
        (|status| status.broker.lanes.clear(), "the broker is not connected"),
        (
            |status| {
                status.broker.lanes[0].connected = false;
                status.broker.lanes[0].last_error = Some("Bad CONNECT\n\nno".to_owned());
            },
            "the broker at mq:61613 is not connected: Bad CONNECT  no",
        ),
        (
            |status| {
                status.broker.lanes[0].blocked = true;
                status.broker.lanes[0].in_flight = 12;
            },
            "the broker at mq:61613 is connected but takes nothing (memory or disk alarm?); \
             12 messages wait for their receipts",
        ),
        (
            |status| {
                status.phase = Phase::Draining;
                status.in_flight.messages = 3;
            },
            "shutting down: 3 messages wait for their receipts",
        ),
        (|status| status.phase = Phase::Stopped, "the relay has stopped"),
        (|status| status.phase = Phase::Connecting, "the replication stream is not open yet"),
    ];
    for (change, expected) in cases {
        assert_eq!(reason(change), expected);
    }
}

#[test]
fn a_standby_is_ready_without_any_connection() {
    let telemetry = telemetry();
    assert!(telemetry.snapshot().readiness().is_err());
    telemetry.update(|status, _| status.phase = Phase::Standby);
    assert_eq!(telemetry.snapshot().readiness(), Ok(()));
    let text = telemetry.scrape();
    assert!(text.contains("\nwalpost_standby 1\n"), "{text}");
    assert!(!text.contains("walpost_replication_lag_seconds"), "{text}");

    // It takes over: what it waited for is not its lag.
    telemetry.lock().lag = Lag::new(Duration::ZERO);
    telemetry.update(|_, _| {});
    telemetry.update(|status, _| status.phase = Phase::Connecting);
    assert!(telemetry.snapshot().source.lag_seconds.unwrap() < 3600.0);
}

#[test]
fn behind_is_ready_while_the_position_or_the_receipts_move() {
    let telemetry = telemetry();
    telemetry.update(idle);
    telemetry.update(|status, lag| {
        status.source.server_lsn = Some(Lsn(0x1_0000_0400));
        lag.oldest(clock::unix_now());
    });
    let limit = clock::unix_now() + STALL_LIMIT + Duration::from_secs(1);
    assert_eq!(telemetry.snapshot().readiness(), Ok(()));
    let later = telemetry.snapshot_at(limit).readiness().unwrap_err();
    assert_eq!(later, "nothing was confirmed and no receipt came for 61 s; 1024 bytes behind");

    // Either of the two is progress; neither is not.
    let stalled = |telemetry: &Telemetry| {
        telemetry.update(|_, _| {});
        telemetry.lock().progress_at
    };
    let age = |telemetry: &Telemetry| telemetry.lock().progress_at = Duration::ZERO;
    age(&telemetry);
    assert_eq!(stalled(&telemetry), Duration::ZERO);
    telemetry.metrics.receipted(Duration::ZERO, Duration::ZERO);
    assert_ne!(stalled(&telemetry), Duration::ZERO);
    age(&telemetry);
    telemetry.update(|status, _| status.source.confirmed_lsn = Some(Lsn(0x1_0000_0001)));
    assert_ne!(stalled(&telemetry), Duration::ZERO);
}

#[test]
fn caught_up_is_never_stalled_however_long_it_lasts() {
    let telemetry = telemetry();
    telemetry.update(idle);
    let later = clock::unix_now() + Duration::from_secs(86_400);
    let status = telemetry.snapshot_at(later);
    assert_eq!(status.readiness(), Ok(()));
    assert_eq!(status.source.stalled_seconds, None);
    assert_eq!((status.source.lag_bytes, status.source.lag_seconds), (Some(0), Some(0.0)));
}

#[test]
fn the_lag_is_never_negative() {
    let telemetry = telemetry();
    telemetry.update(idle);
    telemetry.update(|status, _| status.source.server_lsn = Some(Lsn(1)));
    assert_eq!(telemetry.snapshot().source.lag_bytes, Some(0));
}

#[test]
fn alive_while_the_relay_beats() {
    let mut telemetry = Arc::into_inner(telemetry()).unwrap();
    assert_eq!(telemetry.liveness(), Ok(()));
    telemetry.beat = Beat::aged(BEAT_LIMIT + Duration::from_secs(5));
    let reason = telemetry.liveness().unwrap_err();
    assert_eq!(reason, "the relay has not turned for 15 s (at most 10 s)");
    telemetry.beat.touch();
    assert_eq!(telemetry.liveness(), Ok(()));
}

#[test]
fn every_metric_has_its_name_help_and_value() {
    let telemetry = telemetry();
    telemetry.update(idle);
    telemetry.update(|status, _| {
        status.source.server_lsn = Some(Lsn(0x1_0000_0200));
        status.source.wal_status = Some("extended".to_owned());
        status.source.retained_bytes = Some(4096);
        status.source.safe_bytes = Some(-5);
        status.source.slot_seconds_left = Some(0.5);
        status.in_flight.messages = 7;
        status.in_flight.bytes = 900;
    });
    let metrics = &telemetry.metrics;
    metrics.sent.inc_by(9);
    metrics.resent.inc();
    metrics.rejections.missing.inc();
    metrics.skipped.other_table.inc_by(2);
    metrics.connects.broker.inc();
    metrics.receipted(Duration::from_millis(3), Duration::from_millis(2));
    let text = telemetry.scrape();
    for line in [
        "walpost_replication_lag_bytes 512",
        "walpost_replication_lag_seconds 0",
        "walpost_confirmed_lsn_bytes 4294967296",
        "walpost_slot_retained_wal_bytes 4096",
        "walpost_slot_safe_wal_bytes -5",
        "walpost_slot_seconds_left 0.5",
        "walpost_slot_wal_status{status=\"extended\"} 1",
        "walpost_slot_wal_status{status=\"lost\"} 0",
        "walpost_in_flight_messages 7",
        "walpost_in_flight_bytes 900",
        "walpost_messages_sent_total 9",
        "walpost_messages_resent_total 1",
        "walpost_receipts_total 1",
        "walpost_rejections_total{reason=\"missing\"} 1",
        "walpost_rejections_total{reason=\"error\"} 0",
        "walpost_rows_skipped_total{reason=\"other_table\"} 2",
        "walpost_publish_seconds_bucket{le=\"0.005\"} 1",
        "walpost_publish_seconds_bucket{le=\"0.0025\"} 0",
        "walpost_receipt_seconds_sum 0.002",
        "walpost_connects_total{peer=\"broker\"} 1",
        "walpost_connects_total{peer=\"postgresql\"} 0",
        "walpost_connected{peer=\"postgresql\"} 1",
        "walpost_connected{peer=\"broker\"} 1",
        "walpost_broker_blocked 0",
        "walpost_standby 0",
        concat!("walpost_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
    ] {
        assert!(text.lines().any(|found| found == line), "no line '{line}' in:\n{text}");
        let name = line.split(['{', ' ']).next().unwrap();
        let family = ["_bucket", "_sum"].iter().find_map(|end| name.strip_suffix(end));
        let help = format!("# HELP {} ", family.unwrap_or(name));
        assert!(text.contains(&help), "no '{help}'");
    }
    let counters = telemetry.snapshot().counters;
    assert_eq!((counters.sent, counters.resent, counters.receipts), (9, 1, 1));
    assert_eq!((counters.rejections, counters.skipped), (1, 2));
}

#[test]
fn what_is_not_known_is_absent_not_zero() {
    let telemetry = telemetry();
    let absent = [
        "walpost_replication_lag_bytes",
        "walpost_slot_safe_wal_bytes",
        "walpost_slot_seconds_left",
        "walpost_slot_wal_status",
    ];
    let text = telemetry.scrape();
    assert!(absent.iter().all(|name| !text.contains(name)), "{text}");
    telemetry.update(|status, _| {
        status.source.safe_bytes = Some(1);
        status.source.slot_seconds_left = Some(60.0);
        status.source.wal_status = Some("reserved".to_owned());
    });
    let text = telemetry.scrape();
    assert!(absent[1..].iter().all(|name| text.contains(&format!("\n{name}"))), "{text}");
    telemetry.update(|status, _| {
        status.source.safe_bytes = None;
        status.source.slot_seconds_left = None;
        status.source.wal_status = None;
    });
    let text = telemetry.scrape();
    assert!(absent.iter().all(|name| !text.contains(name)), "{text}");
}

#[test]
fn a_status_survives_json() {
    let telemetry = telemetry();
    telemetry.update(idle);
    let status = telemetry.snapshot();
    let json = serde_json::to_string(&status).unwrap();
    assert!(json.contains("\"confirmed_lsn\":\"1/0\""), "{json}");
    assert!(json.contains("\"phase\":\"streaming\""), "{json}");
    assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);
}
