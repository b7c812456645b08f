//! Rows that are marked after the receipt (rule 8).

use super::*;
use crate::engine::marking::BATCH;

const LINGER: Duration = Duration::from_millis(20);
const AGAIN: Duration = Duration::from_millis(500);

fn marked_message(payload: u64) -> Outgoing<u64> {
    Outgoing { marks: true, ..message(payload) }
}

/// Reads transaction `n` with `rows` rows, which are to be marked, as far as they are new.
fn read_marked(engine: &mut Engine<u64>, n: u64, rows: u64) {
    engine.begin(tx(n)).unwrap();
    for row in 0..rows {
        if engine.change(Lsn(n * 100 + row)).unwrap() == Change::New {
            engine.accept(marked_message(n * 1000 + row)).unwrap();
        }
    }
    engine.commit(tx(n).commit_lsn, Lsn(n * 100 + 60)).unwrap();
}

/// Sends what there is to send, and has it receipted.
fn receipt_all(engine: &mut Engine<u64>, now: Duration) -> Vec<Receipt> {
    let sent: Vec<_> = send_all(engine).into_iter().map(|(receipt, _)| receipt).collect();
    sent.iter().for_each(|receipt| assert!(engine.receipt(0, *receipt, now).is_some()));
    sent
}

fn next_marks(engine: &mut Engine<u64>, now: Duration) -> Vec<Receipt> {
    engine.next_marks(now).into_iter().map(|owed| owed.receipt).collect()
}

/// An engine with a window of 4000, in which `owed` messages are receipted at [`NOW`].
fn wide(owed: u64) -> (Engine<u64>, Vec<Receipt>) {
    let mut engine = Engine::new(Settings { messages: 4000, bytes: usize::MAX, ..settings() });
    engine.session_started(Lsn(0));
    engine.lane_up(0, NOW);
    engine.begin(tx(1)).unwrap();
    for row in 0..owed {
        assert_eq!(engine.change(Lsn(100 + row)), Ok(Change::New));
        engine.accept(marked_message(row)).unwrap();
    }
    let receipts = receipt_all(&mut engine, NOW);
    (engine, receipts)
}

#[test]
fn a_receipt_without_the_mark_holds_position_and_window() {
    let mut engine = ready();
    read_marked(&mut engine, 1, 3);
    read(&mut engine, 2, 1);
    engine.keepalive(Lsn(900));
    let sent = send_all(&mut engine);
    for (receipt, payload) in &sent {
        let receipted = engine.receipt(0, *receipt, NOW).unwrap();
        assert_eq!(receipted.commit_time, tx(payload / 1000).commit_time);
    }
    assert_eq!((engine.watermark(), engine.owed()), (Lsn(0), 3));
    assert_eq!(engine.in_flight(), InFlight { messages: 3, bytes: 30 });
    assert_eq!(engine.in_flight_on(0), 0);
    assert!(!engine.is_drained() && !engine.is_idle() && !engine.fits(971));
    assert_eq!(engine.oldest_commit_time(), Some(tx(1).commit_time));

    let batch = engine.next_marks(NOW);
    let rows: Vec<_> = batch.iter().map(|owed| *engine.message(owed.receipt).unwrap()).collect();
    assert_eq!(rows, [1000, 1001, 1002]);
    assert!(batch.iter().all(|owed| owed.transaction == Some(tx(1))));
    engine.marked(batch[1].receipt);
    engine.marked(batch[0].receipt);
    assert_eq!((engine.watermark(), engine.owed()), (Lsn(0), 1));
    assert_eq!(engine.in_flight(), InFlight { messages: 1, bytes: 10 });
    engine.marked(batch[2].receipt);
    assert_eq!((engine.watermark(), engine.owed()), (Lsn(900), 0));
    assert!(engine.is_drained() && engine.is_idle());
}

