//! Parking, step by step: what is kept, what is called done, what is sent out of the table.

use super::*;

const TRIAL: usize = 1;

/// An engine whose destination `a` is parked: its `messages` wait, the slot was looked at.
fn parked(messages: &[u64]) -> Engine<u64> {
    let mut engine = ready();
    engine.begin(tx(1)).unwrap();
    for (row, payload) in messages.iter().enumerate() {
        engine.change(Lsn(100 + row as u64)).unwrap();
        engine.accept(message(*payload)).unwrap();
    }
    engine.commit(tx(1).commit_lsn, Lsn(160)).unwrap();
    engine.lane_up(TRIAL, NOW);
    let first = send_all(&mut engine)[0].0;
    engine.lane_down(0, LaneDown::Refused { receipt: Some(first), words: "no" }, NOW);
    engine.lane_up(0, NOW);
    let mut now = NOW;
    for _ in 0..2 {
        now += FIRST_WAIT;
        engine.tick(now);
        assert_eq!(send_all_on(&mut engine, TRIAL).len(), 1);
        engine.lane_down(TRIAL, LaneDown::Refused { receipt: None, words: "no" }, now);
        engine.lane_up(TRIAL, now);
    }
    let parked = |action| matches!(action, Action::Notice(Notice::Parked { attempts: 3, .. }));
    assert!(std::iter::from_fn(|| engine.next_action()).any(parked));
    engine
}

const LATER: Duration = Duration::from_secs(4);

fn keep(engine: &mut Engine<u64>) -> Vec<Keep> {
    match engine.next_job(LATER) {
        Some(Job::Keep(batch)) => batch,
        other => panic!("{other:?}"),
    }
}

fn stored(id: i64, payload: u64) -> Stored<u64> {
    Stored {
        id,
        attempts: 4,
        transaction: Some(tx(1)),
        commit_time: PgTime(1),
        outgoing: message(payload),
    }
}

#[test]
fn what_is_kept_is_done_once_the_stream_has_brought_its_position() {
    let mut engine = parked(&[1, 2, 3]);
    let batch = keep(&mut engine);
    assert_eq!(batch.iter().map(|keep| keep.attempts).collect::<Vec<_>>(), [3, 0, 0]);
    let changes: Vec<_> = batch.iter().map(|keep| keep.identity.unwrap().1.lsn.0).collect();
    assert_eq!(changes, [100, 101, 102]);
    assert!(batch[0].next_in > Some(PAUSE / 2) && batch[1].next_in.is_none());
    // Nobody knows: the same again, and nothing else first.
    engine.job_done(Outcome::Failed, LATER);
    let Some(Job::Keep(again)) = engine.next_job(LATER + FIRST_WAIT) else { panic!() };
    assert_eq!(again.len(), 3);
    engine.job_done(Outcome::Kept(Lsn(500)), LATER);
    assert_eq!((engine.in_flight().messages, engine.watermark()), (0, Lsn(0)));
    engine.keepalive(Lsn(499));
    assert_eq!(engine.watermark(), Lsn(0), "a standby may lack the rows");
    engine.keepalive(Lsn(500));
    assert_eq!(engine.watermark(), Lsn(500));
}

#[test]
fn a_position_that_a_session_did_not_reach_holds_the_next_one() {
    let mut engine = parked(&[1]);
    keep(&mut engine);
    engine.job_done(Outcome::Kept(Lsn(500)), LATER);
    engine.session_started(Lsn(0));
    read(&mut engine, 2, 0);
    assert_eq!(engine.watermark(), Lsn(0));
    engine.keepalive(Lsn(500));
    assert_eq!(engine.watermark(), Lsn(500));
}

#[test]
fn after_a_failover_what_was_kept_comes_again() {
    let mut engine = parked(&[1]);
    keep(&mut engine);
    engine.job_done(Outcome::Kept(Lsn(500)), LATER);
    engine.session_lost();
    engine.table_lost();
    engine.session_started(Lsn(0));
    engine.begin(tx(1)).unwrap();
    assert_eq!(engine.change(Lsn(100)), Ok(Change::New));
}

