//! `walpost undelivered`, as it is typed and answered.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use walpost::store::undelivered::{KeptState, NewRow};
use walpost_testkit::Postgres;
use walpost_testkit::walpost::Finished;

use super::{Stage, message, messages};
use crate::rig::{LONG, walpost};
use crate::scene::PUBLISHED;

impl Stage {
    fn walpost(&self, arguments: &[&str]) -> Finished {
        let arguments = ["undelivered"].iter().chain(arguments).copied();
        walpost()
            .arguments(arguments)
            .set("postgres.url", self.database.url())
            .set("replication.slot", self.database.name())
            .output(LONG)
    }

    /// What is said where all is well.
    #[track_caller]
    fn done(&self, arguments: &[&str]) -> String {
        let finished = self.walpost(arguments);
        assert!(finished.status.success() && finished.stderr.is_empty(), "{finished:?}");
        finished.stdout
    }

    /// The one line that says why it is not.
    #[track_caller]
    fn refused(&self, arguments: &[&str]) -> String {
        let finished = self.walpost(arguments);
        assert_eq!(finished.status.code(), Some(1), "{finished:?}");
        assert_eq!((finished.stdout.as_str(), finished.stderr.lines().count()), ("", 1));
        finished.stderr
    }
}

/// Rows 1 and 2 retry, 3 is dead, 4 can't be sent, 5 has no body, 6 is another slot's.
async fn stage() -> Stage {
    let stage = Stage::new().await;
    stage.keep(&messages("/queue/a", 0..2)).await;
    let dead = |nth: u32| NewRow { state: KeptState::Dead, ..message("/queue/b", nth) };
    let no_destination = NewRow { destination: None, ..dead(3) };
    let no_body = NewRow { body: None, ..dead(4) };
    stage.keep(&[dead(2), no_destination, no_body, message("/queue/a", 5)]).await;
    stage.sql("UPDATE walpost.undelivered SET slot = 'another' WHERE id = 6");
    assert_eq!(stage.rows("id"), ["1", "2", "3", "4", "5", "6"]);
    stage
}

#[tokio::test]
async fn the_list_shows_the_newest_first() {
    let stage = stage().await;
    let shown = stage.done(&["list"]);
    let words: Vec<Vec<&str>> =
        shown.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0].join(" "), "ID STATE DESTINATION MESSAGE ID ATTEMPTS NEXT AGE ERROR");
    let ids: Vec<_> = words[1..6].iter().map(|line| line[..4].join(" ")).collect();
    assert_eq!(
        ids,
        [
            "5 dead /queue/b /queue/b-4",
            "4 dead - /queue/b-3",
            "3 dead /queue/b /queue/b-2",
            "2 retrying /queue/a /queue/a-1",
            "1 retrying /queue/a /queue/a-0",
        ]
    );
    assert_eq!((words[1][5], words[4][5], words[1][7]), ("-", "in", "not_found"));
    assert_eq!(words[6].join(" "), "total: 2 retrying, 3 dead");
    let counts: Vec<_> = shown.lines().skip(7).collect();
    let expected = ["  /queue/a: 2 retrying", "  /queue/b: 2 dead", "  (no destination): 1 dead"];
    assert_eq!(counts, expected);

    let ids = |arguments: &[&str]| -> Vec<i64> {
        let arguments: Vec<&str> = ["list", "--json"].iter().chain(arguments).copied().collect();
        let objects = stage.done(&arguments);
        let id = |line: &str| serde_json::from_str::<Value>(line).unwrap()["id"].as_i64().unwrap();
        objects.lines().map(id).collect()
    };
    assert_eq!(ids(&[]), [5, 4, 3, 2, 1]);
    assert_eq!(ids(&["--limit", "2"]), [5, 4]);
    assert_eq!(ids(&["--state", "retrying"]), [2, 1]);
    assert_eq!(ids(&["--destination", "/queue/b"]), [5, 3]);
    assert_eq!(ids(&["--destination", "/queue/b", "--state", "retrying"]), [0; 0]);
    let few = stage.done(&["list", "--limit", "1", "--state", "dead"]);
    assert!(few.contains("… and 2 more (--all, or --limit N, shows them)\n"), "{few}");
    let none = stage.done(&["list", "--state", "discarded"]);
    assert_eq!(
        none,
        format!("nothing to list in walpost.undelivered (slot {})", stage.database.name())
    );
}

#[tokio::test]
async fn a_long_list_is_cut_unless_all_is_asked_for() {
    let stage = Stage::new().await;
    stage.keep(&messages("/queue/a", 0..150)).await;
    let shown = stage.done(&["list"]);
    assert_eq!(shown.lines().filter(|line| line.contains("retrying  ")).count(), 100, "{shown}");
    assert!(shown.contains("… and 50 more") && shown.ends_with("/queue/a: 150 retrying"));
    assert_eq!(stage.done(&["list", "--all"]).lines().count(), 151);
    assert_eq!(stage.done(&["list", "--json"]).lines().count(), 150);
}

