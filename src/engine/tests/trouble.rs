//! Refusals: who is suspected, what is tried, when the relay gives up.

use super::*;

const TRIAL: usize = 1;

/// Reads one transaction with these messages.
fn read_these(engine: &mut Engine<u64>, n: u64, payloads: &[u64]) {
    engine.begin(tx(n)).unwrap();
    for (row, payload) in payloads.iter().enumerate() {
        assert_eq!(engine.change(Lsn(n * 100 + row as u64)).unwrap(), Change::New);
        engine.accept(message(*payload)).unwrap();
    }
    engine.commit(tx(n).commit_lsn, Lsn(n * 100 + 60)).unwrap();
}

fn payloads(sent: &[(Receipt, u64)]) -> Vec<u64> {
    sent.iter().map(|(_, payload)| *payload).collect()
}

fn notices(engine: &mut Engine<u64>) -> Vec<Notice> {
    std::iter::from_fn(|| engine.next_action())
        .map(|action| match action {
            Action::Notice(notice) => notice,
            other => panic!("{other:?}"),
        })
        .collect()
}

fn refused(receipt: Option<Receipt>) -> LaneDown<'static> {
    LaneDown::Refused { receipt, words: "no" }
}

#[test]
fn what_an_error_names_is_tried_by_itself_and_the_others_flow() {
    let mut engine = ready();
    read_these(&mut engine, 1, &[1, 10_001, 2]);
    let sent = send_all(&mut engine);
    engine.lane_down(0, refused(Some(sent[1].0)), NOW);
    engine.lane_up(0, NOW);
    engine.lane_up(TRIAL, NOW);
    let told = Notice::Refused { destination: "b".to_owned(), attempts: 1, words: "no".to_owned() };
    assert_eq!(notices(&mut engine), [told]);
    assert_eq!(payloads(&send_all(&mut engine)), [1, 2]);
    read_these(&mut engine, 2, &[10_002]);
    assert!(send_all(&mut engine).is_empty() && send_all_on(&mut engine, TRIAL).is_empty());
    assert_eq!(engine.deadline(), Some(NOW + FIRST_WAIT));
    engine.tick(NOW + FIRST_WAIT);
    let tried = send_all_on(&mut engine, TRIAL);
    assert_eq!(payloads(&tried), [10_001], "the oldest alone");
    engine.receipt(TRIAL, tried[0].0, NOW).unwrap();
    // What it took in its turn shows that it takes messages again: its lane has the rest.
    assert_eq!(notices(&mut engine), [Notice::Opened { destination: "b".to_owned() }]);
    assert!(!engine.needs_lane(TRIAL, NOW));
    assert_eq!(payloads(&send_all(&mut engine)), [10_002]);
    read_these(&mut engine, 3, &[10_003]);
    assert_eq!(payloads(&send_all(&mut engine)), [10_003]);
}

#[test]
fn where_nobody_is_named_all_are_suspected_and_nobody_is_charged() {
    let mut engine = ready();
    read_these(&mut engine, 1, &[1, 10_001, 20_001]);
    send_all(&mut engine);
    engine.lane_up(TRIAL, NOW);
    engine.lane_down(0, refused(None), NOW);
    engine.lane_up(0, NOW);
    assert_eq!(
        notices(&mut engine),
        [Notice::Suspected { destinations: 3, words: "no".to_owned() }]
    );
    assert!(send_all(&mut engine).is_empty());
    for innocent in [1, 10_001] {
        let tried = send_all_on(&mut engine, TRIAL);
        assert_eq!(payloads(&tried), [innocent]);
        engine.receipt(TRIAL, tried[0].0, NOW).unwrap();
    }
    notices(&mut engine);
    for attempts in 1..=3 {
        engine.tick(NOW + FIRST_WAIT * attempts);
        let tried = send_all_on(&mut engine, TRIAL);
        assert_eq!(payloads(&tried), [20_001]);
        engine.lane_down(TRIAL, refused(None), NOW + FIRST_WAIT * attempts);
        assert!(
            matches!(&notices(&mut engine)[..], [Notice::Refused { attempts: a, .. }] if *a == attempts)
        );
        engine.lane_up(TRIAL, NOW + FIRST_WAIT * attempts);
    }
    let parked = notices(&mut engine);
    assert!(matches!(&parked[..], [Notice::Parked { attempts: 3, .. }]), "{parked:?}");
}