/// What a former process did of a large transaction may be kept rather than delivered.
#[test]
fn what_is_known_of_a_large_transaction_after_a_restart_is_fenced() {
    let resumed = || {
        let mut engine = Engine::<u64>::new(settings());
        engine.resume(tx(1), ChangeId { lsn: Lsn(101), place: 0 }, Lsn(500));
        engine.session_started(Lsn(0));
        engine.lane_up(0, NOW);
        engine.begin(tx(1)).unwrap();
        assert_eq!(engine.change(Lsn(101)), Ok(Change::Known));
        engine
    };
    let mut engine = resumed();
    engine.commit(tx(1).commit_lsn, Lsn(160)).unwrap();
    engine.keepalive(Lsn(499));
    assert_eq!(engine.watermark(), Lsn(0));
    // A session more does not take it away.
    engine.session_lost();
    engine.session_started(Lsn(0));
    engine.keepalive(Lsn(499));
    assert_eq!(engine.watermark(), Lsn(0));
    engine.keepalive(Lsn(500));
    assert_eq!((engine.watermark(), engine.ledger_len()), (Lsn(500), 0));

    // How far it is can be told all the same.
    let mut engine = resumed();
    for row in 0..5 {
        assert_eq!(engine.change(Lsn(110 + row)), Ok(Change::New));
        engine.accept(message(row)).unwrap();
        let (receipt, _) = send_all(&mut engine)[0];
        engine.receipt(0, receipt, NOW).unwrap();
    }
    let at = ChangeId { lsn: Lsn(114), place: 0 };
    assert_eq!(engine.large_transaction(), Some((tx(1), at)));

    // A standby may lack what was kept: nothing is known of it there.
    let mut engine = resumed();
    engine.commit(tx(1).commit_lsn, Lsn(160)).unwrap();
    engine.session_lost();
    engine.table_lost();
    engine.session_started(Lsn(0));
    engine.begin(tx(1)).unwrap();
    assert_eq!(engine.change(Lsn(101)), Ok(Change::New));

    // Nor where more of it is on its way.
    let mut engine = resumed();
    assert_eq!(engine.change(Lsn(110)), Ok(Change::New));
    engine.accept(message(1)).unwrap();
    engine.session_lost();
    engine.table_lost();
    engine.session_started(Lsn(0));
    engine.begin(tx(1)).unwrap();
    assert_eq!(engine.change(Lsn(101)), Ok(Change::New));
}

#[test]
fn rows_are_sent_in_their_order_and_then_what_waited() {
    let mut engine = parked(&[1, 2]);
    keep(&mut engine);
    engine.job_done(Outcome::Kept(Lsn(500)), LATER);
    let now = NOW + PAUSE * 2;
    engine.tick(now);
    let job = engine.next_job(now);
    assert_eq!(job, Some(Job::Attempt { destination: "a".to_owned(), newest_dead: false }));
    engine.job_done(Outcome::Attempted(Some(Box::new(stored(7, 1)))), now);
    let sent = send_all_on(&mut engine, TRIAL);
    assert_eq!(sent.len(), 1);
    engine.receipt(TRIAL, sent[0].0, now).unwrap();
    // What comes meanwhile waits.
    read(&mut engine, 2, 1);
    assert!(send_all(&mut engine).is_empty());
    assert_eq!(engine.next_job(now), Some(Job::Delivered(vec![7])));
    engine.job_done(Outcome::Done, now);
    assert!(matches!(engine.next_job(now), Some(Job::Load { after: 7, .. })));
    engine.job_done(Outcome::Loaded { rows: vec![stored(8, 2)], unread: 0 }, now);
    let sent = send_all_on(&mut engine, TRIAL);
    assert_eq!(sent[0].1, 2);
    engine.receipt(TRIAL, sent[0].0, now).unwrap();
    assert!(send_all(&mut engine).is_empty(), "its row is there still");
    assert_eq!(engine.next_job(now), Some(Job::Delivered(vec![8])));
    engine.job_done(Outcome::Done, now);
    assert_eq!(send_all(&mut engine).len(), 1);
    assert_eq!(engine.troubled().count(), 0);
}

#[test]
fn fences_join_so_that_the_ledger_stays_short() {
    let mut engine = parked(&[1]);
    keep(&mut engine);
    engine.job_done(Outcome::Kept(Lsn(10_000)), LATER);
    for n in 2..100 {
        engine.begin(tx(n)).unwrap();
        engine.change(Lsn(n * 100)).unwrap();
        engine.accept(message(n)).unwrap();
        engine.commit(tx(n).commit_lsn, Lsn(n * 100 + 60)).unwrap();
        assert_eq!(keep(&mut engine).len(), 1);
        engine.job_done(Outcome::Kept(Lsn(100_000 + n)), LATER);
        assert!(engine.ledger_len() <= 4 * 4 + 4, "{n}: {}", engine.ledger_len());
    }
    engine.keepalive(Lsn(200_000));
    assert_eq!((engine.ledger_len(), engine.watermark()), (0, Lsn(200_000)));
}

#[test]
fn a_destination_that_is_exhausted_halts_where_it_is_told_so() {
    let retry = Retry { max_attempts: 3, halts: true, ..settings().retry };
    let mut engine = Engine::new(Settings { retry, ..settings() });
    engine.session_started(Lsn(0));
    (0..=TRIAL).for_each(|lane| engine.lane_up(lane, NOW));
    read(&mut engine, 1, 1);
    let refused = LaneDown::Refused { receipt: None, words: "no" };
    send_all(&mut engine);
    engine.lane_down(0, refused, NOW);
    engine.lane_up(0, NOW);
    for times in 1..=2 {
        engine.tick(NOW + FIRST_WAIT * times);
        send_all_on(&mut engine, TRIAL);
        engine.lane_down(TRIAL, refused, NOW + FIRST_WAIT * times);
        engine.lane_up(TRIAL, NOW + FIRST_WAIT * times);
    }
    let halt = Halt { destination: "a".to_owned(), times: 3, words: "no".to_owned() };
    let mut actions = std::iter::from_fn(|| engine.next_action());
    assert!(actions.any(|action| action == Action::Halt(halt.clone())));
}
