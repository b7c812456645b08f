//! What is kept comes out as it went in, once, in its order.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use walpost::store::undelivered::{Attempt, KeptState, NewRow};

use super::{Stage, from_table, message, messages};

/// One of everything.
fn full() -> NewRow {
    NewRow {
        key: Some("customer 7".to_owned()),
        headers: vec![("a".to_owned(), "é".to_owned()), ("b".to_owned(), String::new())],
        body: Some(Bytes::from_static(b"\x00\xff{}")),
        table: Some((16_385, "shop.My outbox".to_owned())),
        ..message("/queue/a", 0)
    }
}

#[tokio::test]
async fn a_message_comes_out_as_it_went_in() {
    let stage = Stage::new().await;
    let put_in = full();
    stage.keep(std::slice::from_ref(&put_in)).await;
    let wait = Duration::from_secs(60);
    let attempt = stage.store.attempt(stage.holder(), "/queue/a", false, wait).await.unwrap();
    let Attempt::Row(row) = attempt else { panic!("{attempt:?}") };
    assert_eq!((row.attempts, row.identity), (put_in.attempts + 1, put_in.identity));
    assert_eq!((&row.message_id, &row.destination), (&put_in.message_id, &put_in.destination));
    assert_eq!((&row.key, &row.headers), (&put_in.key, &put_in.headers));
    assert_eq!((&row.body, &row.table), (&put_in.body, &put_in.table));
    // What a log could show.
    assert!(!format!("{put_in:?} {row:?}").contains("ff{}"));

    let shown = "slot = current_database(), state, lsn, change_lsn, place, xid, commit_time AT TIME ZONE 'UTC',
        error, failed_at BETWEEN now() - interval '1 minute' AND clock_timestamp(), table_oid, table_name,
        round(extract(epoch FROM next_attempt_at - clock_timestamp())) BETWEEN 30 AND 60";
    assert_eq!(
        stage.rows(shown),
        [
            "t|retrying|1/2000|1/1000|0|4000000000|2026-06-28 22:13:20.123456|not_found|t|16385|shop.My outbox|t"
        ]
    );
}

#[tokio::test]
async fn ids_rise_in_the_order_given() {
    let stage = Stage::new().await;
    // Neither the order of the identities nor that of the names.
    let nths = [5, 3, 9, 0, 7];
    let rows: Vec<_> = nths.iter().map(|nth| message("/queue/a", *nth)).collect();
    stage.keep(&rows[..3]).await;
    stage.keep(&rows[3..]).await;
    stage.keep(&messages("/queue/b", 10..1010)).await;
    let kept = stage.rows("place");
    let expected: Vec<String> =
        nths.iter().copied().chain(10..1010).map(|nth| nth.to_string()).collect();
    assert_eq!(kept, expected);
}

#[tokio::test]
async fn what_the_slot_sends_again_is_kept_once() {
    let stage = Stage::new().await;
    let row = message("/queue/a", 0);
    stage.keep(&[row.clone(), row.clone()]).await;
    let again = NewRow { state: KeptState::Dead, attempts: 50, ..row.clone() };
    stage.keep(&[again, message("/queue/a", 1)]).await;
    assert_eq!(stage.rows("place, state, attempts"), ["0|retrying|3", "1|retrying|3"]);

    // Any part of the identity makes it another one.
    let mut others = vec![row.clone(); 5];
    let changed = |row: &mut NewRow, change: fn(&mut walpost::store::undelivered::Identity)| {
        change(row.identity.as_mut().unwrap());
    };
    changed(&mut others[0], |of| of.commit_lsn.0 += 1);
    changed(&mut others[1], |of| of.xid += 1);
    changed(&mut others[2], |of| of.commit_time.0 += 1);
    changed(&mut others[3], |of| of.change.lsn.0 += 1);
    changed(&mut others[4], |of| of.change.place += 2);
    stage.keep(&others).await;
    assert_eq!(stage.rows("id").len(), 7);
    // Another slot's rows are no business of ours.
    stage.sql("UPDATE walpost.undelivered SET slot = 'another'");
    stage.keep(&[row]).await;
    assert_eq!(stage.rows("id").len(), 8);
}

#[tokio::test]
async fn what_is_read_from_the_table_again_is_kept_once() {
    let stage = Stage::new().await;
    let row = from_table("/queue/a", 0);
    stage.keep(std::slice::from_ref(&row)).await;
    stage.keep(std::slice::from_ref(&row)).await;
    assert_eq!(stage.rows("place IS NULL AND lsn IS NULL AND xid IS NULL"), ["t"]);
    // Whatever its state, and however it came.
    stage.sql("UPDATE walpost.undelivered SET state = 'discarded', headers = NULL, body = NULL");
    stage.keep(std::slice::from_ref(&row)).await;
    let by_the_slot = NewRow { table: row.table.clone(), ..message("/queue/b", 0) };
    let by_reading = NewRow { identity: None, ..by_the_slot.clone() };
    stage.keep(&[by_the_slot]).await;
    stage.keep(&[by_reading]).await;
    assert_eq!(stage.rows("state, lsn IS NULL"), ["discarded|t", "retrying|f"]);

    // Numbers that two tables have given, that were given twice, and rows without any.
    let other_table = NewRow { table: Some((16_500, "b".to_owned())), ..row.clone() };
    stage.sql(
        "UPDATE walpost.undelivered SET state = 'dead', body = '{}' WHERE state = 'discarded'",
    );
    let other_body = NewRow { body: Some(Bytes::from_static(b"[]")), ..row.clone() };
    let no_id = NewRow { message_id: None, ..row.clone() };
    stage.keep(&[other_table, other_body, no_id]).await;
    assert_eq!(stage.rows("id").len(), 5);
    stage.keep(std::slice::from_ref(&row)).await;
    assert_eq!(stage.rows("id").len(), 5);
    stage.sql("UPDATE walpost.undelivered SET slot = 'another'");
    stage.keep(&[row]).await;
    assert_eq!(stage.rows("id").len(), 6);
}

