//! Examples of the rules, one each; the simulator plays everything else.

use std::time::Duration;

use super::*;

mod marking;
mod parking;
mod trouble;

const NOW: Duration = Duration::from_secs(1);
const FIRST_WAIT: Duration = Duration::from_secs(1);
const RECEIPT_TIMEOUT: Duration = Duration::from_secs(30);
const PROBE_AFTER: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(240);
const WAIT: Duration = Duration::from_secs(60);

/// From 10 000 on to the second destination, from 20 000 on to the third.
impl Addressed for u64 {
    fn destination(&self) -> &str {
        ["a", "b", "c"][(*self / 10_000) as usize]
    }
}

fn settings() -> Settings {
    Settings {
        lanes: 1,
        messages: 4,
        bytes: 1000,
        receipt_timeout: RECEIPT_TIMEOUT,
        probe_after: PROBE_AFTER,
        ring: 100,
        retry: Retry {
            first_wait: FIRST_WAIT,
            pause_after: 3,
            pause: PAUSE,
            wait: WAIT,
            max_attempts: 5,
            max_parked: 100,
            halts: false,
        },
    }
}

fn tx(n: u64) -> TxId {
    TxId { commit_lsn: Lsn(n * 100 + 50), xid: n as u32, commit_time: PgTime(n as i64) }
}

/// An engine that holds the slot, with lane 0 up.
fn ready() -> Engine<u64> {
    let mut engine = Engine::new(settings());
    engine.session_started(Lsn(0));
    engine.lane_up(0, NOW);
    engine
}

fn message(payload: u64) -> Outgoing<u64> {
    Outgoing { key_hash: 0, size: 10, marks: false, unfit: false, payload }
}

/// Reads transaction `n` with `rows` rows, as far as they are new.
fn read(engine: &mut Engine<u64>, n: u64, rows: u64) {
    engine.begin(tx(n)).unwrap();
    for row in 0..rows {
        if engine.change(Lsn(n * 100 + row)).unwrap() == Change::New {
            engine.accept(message(n * 1000 + row)).unwrap();
        }
    }
    engine.commit(tx(n).commit_lsn, Lsn(n * 100 + 60)).unwrap();
}

fn send_all(engine: &mut Engine<u64>) -> Vec<(Receipt, u64)> {
    send_all_on(engine, 0)
}

fn send_all_on(engine: &mut Engine<u64>, lane: usize) -> Vec<(Receipt, u64)> {
    std::iter::from_fn(|| engine.next_send(lane, NOW).map(|(receipt, payload)| (receipt, *payload)))
        .collect()
}

#[test]
fn a_position_is_done_when_all_before_it_is() {
    let mut engine = ready();
    read(&mut engine, 1, 1);
    read(&mut engine, 2, 1);
    engine.keepalive(Lsn(900));
    let sent = send_all(&mut engine);
    assert_eq!(engine.watermark(), Lsn(0));
    assert!(engine.receipt(0, sent[1].0, NOW).is_some());
    assert_eq!((engine.watermark(), engine.ledger_len()), (Lsn(0), 1));
    assert!(engine.receipt(0, sent[0].0, NOW).is_some());
    assert_eq!((engine.watermark(), engine.ledger_len()), (Lsn(900), 0));
    assert!(engine.receipt(0, sent[0].0, NOW).is_none(), "a receipt counts once");
}

#[test]
fn a_keepalive_inside_a_transaction_is_nothing() {
    let mut engine = ready();
    engine.begin(tx(1)).unwrap();
    engine.keepalive(Lsn(900));
    engine.commit(tx(1).commit_lsn, Lsn(160)).unwrap();
    assert_eq!(engine.watermark(), Lsn(160));
}

#[test]
fn nothing_is_reported_before_the_slots_own_position() {
    let mut engine = ready();
    engine.session_started(Lsn(500));
    engine.keepalive(Lsn(400));
    assert_eq!(engine.watermark(), Lsn::INVALID);
    engine.keepalive(Lsn(500));
    assert_eq!(engine.watermark(), Lsn(500));
}

#[test]
fn what_is_done_in_flight_or_partly_sent_is_recognised() {
    let mut engine = ready();
    read(&mut engine, 1, 1);
    let sent = send_all(&mut engine);
    engine.receipt(0, sent[0].0, NOW).unwrap();
    read(&mut engine, 2, 1);
    engine.begin(tx(3)).unwrap();
    assert_eq!(engine.change(Lsn(300)), Ok(Change::New));
    engine.accept(message(3000)).unwrap();
    let sent = send_all(&mut engine);
    assert_eq!(sent.len(), 2);

    engine.session_started(Lsn(0));
    read(&mut engine, 1, 1);
    assert_eq!(engine.watermark(), Lsn(160));
    read(&mut engine, 2, 1);
    read(&mut engine, 3, 2);
    assert_eq!(send_all(&mut engine).iter().map(|(_, m)| *m).collect::<Vec<_>>(), [3001]);
    assert_eq!(engine.in_flight().messages, 3);
    engine.receipt(0, sent[0].0, NOW).unwrap();
    assert_eq!(engine.watermark(), Lsn(260));
}

#[test]
fn messages_that_do_not_come_again_hold_back_nothing() {
    let mut engine = ready();
    read(&mut engine, 1, 1);
    let sent = send_all(&mut engine);
    engine.session_started(Lsn(0));
    engine.keepalive(Lsn(50));
    assert_eq!(engine.watermark(), Lsn(50));
    assert_eq!(engine.in_flight().messages, 1);
    engine.receipt(0, sent[0].0, NOW).unwrap();
    assert!(engine.is_drained());
    assert_eq!(engine.watermark(), Lsn(50));
}