#[test]
fn a_broker_that_is_down_is_nobodys_attempt() {
    let mut engine = ready();
    read_these(&mut engine, 1, &[1]);
    send_all(&mut engine);
    engine.lane_down(0, refused(None), NOW);
    let attempts = |engine: &Engine<u64>| engine.troubled().map(|t| t.attempts).sum::<u32>();
    assert_eq!(attempts(&engine), 1);
    engine.lane_down(TRIAL, LaneDown::ConnectFailed, NOW);
    assert_eq!(attempts(&engine), 0);
    engine.lane_up(0, NOW);
    engine.lane_up(TRIAL, NOW + FIRST_WAIT);
    assert_eq!(send_all_on(&mut engine, TRIAL).len(), 1);
    engine.lane_down(TRIAL, LaneDown::Lost, NOW + FIRST_WAIT);
    engine.lane_down(TRIAL, LaneDown::ConnectFailed, NOW + FIRST_WAIT);
    assert_eq!(attempts(&engine), 1, "another lane is connected");
}

#[test]
fn a_lane_that_closes_without_a_word_twice_with_the_same_oldest_message_is_no_accident() {
    let mut engine = ready();
    read_these(&mut engine, 1, &[1, 10_001]);
    for times in 1..=2 {
        assert_eq!(send_all(&mut engine).len(), 2, "{times}");
        engine.lane_down(0, LaneDown::Lost, NOW);
        // The next host may be down.
        engine.lane_down(0, LaneDown::ConnectFailed, NOW);
        engine.lane_up(0, NOW);
    }
    assert_eq!(engine.troubled().map(|t| t.attempts).collect::<Vec<_>>(), [0, 0]);
    assert!(send_all(&mut engine).is_empty());
}

#[test]
fn a_lane_that_gets_on_between_two_losses_speaks_against_nobody() {
    let mut engine = ready();
    read_these(&mut engine, 1, &[1, 2, 3]);
    for _ in 0..3 {
        let sent = send_all(&mut engine);
        engine.lane_down(0, LaneDown::Lost, NOW);
        engine.lane_up(0, NOW);
        assert_eq!(engine.troubled().count(), 0);
        let sent = send_all(&mut engine).into_iter().chain(sent).next().unwrap();
        engine.receipt(0, sent.0, NOW).unwrap();
    }
}

#[test]
fn what_is_on_its_way_on_another_lane_is_waited_for() {
    let mut engine = Engine::new(Settings { lanes: 2, ..settings() });
    let trial = engine.trial_lane();
    engine.session_started(Lsn(0));
    (0..=trial).for_each(|lane| engine.lane_up(lane, NOW));
    engine.begin(tx(1)).unwrap();
    for payload in 0..3 {
        engine.change(Lsn(100 + payload)).unwrap();
        engine.accept(Outgoing { key_hash: payload % 2, ..message(payload) }).unwrap();
    }
    engine.commit(tx(1).commit_lsn, Lsn(160)).unwrap();
    let first = send_all_on(&mut engine, 0);
    let second = send_all_on(&mut engine, 1);
    assert_eq!((payloads(&first), payloads(&second)), (vec![0, 2], vec![1]));
    engine.lane_down(0, refused(Some(first[0].0)), NOW);
    engine.lane_up(0, NOW);
    engine.tick(NOW + FIRST_WAIT);
    assert!(send_all_on(&mut engine, trial).is_empty() && send_all_on(&mut engine, 0).is_empty());
    engine.receipt(1, second[0].0, NOW).unwrap();
    engine.tick(NOW + FIRST_WAIT);
    assert_eq!(payloads(&send_all_on(&mut engine, trial)), [0]);
}

