//! What is kept is tried, sent, given up.

use std::time::Duration;

use bytes::Bytes;
use walpost::store::undelivered::{Attempt, KeptState, NewRow, Parked};

use super::{Stage, from_table, message, messages};

const WAIT: Duration = Duration::from_secs(60);

async fn parked(stage: &Stage) -> Parked {
    stage.store.parked(stage.database.name()).await.unwrap()
}

#[tokio::test]
async fn the_first_that_retries_is_tried_and_the_attempt_is_counted_before() {
    let stage = Stage::new().await;
    stage.keep(&messages("/queue/b", 0..1)).await;
    stage.keep(&messages("/queue/a", 1..4)).await;
    let dead = NewRow { state: KeptState::Dead, ..message("/queue/a", 4) };
    stage.keep(&[dead]).await;
    stage.sql("UPDATE walpost.undelivered SET state = 'dead' WHERE place = 1");
    let attempt = async |destination: &str, newest_dead: bool| match stage
        .store
        .attempt(stage.holder(), destination, newest_dead, WAIT)
        .await
        .unwrap()
    {
        Attempt::Row(row) => Some((row.identity.unwrap().change.place, row.attempts)),
        Attempt::Nothing => None,
        Attempt::NotHeld => panic!("the slot is ours"),
    };
    assert_eq!(attempt("/queue/a", false).await, Some((2, 4)));
    assert_eq!(attempt("/queue/a", false).await, Some((2, 5)));
    assert_eq!(attempt("/queue/a", true).await, Some((4, 4)));
    assert_eq!(attempt("/queue/b", true).await, None);
    assert_eq!(attempt("/queue/c", false).await, None);
    let due = "place, attempts, coalesce(extract(epoch FROM next_attempt_at - now()) BETWEEN 30 AND 60, false)";
    assert_eq!(stage.rows(due), ["0|3|f", "1|3|f", "2|5|t", "3|3|f", "4|4|t"]);
    for former in stage.former() {
        let tried = stage.store.attempt(former, "/queue/a", false, WAIT).await.unwrap();
        assert_eq!(tried, Attempt::NotHeld);
    }
    assert_eq!(stage.rows("attempts"), ["3", "3", "5", "3", "4"]);
}

#[tokio::test]
async fn of_the_dead_the_newest_that_might_be_sent_is_tried() {
    let stage = Stage::new().await;
    let dead =
        |nth: u32, unfit| NewRow { state: KeptState::Dead, unfit, ..message("/queue/a", nth) };
    stage.keep(&[dead(0, false), dead(1, false), dead(2, true)]).await;
    let attempt =
        async || match stage.store.attempt(stage.holder(), "/queue/a", true, WAIT).await.unwrap() {
            Attempt::Row(row) => Some((row.identity.unwrap().change.place, row.id)),
            Attempt::Nothing => None,
            Attempt::NotHeld => panic!("the slot is ours"),
        };
    let (place, id) = attempt().await.unwrap();
    assert_eq!(place, 1);
    // It can't be sent after all.
    assert!(stage.store.bury(stage.holder(), id, "why").await.unwrap());
    assert_eq!(attempt().await.map(|row| row.0), Some(0));
    assert_eq!(stage.rows("unfit, attempts"), ["f|4", "t|4", "t|3"]);
    // An operator may know better.
    let all = walpost::store::undelivered::Which::Ids(vec![id]);
    stage.store.retry_undelivered(stage.database.name(), &all, &[]).await.unwrap();
    assert_eq!(stage.rows("unfit, state"), ["f|dead", "f|retrying", "t|dead"]);
}