#[tokio::test]
async fn whoever_no_longer_has_the_slot_keeps_nothing() {
    let stage = Stage::new().await;
    let rows = messages("/queue/a", 0..2);
    for former in stage.former() {
        assert_eq!(stage.store.keep(former, &rows, &[]).await.unwrap(), None);
    }
    assert_eq!(stage.rows("id"), [""; 0]);
    assert!(stage.store.keep(stage.holder(), &rows, &[]).await.unwrap().is_some());
    assert_eq!(stage.rows("id").len(), 2);
}

#[tokio::test]
async fn the_position_lies_behind_the_commit() {
    let stage = Stage::new().await;
    // The last thing before the commit record is written.
    stage.sql(
        "CREATE TABLE public.commits (lsn pg_lsn);
         CREATE FUNCTION public.commits() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO public.commits VALUES (pg_current_wal_insert_lsn()); RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER commits AFTER INSERT ON walpost.undelivered
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.commits()",
    );
    for nth in 0..5 {
        let end = stage.keep(&[message("/queue/a", nth)]).await;
        assert_eq!(stage.sql(&format!("SELECT max(lsn) < '{end}' FROM public.commits")), "t");
        let now = "SELECT pg_current_wal_insert_lsn()";
        assert_eq!(stage.sql(&format!("SELECT '{end}' <= ({now})")), "t");
    }
}

#[tokio::test]
async fn anything_can_be_kept() {
    let stage = Stage::new().await;
    let long = "a long name; ".repeat(1_000_000 / 13);
    let rows = [
        // As long as an index could never hold, and not to be compressed.
        NewRow {
            message_id: Some(random_text(10_000)),
            key: Some(random_text(10_000)),
            headers: vec![(random_text(5_000), long.clone())],
            error: long,
            ..message(&random_text(10_000), 0)
        },
        NewRow { body: Some(Bytes::from(vec![0xa5; 4 << 20])), ..message("/queue/large", 1) },
        NewRow { body: Some(Bytes::new()), headers: Vec::new(), ..message("", 2) },
        // Unfit, and not even that is all right.
        NewRow {
            message_id: Some("a\0b".to_owned()),
            destination: None,
            headers: vec![("n\0".to_owned(), "\0\u{1}\"\\\u{FFFF}".to_owned())],
            body: None,
            error: "NUL: \0".to_owned(),
            attempts: u32::MAX,
            next_in: Some(Duration::MAX),
            ..message("", 3)
        },
        NewRow { next_in: Some(Duration::MAX), ..message("a\0b", 4) },
    ];
    stage.keep(&rows).await;
    let shown = "state, coalesce(length(destination), -1), coalesce(length(body), -1), next_attempt_at IS NULL";
    assert_eq!(
        stage.rows(shown),
        [
            "retrying|10000|2|f",
            "retrying|12|4194304|f",
            "retrying|0|0|f",
            "dead|-1|-1|t",
            "retrying|3|2|f",
        ]
    );
    for row in &rows {
        let Some(destination) = &row.destination else { continue };
        let tried = stage.store.attempt(stage.holder(), destination, false, Duration::ZERO).await;
        let Attempt::Row(tried) = tried.unwrap() else { panic!("{row:?}") };
        assert_eq!(tried.body, row.body);
    }
    let unfit = "message_id = E'a\\uFFFDb' AND error = E'NUL: \\uFFFD' AND headers ? E'n\\uFFFD' AND attempts > 0";
    assert_eq!(stage.rows(unfit)[3], "t");
}

#[test]
fn any_texts_come_out_as_they_went_in() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let stage = runtime.block_on(Stage::new());
    let texts = proptest::collection::btree_map("[^\\x00]{0,12}", "[^\\x00]{0,12}", 0..4);
    let body = proptest::collection::vec(any::<u8>(), 0..40);
    let row = ("[^\\x00]{0,20}", texts, body, any::<i64>(), any::<u32>(), any::<u64>());
    let nth = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(Config { cases: 64, ..Config::default() });
    let tried = runner.run(&row, |(destination, headers, body, time, xid, lsn)| {
        nth.set(nth.get() + 1);
        let mut row = message(&destination, nth.get());
        row.headers = headers.into_iter().collect();
        row.body = Some(body.into());
        let identity = row.identity.as_mut().unwrap();
        // PostgreSQL's times end in the year 294276, and begin in 4713 BC.
        identity.commit_time.0 = time % 9_000_000_000_000_000_000;
        identity.commit_time.0 = identity.commit_time.0.max(-200_000_000_000_000_000);
        (identity.xid, identity.commit_lsn.0, identity.change.lsn.0) = (xid, lsn, lsn / 2);
        runtime.block_on(stage.keep(std::slice::from_ref(&row)));
        let tried = stage.store.attempt(stage.holder(), &destination, false, Duration::ZERO);
        let Attempt::Row(tried) = runtime.block_on(tried).unwrap() else { panic!("{row:?}") };
        prop_assert_eq!((tried.identity, &tried.destination), (row.identity, &row.destination));
        prop_assert_eq!((&tried.headers, &tried.body), (&row.headers, &row.body));
        assert!(runtime.block_on(stage.store.delivered(stage.holder(), &[tried.id])).unwrap());
        Ok(())
    });
    tried.unwrap();
}

/// A text that does not get shorter.
fn random_text(length: usize) -> String {
    let mut random = fastrand::Rng::with_seed(length as u64);
    (0..length).map(|_| random.alphanumeric()).collect()
}