#[test]
fn all_that_are_missing_at_once_are_set_aside_at_once() {
    let mut engine = ready();
    // A message each for two destinations that the broker never answers, the third is answered.
    read_these(&mut engine, 1, &[10_001, 20_001, 1, 2]);
    let sent = send_all(&mut engine);
    engine.receipt(0, sent[2].0, NOW).unwrap();
    let due = NOW + RECEIPT_TIMEOUT;
    engine.tick(due);
    let asked = std::iter::from_fn(|| engine.next_action()).last();
    let why = CloseReason::Missing(sent[0].0);
    assert_eq!(asked, Some(Action::Close { lane: 0, why }));
    engine.lane_down(0, LaneDown::Lost, due);
    engine.lane_up(0, due);
    let told = notices(&mut engine);
    let names: Vec<_> = told
        .iter()
        .map(|notice| match notice {
            Notice::Refused { destination, attempts: 1, .. } => destination.as_str(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(names, ["b", "c"]);
    assert_eq!(payloads(&send_all(&mut engine)), [2], "what nothing overtook is sent again");
}

#[test]
fn what_is_answered_before_its_lane_is_closed_is_not_missing() {
    let mut engine = ready();
    read_these(&mut engine, 1, &[10_001, 1]);
    let sent = send_all(&mut engine);
    engine.receipt(0, sent[1].0, NOW).unwrap();
    engine.tick(NOW + RECEIPT_TIMEOUT);
    while engine.next_action().is_some() {}
    read_these(&mut engine, 2, &[20_001]);
    engine.receipt(0, sent[0].0, NOW + RECEIPT_TIMEOUT).unwrap();
    engine.lane_down(0, LaneDown::Lost, NOW + RECEIPT_TIMEOUT);
    engine.lane_up(0, NOW + RECEIPT_TIMEOUT);
    assert_eq!(notices(&mut engine), []);
    assert_eq!(payloads(&send_all(&mut engine)), [20_001]);
}

/// Two destinations are set aside; the first is on trial, its probe has been unanswered for long.
fn hanging() -> (Engine<u64>, Duration) {
    let mut engine = ready();
    engine.lane_up(TRIAL, NOW);
    read_these(&mut engine, 1, &[10_001, 20_001]);
    let sent = send_all(&mut engine);
    for (receipt, _) in &sent {
        engine.lane_down(0, refused(Some(*receipt)), NOW);
        engine.lane_up(0, NOW);
        send_all(&mut engine);
    }
    let tried = NOW + FIRST_WAIT;
    engine.tick(tried);
    assert_eq!(payloads(&send_all_on(&mut engine, TRIAL)), [10_001]);
    engine.tick(tried + PROBE_AFTER);
    while engine.next_action().is_some() {}
    assert!(engine.blocked(TRIAL));
    (engine, tried + PROBE_AFTER + RECEIPT_TIMEOUT)
}

/// A lane has a receipt then.
fn answered(engine: &mut Engine<u64>, tx: u64, now: Duration) -> Option<Action> {
    read_these(engine, tx, &[tx]);
    let sent = send_all(engine);
    engine.receipt(0, sent[0].0, now).unwrap();
    engine.next_action()
}

#[test]
fn what_is_held_on_trial_loses_its_turn_while_others_are_answered() {
    let (mut engine, long) = hanging();
    engine.tick(long * 2);
    assert_eq!(engine.next_action(), None, "an alarm looks the same");
    assert_eq!(answered(&mut engine, 2, long), None, "it may have begun or ended just now");
    let later = long + PROBE_AFTER;
    let held = Action::Close { lane: TRIAL, why: CloseReason::Held };
    assert_eq!(answered(&mut engine, 3, later), Some(held));
    engine.lane_down(TRIAL, LaneDown::Lost, later);
    engine.lane_up(TRIAL, later);
    assert_eq!(engine.next_action(), None, "that was nobody's attempt");
    assert_eq!(payloads(&send_all_on(&mut engine, TRIAL)), [20_001]);
}

#[test]
fn an_alarm_that_ends_takes_nobody_their_turn() {
    let (mut engine, long) = hanging();
    assert_eq!(answered(&mut engine, 2, long), None);
    engine.probe_answered(TRIAL, long);
    assert_eq!(answered(&mut engine, 3, long + PROBE_AFTER), None);
}