#[test]
fn after_a_lost_lane_all_is_sent_again_in_order() {
    let mut engine = ready();
    read(&mut engine, 1, 3);
    let first = send_all(&mut engine);
    engine.receipt(0, first[1].0, NOW).unwrap();
    engine.lane_down(0, LaneDown::Lost, NOW);
    assert_eq!(engine.next_send(0, NOW), None);
    assert!(engine.receipt(0, first[0].0, NOW).is_none(), "a receipt of a lost lane");
    engine.lane_up(0, NOW);
    read(&mut engine, 2, 1);
    assert_eq!(
        send_all(&mut engine).iter().map(|(_, m)| *m).collect::<Vec<_>>(),
        [1000, 1002, 2000]
    );
    assert_eq!(engine.resent(), 2);
}

#[test]
fn the_window_has_room_for_one_of_any_size() {
    let mut engine = ready();
    assert!(engine.fits(1_000_000));
    read(&mut engine, 1, 1);
    assert!(engine.fits(990) && !engine.fits(991));
    read(&mut engine, 2, 3);
    assert!(!engine.fits(1));
}

#[test]
fn silence_is_probed_and_a_missing_receipt_closes_the_lane() {
    let mut engine = ready();
    read(&mut engine, 1, 2);
    send_all(&mut engine);
    assert_eq!(engine.deadline(), Some(NOW + Duration::from_secs(5)));
    engine.tick(NOW + Duration::from_secs(5));
    assert_eq!(engine.next_action(), Some(Action::Probe { lane: 0 }));
    read(&mut engine, 2, 1);
    assert!(engine.blocked(0) && engine.next_send(0, NOW).is_none());
    engine.tick(NOW + Duration::from_secs(500));
    assert_eq!(engine.next_action(), None, "a held connection is kept");
    let answered = NOW + Duration::from_secs(600);
    engine.probe_answered(0, answered);
    assert!(!engine.blocked(0) && engine.next_send(0, answered).is_some());
    engine.tick(answered + Duration::from_secs(30));
    assert!(matches!(
        engine.next_action(),
        Some(Action::Close { lane: 0, why: CloseReason::Missing(_) })
    ));
}

#[test]
fn malformed_streams_are_errors() {
    let mut engine = ready();
    assert!(engine.commit(Lsn(1), Lsn(2)).is_err());
    assert!(engine.change(Lsn(1)).is_err());
    assert!(engine.accept(message(1)).is_err());
    engine.begin(tx(1)).unwrap();
    assert!(engine.begin(tx(2)).is_err());
    assert!(engine.accept(message(1)).is_err());
    assert!(engine.commit(Lsn(1), Lsn(2)).is_err());
    engine.session_lost();
    assert_eq!(engine.begin(tx(1)), Err(StreamError::NoSession));
}

#[test]
fn changes_out_of_order_are_repeated_rather_than_missed() {
    let mut engine = ready();
    engine.begin(tx(1)).unwrap();
    for lsn in [120, 110] {
        assert_eq!(engine.change(Lsn(lsn)), Ok(Change::New));
        engine.accept(message(lsn)).unwrap();
    }
    engine.session_started(Lsn(0));
    engine.begin(tx(1)).unwrap();
    assert_eq!(engine.change(Lsn(120)), Ok(Change::New));
}

#[test]
fn a_large_transaction_goes_on_after_a_restart() {
    let mut engine = ready();
    engine.begin(tx(1)).unwrap();
    let mut sent = Vec::new();
    for row in 0..9 {
        if !engine.fits(10) {
            let (receipt, _) = sent.remove(0);
            engine.receipt(0, receipt, NOW).unwrap();
        }
        assert_eq!(engine.change(Lsn(100 + row)).unwrap(), Change::New);
        engine.accept(message(row)).unwrap();
        sent.extend(send_all(&mut engine));
        assert_eq!(engine.large_transaction().is_some(), row >= 4, "{row}");
    }
    let (id, up_to) = engine.large_transaction().unwrap();
    assert_eq!((id, up_to), (tx(1), ChangeId { lsn: Lsn(104), place: 0 }));

    let mut engine = Engine::<u64>::new(settings());
    engine.resume(id, up_to, Lsn::INVALID);
    engine.session_started(Lsn(0));
    engine.lane_up(0, NOW);
    engine.begin(tx(1)).unwrap();
    let news: Vec<_> = (0..9).map(|row| engine.change(Lsn(100 + row)).unwrap()).collect();
    assert_eq!(news.iter().filter(|change| **change == Change::New).count(), 4);
    assert_eq!(news[4..6], [Change::Known, Change::New]);
}

#[test]
fn rows_out_of_the_table_hold_no_position() {
    let mut engine = ready();
    engine.recover(PgTime(0), message(1)).unwrap();
    engine.recover(PgTime(0), message(2)).unwrap();
    assert!(!engine.is_idle());
    let sent = send_all(&mut engine);
    assert_eq!(engine.transaction(sent[0].0), None);
    engine.receipt(0, sent[1].0, NOW).unwrap();
    assert!(!engine.is_drained());
    engine.session_lost();
    assert_eq!(engine.recover(PgTime(0), message(3)), Err(StreamError::NoSession));
    engine.session_started(Lsn(0));
    engine.receipt(0, sent[0].0, NOW).unwrap();
    assert!(engine.is_drained() && engine.is_idle());
    assert_eq!(engine.large_transaction(), None);
}
