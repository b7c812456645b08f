//! Bodies of any kind, and headers with anything in them.

use super::Desk;
use crate::rig::LONG;

/// Id, body, what the function gets and how that is called, and the two columns of the inbox.
type Case = (&'static str, &'static [u8], &'static str, &'static str, &'static str, &'static str);

#[test]
fn any_body_is_handled_and_kept() {
    let desk = Desk::new();
    let mut walpost = desk.called();
    let mut sender = desk.sender();
    let cases: [Case; 6] = [
        ("json", b" [1.50, \"\xc3\xbc\"]", "[1.50, \"\u{fc}\"]", "", "[1.50, \"\u{fc}\"]", ""),
        ("text", b"no: JSON\n", "\"no: JSON\\n\"", "text", "", "\\x6e6f3a204a534f4e0a"),
        ("binary", &[0, 255], "\"AP8=\"", "base64", "", "\\x00ff"),
        // JSON, but nothing for jsonb.
        ("nul", b"\"\\u0000\"", "\"\\\"\\\\u0000\\\"\"", "text", "", "\\x225c753030303022"),
        ("large", b"1e400000", "\"1e400000\"", "text", "", "\\x3165343030303030"),
        ("empty", b"", "null", "empty", "", ""),
    ];
    for (id, body, ..) in cases {
        sender.send("/amq/queue/q", &[("msg-id", id)], body);
    }
    desk.await_effects(cases.len() as u64);
    for (id, _, argument, encoding, kept, bytes) in cases {
        let effect = format!(
            "SELECT body, coalesce(headers ->> 'walpost-body-encoding', '') FROM effects WHERE id = '{id}'"
        );
        assert_eq!(desk.sql(&effect), format!("{argument}|{encoding}"), "{id}");
        let row = format!(
            "SELECT coalesce(body::text, ''), coalesce(body_bytes::text, ''),
                headers ? 'walpost-body-encoding' FROM walpost.inbox WHERE message_id = '{id}'"
        );
        assert_eq!(desk.sql(&row), format!("{kept}|{bytes}|f"), "{id}");
    }
    desk.await_empty("q");
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn headers_with_anything_in_them() {
    let desk = Desk::new();
    let mut walpost = desk.called();
    let (name, value) = ("a:b\\c\nd", "x:y\\z\r\n\u{fc}\"'");
    desk.sender().send("/amq/queue/q", &[("msg-id", "i'd\""), (name, value)], "{}");
    desk.await_effects(1);
    let header = "SELECT count(*) FROM effects WHERE headers ->> E'a:b\\\\c\\nd' = E'x:y\\\\z\\r\\n\u{fc}\"'''";
    assert_eq!(desk.sql(header), "1", "{}", desk.sql("SELECT headers FROM effects"));
    assert_eq!(desk.sql("SELECT message_id FROM walpost.inbox"), "i'd\"");
    assert!(walpost.terminate(LONG).success());
}