#[tokio::test]
async fn json_has_the_facts() {
    let stage = Stage::new().await;
    let row = NewRow {
        key: Some("k".to_owned()),
        table: Some((1, "walpost.outbox".to_owned())),
        ..message("/queue/a", 0)
    };
    stage.keep(&[row]).await;
    stage.sql("UPDATE walpost.undelivered SET failed_at = '2026-01-31 12:00+00', next_attempt_at = '2030-01-01 00:00+00'");
    let found: Value = serde_json::from_str(&stage.done(&["list", "--json"])).unwrap();
    let expected = serde_json::json!({
        "id": 1, "state": "retrying", "destination": "/queue/a", "message_id": "/queue/a-0", "key": "k",
        "attempts": 3, "next_attempt_at": "2030-01-01T00:00:00Z", "failed_at": "2026-01-31T12:00:00Z",
        "error": "not_found", "table": "walpost.outbox", "lsn": "1/2000", "body_bytes": 2,
    });
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_message_is_shown_whole() {
    let stage = Stage::new().await;
    let text = NewRow {
        headers: vec![("a".to_owned(), "b\nc".to_owned()), ("msg-id".to_owned(), "7".to_owned())],
        body: Some(Bytes::from_static("{\"name\": \"é\"}".as_bytes())),
        ..message("/queue/a", 0)
    };
    let bytes = NewRow { body: Some(Bytes::from_static(b"\x00\xff")), ..message("/queue/a", 1) };
    stage.keep(&[text, bytes]).await;
    stage.sql(
        "UPDATE walpost.undelivered SET next_attempt_at = '2030-01-01 00:00+00',
            failed_at = now() - interval '49 hours'",
    );
    let failed_at = stage.sql(
        "SELECT to_char(failed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')
        FROM walpost.undelivered WHERE id = 1",
    );
    assert_eq!(
        stage.done(&["show", "1"]),
        format!(
            "\
id:           1
state:        retrying
destination:  /queue/a
message id:   /queue/a-0
key:          -
attempts:     3
next attempt: 2030-01-01T00:00:00Z
failed at:    {failed_at} (2d ago)
error:        not_found
table:        -
committed:    2026-06-28T22:13:20.123456Z, transaction 4000000000, at 1/2000
headers:
  a: b\\nc
  msg-id: 7
body (14 bytes):
{{\"name\": \"é\"}}"
        )
    );
    assert_eq!(stage.done(&["show", "1", "--body"]), "{\"name\": \"é\"}");
    assert!(stage.done(&["show", "2"]).contains("body (2 bytes):\n00000000  00 ff "));
    let unknown = stage.refused(&["show", "9"]);
    let said = format!("there is no message 9 of slot {}:", stage.database.name());
    assert!(unknown.contains(&said), "{unknown}");
    stage.done(&["discard", "2"]);
    assert!(stage.refused(&["show", "2", "--body"]).contains("message 2 has no body"));
    assert!(stage.done(&["show", "2"]).ends_with("body: -"));
}

#[tokio::test]
async fn what_is_dead_is_tried_again_and_what_retries_is_due() {
    let stage = stage().await;
    let due = "state, attempts, coalesce(next_attempt_at <= now(), false)";
    assert_eq!(stage.done(&["retry", "1"]), "1 message that retries is due now");
    assert_eq!(stage.done(&["retry", "3", "3"]), "1 message was dead and is tried again");
    let retrying = ["retrying|3|t", "retrying|3|f", "retrying|0|t", "dead|3|f", "dead|3|f"];
    assert_eq!(stage.rows(due)[..5], retrying);

    // One that can't be stands for all: nothing is changed.
    let unknown = stage.refused(&["retry", "2", "6", "99"]);
    assert!(unknown.contains("there is no message 6, 99 of slot"), "{unknown}");
    assert!(unknown.contains("nothing was changed"), "{unknown}");
    let unsendable = stage.refused(&["retry", "2", "4"]);
    assert!(unsendable.contains("message 4 can't be sent, since its destination"), "{unsendable}");
    assert!(unsendable.contains("'walpost undelivered discard 4'"), "{unsendable}");
    assert!(stage.refused(&["retry", "2", "5"]).contains("its body was too long"));
    assert_eq!(stage.rows(due)[..5], retrying);

    assert_eq!(
        stage.done(&["retry", "--destination", "/queue/a"]),
        "2 messages that retry are due now"
    );
    let nothing = stage.refused(&["retry", "--destination", "/queue/c"]);
    assert!(nothing.contains("no message to /queue/c waits in slot"), "{nothing}");
    stage.sql("UPDATE walpost.undelivered SET state = 'dead' WHERE id IN (2, 3)");
    let all = stage.done(&["retry", "--all"]);
    assert!(all.starts_with("2 messages were dead and are tried again\n1 message that retries is due now\n2 messages can't be sent and stay: "), "{all}");
    assert_eq!(stage.rows("state").concat(), "retryingretryingretryingdeaddeadretrying");
    // The other slot's is its own.
    assert_eq!(stage.rows(due)[5], "retrying|3|f");
}

#[tokio::test]
async fn what_is_discarded_leaves_a_tombstone() {
    let stage = stage().await;
    let unknown = stage.refused(&["discard", "1", "99"]);
    assert!(unknown.contains("no message 99 of slot") && unknown.contains("nothing was changed"));
    assert_eq!(stage.rows("state")[0], "retrying");
    assert_eq!(stage.done(&["discard", "1", "3", "4"]), "3 messages discarded");
    let left =
        "state, headers IS NULL AND body IS NULL AND next_attempt_at IS NULL, lsn IS NOT NULL";
    assert_eq!(stage.rows(left)[0], "discarded|t|t");
    assert_eq!(stage.rows("state").concat(), "discardedretryingdiscardeddiscardeddeadretrying");
    let again = stage.done(&["discard", "1", "2"]);
    assert_eq!(again, "1 message discarded\n1 had been discarded before");
    let refused = stage.refused(&["retry", "1"]);
    assert!(refused.contains("message 1 was discarded, and its body is gone"), "{refused}");
    // What the slot sends again does not come back.
    stage.keep(&messages("/queue/a", 0..1)).await;
    assert_eq!(stage.rows("id").len(), 6);
    assert_eq!(stage.done(&["list", "--json"]).lines().count(), 1);
    assert_eq!(stage.done(&["list", "--json", "--state", "discarded"]).lines().count(), 4);
}

/// The predecessor's table says what an operator has done, too.
#[test]
fn the_outbox_of_the_predecessor_hears_of_it() {
    let database = Postgres::shared().fresh_database();
    database.sql(PUBLISHED);
    let django = |arguments: &[&str]| {
        let finished = walpost()
            .arguments(arguments.iter().copied())
            .set("postgres.url", database.url())
            .set("replication.slot", database.name())
            .set("outbox.layout", "django")
            .output(LONG);
        assert!(finished.status.success(), "{finished:?}");
        finished.stdout
    };
    django(&["init"]);
    let id = "018f4c9e-0000-4000-8000-000000000001";
    database.sql(&format!(
        "INSERT INTO public.published VALUES ('{id}', 'v1', '/queue/a', '{{}}', now(), now(), 50, -1);
         INSERT INTO walpost.undelivered (slot, state, message_id, destination, headers, body, table_oid, table_name)
         VALUES (current_database(), 'dead', '{id}', '/queue/a', '{{}}', '{{}}', 'public.published'::regclass,
             'public.published')"
    ));
    let status = || database.sql("SELECT status FROM public.published");
    assert_eq!(django(&["undelivered", "retry", "1"]), "1 message was dead and is tried again");
    assert_eq!(status(), "1");
    assert_eq!(django(&["undelivered", "discard", "1"]), "1 message discarded");
    assert_eq!(status(), "-1");
}

#[test]
fn a_database_without_the_table_is_told_from_an_empty_one() {
    let database = Postgres::shared().fresh_database();
    let list = |url: String| {
        let list = walpost().arguments(["undelivered", "list"]).set("postgres.url", url);
        list.set("postgres.connect_timeout", "1s").output(LONG)
    };
    let missing = list(database.url());
    assert_eq!(missing.status.code(), Some(1));
    let said = "error: table walpost.undelivered does not exist: 'walpost init' makes it";
    assert_eq!(missing.stderr, said);
    let down = list("postgresql://postgres@127.0.0.1:1/postgres".to_owned());
    assert_eq!(down.status.code(), Some(1));
    assert!(down.stderr.starts_with("error: connecting to PostgreSQL: 127.0.0.1:1"), "{down:?}");
}

#[test]
fn wrong_usage_is_told_before_anything_is_asked() {
    for (arguments, said) in [
        (&["retry"][..], "required arguments were not provided"),
        (&["retry", "1", "--all"], "cannot be used with"),
        (&["retry", "--all", "--destination", "d"], "cannot be used with"),
        (&["retry", "0"], "0 is not in 1.."),
        (&["discard"], "required arguments were not provided"),
        (&["list", "--all", "--limit", "3"], "cannot be used with"),
        (&["list", "--state", "alive"], "possible values: retrying, dead, discarded"),
        (&["show"], "required arguments were not provided"),
    ] {
        let finished = walpost()
            .arguments(["undelivered"].iter().chain(arguments).copied())
            .output(Duration::from_secs(10));
        assert_eq!(finished.status.code(), Some(2), "{finished:?}");
        assert!(finished.stderr.contains(said), "{arguments:?}: {}", finished.stderr);
    }
}