#[tokio::test]
async fn rows_are_read_in_their_order_by_number_and_by_bytes() {
    let stage = Stage::new().await;
    let sized = |nth: u32, bytes: usize| NewRow {
        body: Some(Bytes::from(vec![b'x'; bytes])),
        ..message("/queue/a", nth)
    };
    stage.keep(&[sized(0, 100), message("/queue/b", 1), sized(2, 100), sized(3, 5_000)]).await;
    let no_body = NewRow { body: None, ..message("/queue/a", 4) };
    stage.keep(&[no_body, sized(5, 1), sized(6, 1)]).await;
    stage.sql("UPDATE walpost.undelivered SET state = 'dead' WHERE place = 5");
    let load = async |after: i64, messages: usize, bytes: usize| {
        let loaded = stage.store.load(stage.holder(), "/queue/a", after, messages, bytes).await;
        let loaded = loaded.unwrap().unwrap();
        let place = |row: &walpost::store::undelivered::KeptRow| {
            (row.identity.unwrap().change.place, row.id)
        };
        (loaded.rows.iter().map(place).collect::<Vec<_>>(), loaded.unread)
    };
    let places = |loaded: &(Vec<(u32, i64)>, u64)| {
        (loaded.0.iter().map(|(place, _)| *place).collect::<Vec<_>>(), loaded.1)
    };
    assert_eq!(places(&load(0, 100, 1 << 20).await), (vec![0, 2, 3, 4, 6], 0));
    assert_eq!(places(&load(0, 2, 1 << 20).await), (vec![0, 2], 3));
    let by_bytes = load(0, 100, 5_199).await;
    assert_eq!(places(&by_bytes), (vec![0, 2], 3));
    assert_eq!(places(&load(0, 100, 5_200).await), (vec![0, 2, 3, 4], 1));
    // One in any case.
    let behind = by_bytes.0[1].1;
    assert_eq!(places(&load(behind, 100, 10).await), (vec![3], 2));
    assert_eq!(places(&load(behind, 0, 0).await), (vec![3], 2));
    let last = load(0, 100, 1 << 20).await.0[4].1;
    assert_eq!(places(&load(last, 100, 100).await), (vec![], 0));
    for former in stage.former() {
        assert_eq!(stage.store.load(former, "/queue/a", 0, 10, 10).await.unwrap(), None);
    }
}

#[tokio::test]
async fn what_is_delivered_goes_unless_it_was_discarded_or_is_anothers() {
    let stage = Stage::new().await;
    stage.keep(&messages("/queue/a", 0..5)).await;
    stage.sql(
        "UPDATE walpost.undelivered SET state = 'dead' WHERE place = 1;
         UPDATE walpost.undelivered SET state = 'discarded' WHERE place = 2;
         UPDATE walpost.undelivered SET slot = 'another' WHERE place = 3",
    );
    let ids: Vec<i64> = stage.rows("id").iter().map(|id| id.parse().unwrap()).collect();
    for former in stage.former() {
        assert!(!stage.store.delivered(former, &ids[..4]).await.unwrap());
    }
    assert_eq!(stage.rows("id").len(), 5);
    assert!(stage.store.delivered(stage.holder(), &ids[..4]).await.unwrap());
    assert_eq!(stage.rows("place"), ["2", "3", "4"]);
    // Nothing is left to be done, which is well, too.
    assert!(stage.store.delivered(stage.holder(), &ids[..4]).await.unwrap());
}

#[tokio::test]
async fn a_refusal_is_noted() {
    let stage = Stage::new().await;
    stage.keep(&messages("/queue/a", 0..2)).await;
    let ids = stage.rows("id");
    let id = ids[0].parse().unwrap();
    for former in stage.former() {
        assert!(!stage.store.note(former, id, 9, "no", WAIT).await.unwrap());
    }
    assert_eq!(stage.rows("attempts"), ["3", "3"]);
    assert!(stage.store.note(stage.holder(), id, 9, "full\0", WAIT).await.unwrap());
    let noted = "attempts, error = E'full\\uFFFD', extract(epoch FROM next_attempt_at - now()) BETWEEN 30 AND 60";
    assert_eq!(stage.rows(noted), ["9|t|t", "3|f|f"]);
}

#[tokio::test]
async fn a_destination_is_given_up_as_a_whole() {
    let stage = Stage::new().await;
    stage.keep(&messages("/queue/a", 0..3)).await;
    stage.keep(&messages("/queue/b", 3..4)).await;
    stage.sql("UPDATE walpost.undelivered SET state = 'discarded' WHERE place = 0");
    for former in stage.former() {
        assert_eq!(stage.store.condemn(former, "/queue/a", &[]).await.unwrap(), None);
    }
    assert_eq!(stage.rows("state")[1], "retrying");
    assert_eq!(stage.store.condemn(stage.holder(), "/queue/a", &[]).await.unwrap(), Some(2));
    let states = "state, next_attempt_at IS NULL";
    assert_eq!(stage.rows(states), ["discarded|f", "dead|t", "dead|t", "retrying|f"]);
    assert_eq!(stage.store.condemn(stage.holder(), "/queue/a", &[]).await.unwrap(), Some(0));
}

