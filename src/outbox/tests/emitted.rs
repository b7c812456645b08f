//! Logical messages, and what `walpost.emit` makes of them.

use proptest::prelude::*;

use super::*;
use crate::pgoutput::Logical;

fn logical<'a>(prefix: &'a str, content: &'a [u8]) -> Logical<'a> {
    Logical { transactional: true, lsn: Lsn(1), prefix, content }
}

fn outbox_of(settings: Settings) -> Outbox {
    Outbox::new(settings).unwrap()
}

fn row(outbox: &mut Outbox, content: &str) -> Row {
    outbox.logical(&logical("walpost", content.as_bytes()), &context())
}

#[test]
fn only_ours_is_read() {
    let mut outbox = outbox_of(settings(LayoutKind::Walpost));
    let mut of = |transactional, prefix| {
        outbox.logical(&Logical { transactional, ..logical(prefix, b"x") }, &context())
    };
    assert_eq!(of(true, "other"), Row::Skipped(SkipReason::OtherPrefix));
    assert_eq!(of(false, "other"), Row::Skipped(SkipReason::OtherPrefix));
    assert_eq!(of(false, "walpost"), Row::Skipped(SkipReason::NonTransactional));
    assert!(matches!(of(true, "walpost"), Row::Unfit(_)));
    let off = Settings { logical_prefix: None, ..settings(LayoutKind::Walpost) };
    let row = outbox_of(off).logical(&logical("", b""), &context());
    assert_eq!(row, Row::Skipped(SkipReason::OtherPrefix));
}

#[test]
fn it_is_what_the_same_row_would_be() {
    let mut outbox = outbox_of(settings(LayoutKind::Walpost));
    let line = r#"{"id": "7", "key": "k", "bytes": false, "headers": {"a": "b:c"}, "version": "v1", "destination": "/queue/q"}"#;
    let content = format!("{line}\n{}", "{\"n\": 1}\n");
    let Row::Message(message, dropped) = row(&mut outbox, &content) else { panic!() };
    assert_eq!((message.id(), message.destination(), message.key()), ("7", "/queue/q.v1", "k"));
    assert_eq!(message.body_slice(), b"{\"n\": 1}\n");
    assert_eq!(message.header("a"), Some("b:c"));
    assert_eq!(message.header("content-type"), Some("application/json"));
    assert_eq!(message.header("msg-id"), Some("7"));
    assert_eq!((message.table(), dropped.0), (None, 0));
    assert_eq!(message.unfit(), None);

    let binary = "{\"id\": \"8\", \"destination\": \"/queue/q\", \"bytes\": true}\n\n\0";
    let Row::Message(message, _) = row(&mut outbox, binary) else { panic!() };
    assert_eq!((message.destination(), message.body_slice()), ("/queue/q", &b"\n\0"[..]));
    assert_eq!(message.header("content-type"), Some("application/octet-stream"));
    // No body, and no end of the line.
    let bare = r#"{"id": "9", "destination": "/queue/q"}"#;
    let Row::Message(message, _) = row(&mut outbox, bare) else { panic!() };
    assert_eq!(message.body_slice(), b"");
}

#[test]
fn a_version_of_its_own_whatever_the_layout() {
    let mut outbox = outbox_of(settings(LayoutKind::Django));
    let line = r#"{"id": "7", "version": "v2", "destination": "/queue/q"}"#;
    let Row::Message(message, _) = row(&mut outbox, line) else { panic!() };
    assert_eq!(message.destination(), "/queue/q.v2");
}

#[test]
fn what_nobody_can_read_or_send_is_kept() {
    let mut outbox = outbox_of(settings(LayoutKind::Walpost));
    let mut unfit = |content: &str| {
        let Row::Unfit(unfit) = row(&mut outbox, content) else { panic!("{content}") };
        let kept = outbox.salvaged().unwrap();
        (unfit.id, unfit.reason, kept.id().to_owned(), kept.body_slice().to_vec())
    };
    for content in [
        "",
        "x",
        "[]\nbody",
        r#"{"id": 1}"#,
        "{\"id\": \"1\", \"destination\": \"q\", \"body\": 1}",
    ] {
        let (id, reason, kept, body) = unfit(content);
        assert!(matches!(reason, UnfitReason::NotEmitted { .. }), "{content}: {reason:?}");
        assert_eq!((id, kept.as_str(), body), (None, "", content.as_bytes().to_vec()));
    }
    let (id, reason, kept, body) = unfit("{\"id\": \"1\", \"destination\": \"\"}\nbody");
    assert_eq!((id.as_deref(), reason), (Some("1"), UnfitReason::NoDestination));
    assert_eq!((kept.as_str(), body), ("1", b"body".to_vec()));
    let (id, reason, ..) = unfit("{\"id\": \"\", \"destination\": \"q\"}\nbody");
    assert_eq!((id, reason), (None, UnfitReason::NoId));
    let (_, reason, ..) = unfit("{\"id\": \"1\", \"destination\": \"q\", \"headers\": []}\nbody");
    assert!(matches!(reason, UnfitReason::HeadersNotAnObject { .. }), "{reason:?}");
}