#[test]
fn a_receipt_counts_once_and_what_is_receipted_is_never_sent_again() {
    let mut engine = ready();
    read_marked(&mut engine, 1, 2);
    let sent = send_all(&mut engine);
    assert!(engine.receipt(0, sent[0].0, NOW).is_some());
    assert!(engine.receipt(0, sent[0].0, NOW).is_none(), "a second receipt");
    assert_eq!(engine.owed(), 1);

    engine.lane_down(0, LaneDown::Lost, NOW);
    engine.lane_up(0, NOW);
    assert_eq!(send_all(&mut engine).iter().map(|(_, m)| *m).collect::<Vec<_>>(), [1001]);
    assert!(engine.receipt(0, sent[0].0, NOW).is_none(), "of another connection");

    engine.session_started(Lsn(0));
    engine.lane_down(0, LaneDown::ConnectFailed, NOW);
    engine.lane_up(0, NOW);
    assert_eq!(send_all(&mut engine).iter().map(|(_, m)| *m).collect::<Vec<_>>(), [1001]);
    assert_eq!((engine.owed(), engine.sent(), engine.resent()), (1, 2, 2));
}

#[test]
fn what_is_receipted_is_not_missing() {
    let mut engine = ready();
    read_marked(&mut engine, 1, 2);
    let sent = send_all(&mut engine);
    engine.receipt(0, sent[1].0, NOW).unwrap();
    assert_eq!(engine.deadline(), Some(NOW + settings().receipt_timeout));
    engine.receipt(0, sent[0].0, NOW).unwrap();
    assert_eq!((engine.deadline(), engine.has_unreceipted(0)), (None, false));
    engine.tick(NOW + Duration::from_secs(500));
    assert_eq!(engine.next_action(), None);
}

#[test]
fn a_mark_waits_for_others_but_not_long() {
    let (mut engine, sent) = wide(2);
    assert_eq!(engine.marks_deadline(), Some(NOW + LINGER));
    assert!(engine.next_marks(NOW + LINGER - Duration::from_millis(1)).is_empty());
    assert_eq!(next_marks(&mut engine, NOW + LINGER), sent);
    assert_eq!(engine.marks_deadline(), None, "a batch is under way");
    assert!(engine.next_marks(NOW + AGAIN * 2).is_empty());
    assert_eq!(engine.owed(), 2);
    engine.marked(sent[0]);
    assert_eq!(engine.marks_deadline(), None, "one of it is not reported");
    engine.marked(sent[1]);
    assert_eq!((engine.marks_deadline(), engine.owed()), (None, 0));
}

#[test]
fn a_full_batch_goes_at_once_and_a_small_windows_quarter_too() {
    let (mut engine, sent) = wide(BATCH as u64 + 500);
    assert_eq!(engine.marks_deadline(), Some(Duration::ZERO));
    let at = NOW + LINGER / 4;
    let first = next_marks(&mut engine, at);
    assert_eq!(first, sent[..BATCH]);
    first.iter().for_each(|receipt| engine.marked(*receipt));
    assert_eq!(engine.marks_deadline(), Some(at + LINGER), "the rest waits for others again");
    assert_eq!(next_marks(&mut engine, at + LINGER), sent[BATCH..]);

    let mut engine = Engine::new(Settings { messages: 8, ..settings() });
    engine.session_started(Lsn(0));
    engine.lane_up(0, NOW);
    read_marked(&mut engine, 1, 1);
    receipt_all(&mut engine, NOW);
    assert_eq!(engine.marks_deadline(), Some(NOW + LINGER));
    read_marked(&mut engine, 2, 1);
    receipt_all(&mut engine, NOW);
    assert_eq!(engine.marks_deadline(), Some(Duration::ZERO));
}

#[test]
fn what_was_not_marked_is_tried_again_later_and_holds_up_no_other() {
    let (mut engine, sent) = wide(3);
    let at = NOW + LINGER;
    assert_eq!(next_marks(&mut engine, at), sent);
    engine.not_marked(sent[0], at);
    engine.marked(sent[1]);
    engine.not_marked(sent[2], at);
    assert_eq!((engine.marks_deadline(), engine.owed()), (Some(at + AGAIN), 2));

    assert_eq!(engine.change(Lsn(190)), Ok(Change::New));
    engine.accept(marked_message(4)).unwrap();
    let other = receipt_all(&mut engine, at);
    assert_eq!(engine.marks_deadline(), Some(at + LINGER));
    assert_eq!(next_marks(&mut engine, at + LINGER), other);
    engine.marked(other[0]);
    assert!(engine.next_marks(at + AGAIN - Duration::from_millis(1)).is_empty());
    assert_eq!(next_marks(&mut engine, at + AGAIN), [sent[0], sent[2]]);
    engine.marked(sent[0]);
    engine.not_marked(sent[2], at + AGAIN);
    assert_eq!(engine.marks_deadline(), Some(at + AGAIN * 2), "for as long as it takes");
}