/// More rows than are given up at once. The head is the last: until then, it is what it was.
#[tokio::test]
async fn a_flood_is_given_up_in_chunks() {
    let stage = Stage::new().await;
    stage.keep(&messages("/queue/a", 0..1)).await;
    stage.sql(
        "INSERT INTO walpost.undelivered (slot, state, message_id, destination)
         SELECT current_database(), 'retrying', n::text, '/queue/a' FROM generate_series(1, 12000) AS n;
         CREATE TABLE public.heads (state text);
         CREATE FUNCTION public.head() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO public.heads SELECT state FROM walpost.undelivered WHERE place = 0; RETURN NULL; END $$;
         CREATE TRIGGER head AFTER UPDATE ON walpost.undelivered FOR EACH STATEMENT EXECUTE FUNCTION public.head()",
    );
    let condemned = stage.store.condemn(stage.holder(), "/queue/a", &[]).await.unwrap();
    assert_eq!(condemned, Some(12_001));
    assert_eq!(
        stage.sql("SELECT string_agg(state, ' ') FROM public.heads"),
        "retrying retrying dead"
    );
    assert_eq!(stage.sql("SELECT count(*) FROM walpost.undelivered WHERE state = 'dead'"), "12001");
}

#[tokio::test]
async fn a_slot_sees_its_own_destinations() {
    let stage = Stage::new().await;
    assert_eq!(parked(&stage).await, Parked::default());
    stage.keep(&messages("/queue/b", 0..1)).await;
    stage.keep(&messages("/queue/a", 1..4)).await;
    stage.keep(&[NewRow { state: KeptState::Dead, ..message("/queue/c", 4) }]).await;
    stage.keep(&[NewRow { destination: None, ..message("", 5) }]).await;
    stage.keep(&messages("/queue/d", 6..8)).await;
    stage.sql(
        "UPDATE walpost.undelivered SET slot = 'another' WHERE place = 6;
         UPDATE walpost.undelivered SET state = 'discarded' WHERE place = 7;
         UPDATE walpost.undelivered SET attempts = 8, error = 'full', next_attempt_at = now() - interval '1 hour'
            WHERE place = 1;
         UPDATE walpost.undelivered SET attempts = 1, error = NULL, next_attempt_at = NULL WHERE place = 2",
    );
    let found = parked(&stage).await;
    assert_eq!((found.dead, found.retrying, found.destinations.len()), (2, 4, 2));
    let (b, a) = (&found.destinations[0], &found.destinations[1]);
    assert_eq!((b.destination.as_str(), b.retrying, b.attempts), ("/queue/b", 1, 3));
    assert!(b.next_in > Duration::from_secs(180) && b.next_in <= Duration::from_secs(240), "{b:?}");
    assert_eq!((a.destination.as_str(), a.retrying, a.attempts), ("/queue/a", 3, 8));
    assert_eq!((a.next_in, a.error.as_str()), (Duration::ZERO, "full"));
    assert_eq!(stage.store.parked("nobody").await.unwrap(), Parked::default());
}

/// What was discarded must be known until its message can't come again.
#[tokio::test]
async fn what_was_discarded_goes_when_it_cannot_come_again() {
    let stage = Stage::new().await;
    stage.keep(&messages("/queue/a", 0..3)).await;
    stage.keep(&[from_table("/queue/b", 3), from_table("/queue/b", 4)]).await;
    let slot = stage.database.name();
    stage.sql(
        "UPDATE walpost.undelivered SET state = 'discarded', body = NULL WHERE place IS DISTINCT FROM 2;
         UPDATE walpost.undelivered SET failed_at = now() - interval '23 hours'
             WHERE message_id = '/queue/b-3'",
    );
    let prune = async |state: &str| {
        stage.sql(state);
        stage.store.prune_discarded(slot).await.unwrap()
    };
    assert_eq!(prune("UPDATE walpost.relay SET confirmed_lsn = NULL").await, 0);
    assert_eq!(prune("UPDATE walpost.relay SET confirmed_lsn = '1/2000'").await, 0);
    assert_eq!(prune("UPDATE walpost.relay SET confirmed_lsn = '1/2001'").await, 2);
    assert_eq!(stage.rows("state"), ["retrying", "discarded", "discarded"]);
    let older = "UPDATE walpost.undelivered SET failed_at = failed_at - interval '2 hours'";
    stage.sql(older);
    // Of its own only.
    assert_eq!(stage.store.prune_discarded("nobody").await.unwrap(), 0);
    assert_eq!(prune("SELECT").await, 1);
    assert_eq!(stage.rows("message_id"), ["/queue/a-2", "/queue/b-4"]);
}