#[test]
fn one_too_long_to_be_read_is_known_by_its_first_line() {
    let mut outbox = outbox_of(settings(LayoutKind::Walpost));
    let beginning = b"{\"id\": \"1\", \"destination\": \"/queue/q\"}\nbo";
    let Row::Unfit(unfit) = outbox.truncated_logical("walpost", beginning) else { panic!() };
    assert_eq!((unfit.id.as_deref(), unfit.reason), (Some("1"), UnfitReason::TooLong));
    let kept = outbox.salvaged().unwrap().as_unfit(String::new());
    assert_eq!((kept.id(), kept.is_whole()), ("1", false));
    let Row::Unfit(unfit) = outbox.truncated_logical("walpost", &beginning[..9]) else { panic!() };
    assert_eq!((unfit.id, unfit.reason), (None, UnfitReason::TooLong));
    let other = outbox.truncated_logical("walpos", beginning);
    assert_eq!(other, Row::Skipped(SkipReason::OtherPrefix));
}

#[test]
fn each_is_one_shards() {
    let takes = |index, content: &str| {
        let shard = Shard { index, count: 2 };
        let mut outbox = outbox_of(Settings { shard, ..settings(LayoutKind::Walpost) });
        let row = row(&mut outbox, content);
        let long = outbox.truncated_logical("walpost", content.as_bytes());
        let skipped = Row::Skipped(SkipReason::OtherShard);
        assert_eq!(row == skipped, long == skipped, "{content}");
        row != skipped
    };
    let of = |rest: &str| [0, 1].map(|index| takes(index, &format!(r#"{{"id": "1", {rest}}}"#)));
    // The hash of a is odd, that of abcd even and negative.
    assert_eq!(of(r#""destination": "a", "bytes": false"#), [false, true]);
    assert_eq!(of(r#""destination": "a", "key": "abcd""#), [true, false]);
    assert_eq!(of(r#""destination": "abcd""#), [true, false]);
    assert_eq!(of(r#""destination": "abcd", "key": "a""#), [false, true]);
    assert_eq!(of(r#""destination": "abcd", "key": """#), [true, false]);
    assert_eq!(of(r#""destination": "abcd", "key": null"#), [true, false]);
    assert_eq!(of(r#""destination": "\u0061bcd""#), [true, false]);
    // For whom these are is not known: one of them keeps them.
    for unknown in [r#""key": "abcd""#, r#""destination": 1"#] {
        let takers = of(unknown);
        assert_eq!(takers.iter().filter(|takes| **takes).count(), 1, "{unknown}");
    }
}

proptest! {
    #[test]
    fn every_body_comes_through(
        body in prop::collection::vec(any::<u8>(), 0..200),
        destination in "[^\0]{1,20}",
        key in proptest::option::of("[^\0]{1,20}"),
    ) {
        let mut outbox = outbox_of(settings(LayoutKind::Walpost));
        let line = serde_json::json!({"id": "1", "destination": destination, "key": key, "bytes": true});
        let mut content = format!("{line}\n").into_bytes();
        content.extend(&body);
        let Row::Message(message, _) = outbox.logical(&logical("walpost", &content), &context()) else {
            return Err(TestCaseError::fail("no message"));
        };
        prop_assert_eq!(message.body_slice(), body.as_slice());
        prop_assert_eq!(message.destination(), destination);
        prop_assert_eq!(message.key(), key.unwrap_or_default());
    }

    /// Every strict prefix, and anything else, is a message or kept: no panic, nothing passed over.
    #[test]
    fn anything_under_our_prefix_is_a_message_or_kept(content in prop::collection::vec(any::<u8>(), 0..80), cut in 0..200_usize) {
        let mut outbox = outbox_of(settings(LayoutKind::Walpost));
        let whole = b"{\"id\": \"1\", \"destination\": \"/queue/q\", \"headers\": {\"a\": \"b\"}}\nbody";
        for content in [&content[..], &whole[..cut.min(whole.len())]] {
            match outbox.logical(&logical("walpost", content), &context()) {
                Row::Message(..) => {}
                Row::Unfit(_) => prop_assert!(outbox.salvaged().is_some()),
                Row::Skipped(reason) => return Err(TestCaseError::fail(format!("{reason:?}"))),
            }
        }
    }
}
