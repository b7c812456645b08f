//! Layout `django`: the tables of django-outbox-pattern.

use super::*;

/// The table of version 0.7.0.
fn published() -> Table {
    let columns = vec![
        ("id", UUID),
        ("version", TEXT),
        ("destination", TEXT),
        ("body", JSONB),
        ("added", TIMESTAMPTZ),
        ("expires_at", TIMESTAMPTZ),
        ("retry", INT4),
        ("status", INT4),
    ];
    Table { oid: 16_500, schema: "public", name: "published", columns }
}

fn row(table: &Table, destination: &str, body: &str, status: &str) -> Bytes {
    table.row(&[
        ("id", ID),
        ("version", "v1"),
        ("destination", destination),
        ("body", body),
        ("added", "2026-01-31 11:59:59.5+00"),
        ("expires_at", "2026-03-02 11:59:59.5+00"),
        ("retry", "0"),
        ("status", status),
    ])
}

/// The bodies are what the README of version 0.7.0 prints under "Usage/Examples".
#[test]
fn the_examples_of_its_readme() {
    let table = published();
    let mut outbox = outbox(settings(LayoutKind::Django), &table);
    for (destination, body) in [
        (
            "/topic/my_route_key.v1",
            r#"{"id": 1, "field_one": "Field One", "field_two": "Field Two"}"#,
        ),
        ("/topic/my_route_key.v1", r#"{"id": 1, "field_one": "Field One"}"#),
        ("/topic/my_route_key.v1", r#"{"id": 1, "one": "Field One", "two": "Field Two"}"#),
        ("/topic/my_route_key_1.v1", r#"{"id": 1, "one": "Field One"}"#),
        ("/topic/my_route_key_2.v1", r#"{"id": 1, "two": "Field Two"}"#),
    ] {
        let message = message(&mut outbox, &row(&table, destination, body, "1"));
        assert_eq!(message.destination(), destination);
        assert_eq!(message.body_slice(), body.as_bytes());
        assert_eq!(
            headers(&message),
            [
                ("content-type", "application/json"),
                ("msg-id", ID),
                ("msg-destination", destination),
                ("msg-type", "Published"),
                ("msg-sent-time", "2026-01-31 12:00:00.123456+00:00"),
                ("persistent", "true"),
            ]
        );
    }
}

#[test]
fn only_scheduled_rows_are_published() {
    let table = published();
    let mut outbox = outbox(settings(LayoutKind::Django), &table);
    for status in ["-1", "2", "0", "11"] {
        let row = row(&table, "d.v1", "{}", status);
        assert_eq!(map(&mut outbox, &row), Row::Skipped(SkipReason::Status), "{status}");
    }
    let row = table.row(&[("id", ID), ("destination", "d")]);
    assert_eq!(map(&mut outbox, &row), Row::Skipped(SkipReason::Status));
}

#[test]
fn the_dop_headers_of_later_versions() {
    let mut table = published();
    let style = Settings { header_style: HeaderStyle::Dop, ..settings(LayoutKind::Django) };
    let mut without = outbox(style.clone(), &table);
    let message_without = message(&mut without, &row(&table, "d.v1", "{}", "1"));
    assert_eq!(
        headers(&message_without)[1..],
        [
            ("dop-msg-id", ID),
            ("dop-msg-destination", "d.v1"),
            ("dop-msg-type", "Published"),
            ("dop-msg-sent-time", "2026-01-31 12:00:00.123456+00:00"),
            ("dop-correlation-id", ID),
            ("persistent", "true"),
        ]
    );
    table.columns.push(("headers", JSONB));
    let mut with = outbox(style, &table);
    let own = r#"{"dop-msg-id": "other", "dop-correlation-id": "c-1", "x": "y"}"#;
    let set =
        [("id", ID), ("destination", "d.v1"), ("status", "1"), ("body", "{}"), ("headers", own)];
    let message_with = message(&mut with, &table.row(&set));
    assert_eq!(message_with.header("dop-msg-id"), Some("other"));
    assert_eq!(message_with.header("dop-correlation-id"), Some("c-1"));
    assert_eq!(message_with.header("x"), Some("y"));
    assert_eq!(message_with.header("dop-msg-type"), Some("Published"));
}

#[test]
fn a_null_version_of_1_x_and_the_columns_that_it_needs() {
    let mut table = published();
    let mut outbox = outbox(settings(LayoutKind::Django), &table);
    let set = [("id", ID), ("destination", "d"), ("status", "1"), ("body", "{}")];
    assert_eq!(message(&mut outbox, &table.row(&set)).destination(), "d");
    table.columns.retain(|(name, _)| *name != "version");
    outbox.relation(&table.relation()).unwrap();
    table.columns.retain(|(name, _)| *name != "status");
    let error = outbox.relation(&table.relation()).unwrap_err().to_string();
    assert!(error.contains("no column 'status' (outbox.layout django);"), "{error}");
}

#[test]
fn a_row_too_long_to_be_read_is_skipped_only_if_it_is_known_not_to_be_scheduled() {
    let mut table = published();
    let mut late = outbox(settings(LayoutKind::Django), &table);
    let unfit = Unfit {
        table: "public.published".into(),
        id: Some(ID.into()),
        reason: UnfitReason::TooLong,
    };
    let leading = [Value::Text(ID.as_bytes()), Value::Null];
    assert_eq!(late.truncated(table.oid, &leading), Ok(Row::Unfit(unfit.clone())));
    assert_eq!(late.truncated(table.oid, &[]), Ok(Row::Unfit(Unfit { id: None, ..unfit })));
    table.columns.rotate_right(1);
    late.relation(&table.relation()).unwrap();
    let skipped = Ok(Row::Skipped(SkipReason::Status));
    assert_eq!(late.truncated(table.oid, &[Value::Text(b"2")]), skipped);
    assert!(matches!(late.truncated(table.oid, &[Value::Text(b"1")]), Ok(Row::Unfit(_))));
}