#[test]
fn a_batch_outlives_its_session() {
    let mut engine = ready();
    read_marked(&mut engine, 1, 1);
    read_marked(&mut engine, 2, 1);
    let sent = receipt_all(&mut engine, NOW);
    assert_eq!(next_marks(&mut engine, NOW), sent);
    engine.session_lost();
    engine.marked(sent[0]);
    engine.not_marked(sent[1], NOW);
    assert_eq!((engine.owed(), engine.in_flight().messages), (1, 1));

    engine.session_started(Lsn(0));
    read_marked(&mut engine, 1, 1);
    assert_eq!((engine.watermark(), engine.has_unsent(0)), (Lsn(160), false));
    assert_eq!(next_marks(&mut engine, NOW + AGAIN), [sent[1]]);
    engine.marked(sent[1]);
    read_marked(&mut engine, 2, 1);
    assert_eq!((engine.watermark(), engine.has_unsent(0)), (Lsn(260), false));
}

#[test]
fn a_transaction_that_comes_again_is_known_and_its_marks_go_on() {
    let mut engine = ready();
    engine.begin(tx(1)).unwrap();
    assert_eq!(engine.change(Lsn(100)), Ok(Change::New));
    engine.accept(marked_message(1000)).unwrap();
    let first = receipt_all(&mut engine, NOW);
    engine.session_started(Lsn(0));
    read_marked(&mut engine, 1, 2);
    let second = send_all(&mut engine);
    assert_eq!(second.iter().map(|(_, m)| *m).collect::<Vec<_>>(), [1001], "the other is known");
    engine.receipt(0, second[0].0, NOW).unwrap();
    assert_eq!(engine.watermark(), Lsn(0));
    let batch = next_marks(&mut engine, NOW);
    assert_eq!(batch, [first[0], second[0].0]);
    engine.marked(batch[1]);
    assert_eq!(engine.watermark(), Lsn(0), "a new session waits for the old one's mark");
    engine.marked(batch[0]);
    assert_eq!(engine.watermark(), Lsn(160));
}

#[test]
fn what_another_timeline_may_not_have_is_not_marked() {
    let mut engine = ready();
    engine.recover(PgTime(0), marked_message(1)).unwrap();
    receipt_all(&mut engine, NOW);
    read_marked(&mut engine, 1, 1);
    read_marked(&mut engine, 2, 1);
    receipt_all(&mut engine, NOW);
    read_marked(&mut engine, 3, 1);
    let third = send_all(&mut engine);
    assert_eq!((engine.owed(), engine.in_flight().messages), (3, 4));
    engine.session_lost();
    engine.forget_marks_from(tx(2).commit_lsn);
    assert_eq!((engine.owed(), engine.in_flight().messages), (1, 2));

    engine.session_started(Lsn(0));
    read_marked(&mut engine, 1, 1);
    read_marked(&mut engine, 2, 1);
    assert!(!engine.has_unsent(0), "it is delivered all the same");
    let batch = engine.next_marks(NOW);
    assert_eq!(batch.iter().map(|owed| owed.transaction).collect::<Vec<_>>(), [Some(tx(1))]);
    engine.marked(batch[0].receipt);
    assert_eq!(engine.watermark(), Lsn(260));
    assert!(engine.receipt(0, third[0].0, NOW).is_some());
    assert!(engine.is_drained(), "what had no receipt then needs no mark either");
    assert_eq!(engine.marks_deadline(), None);
}

#[test]
fn where_nothing_is_known_of_the_other_timeline_nothing_is_marked() {
    let mut engine = ready();
    read_marked(&mut engine, 1, 4);
    let sent = receipt_all(&mut engine, NOW);
    assert_eq!(next_marks(&mut engine, NOW), sent);
    engine.not_marked(sent[0], NOW);
    engine.session_lost();
    engine.forget_marks_from(Lsn::INVALID);
    assert!(engine.is_drained());
    // The batch that was under way is reported, and nothing comes of it.
    engine.marked(sent[1]);
    engine.not_marked(sent[2], NOW);
    engine.not_marked(sent[3], NOW);
    assert_eq!((engine.owed(), engine.marks_deadline()), (0, None));
    engine.session_started(Lsn(0));
    read_marked(&mut engine, 2, 1);
    let sent = receipt_all(&mut engine, NOW);
    assert_eq!(next_marks(&mut engine, NOW), sent, "the new timeline's rows are marked");
}

#[test]
fn rows_out_of_the_table_are_drained_when_they_are_marked() {
    let mut engine = ready();
    engine.recover(PgTime(0), marked_message(1)).unwrap();
    let sent = receipt_all(&mut engine, NOW);
    engine.session_started(Lsn(0));
    assert!(!engine.is_drained() && !engine.is_idle());
    let batch = engine.next_marks(NOW);
    assert_eq!(batch, [Owed { receipt: sent[0], transaction: None }]);
    engine.marked(sent[0]);
    assert!(engine.is_drained() && engine.is_idle());
}

#[test]
fn a_large_transaction_is_done_up_to_what_is_owed() {
    let mut engine = ready();
    engine.begin(tx(1)).unwrap();
    for row in 0..6 {
        if !engine.fits(10) {
            let batch = next_marks(&mut engine, NOW);
            engine.marked(batch[0]);
            batch[1..].iter().for_each(|receipt| engine.not_marked(*receipt, NOW));
        }
        assert_eq!(engine.change(Lsn(100 + row)), Ok(Change::New));
        engine.accept(marked_message(row)).unwrap();
        receipt_all(&mut engine, NOW);
    }
    // Rows 0 and 4 are marked, and so is 5 in a moment: 1 is what counts.
    let up_to = |row: u64| Some((tx(1), ChangeId { lsn: Lsn(100 + row), place: 0 }));
    assert_eq!(engine.large_transaction(), up_to(0));
    let batch = next_marks(&mut engine, NOW);
    batch.iter().for_each(|receipt| engine.marked(*receipt));
    assert_eq!(engine.large_transaction(), up_to(0));
    let batch = next_marks(&mut engine, NOW + AGAIN);
    engine.marked(batch[0]);
    assert_eq!(engine.large_transaction(), up_to(1));
    engine.marked(batch[2]);
    assert_eq!(engine.large_transaction(), up_to(1));
    engine.marked(batch[1]);
    assert_eq!(engine.large_transaction(), up_to(5));
}

#[test]
fn what_waits_for_its_mark_is_no_suspect() {
    let mut engine = ready();
    read_marked(&mut engine, 1, 1);
    read_marked(&mut engine, 2, 2);
    let sent = send_all(&mut engine);
    engine.receipt(0, sent[0].0, NOW).unwrap();
    engine.lane_down(0, LaneDown::Refused { receipt: None, words: "no" }, NOW);
    let waiting: Vec<_> = engine.troubled().map(|trouble| trouble.waiting).collect();
    assert_eq!(waiting, [2], "the mark of the first is owed, whatever becomes of the others");
    let batch = next_marks(&mut engine, NOW + AGAIN);
    assert_eq!(batch, [sent[0].0]);
    engine.marked(batch[0]);
    assert_eq!(engine.in_flight().messages, 2);
}

#[test]
fn what_is_owed_is_not_without_a_receipt() {
    let mut engine = ready();
    read_marked(&mut engine, 1, 1);
    read_marked(&mut engine, 2, 2);
    let sent = send_all(&mut engine);
    engine.receipt(0, sent[1].0, NOW).unwrap();
    assert_eq!(engine.unreceipted_from(Lsn(0)), 2);
    assert_eq!(engine.unreceipted_from(tx(2).commit_lsn), 1);
    assert_eq!((engine.in_flight().messages, engine.in_flight_on(0)), (3, 2));
    assert!(engine.has_unreceipted(0));
}
