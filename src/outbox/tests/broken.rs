//! Rows that cannot be messages.

use super::*;

fn default() -> (Outbox, Table) {
    let table = Table::walpost();
    (outbox(settings(LayoutKind::Walpost), &table), table)
}

#[test]
fn no_id_and_no_destination() {
    let (mut outbox, table) = default();
    for set in [&[("destination", "d")][..], &[("id", ""), ("destination", "d")]] {
        let Row::Unfit(unfit) = map(&mut outbox, &table.row(set)) else { panic!() };
        let reason = UnfitReason::NoId;
        assert_eq!(unfit, Unfit { table: "walpost.outbox".into(), id: None, reason });
    }
    for set in [&[("id", ID)][..], &[("id", ID), ("destination", "")]] {
        let Row::Unfit(unfit) = map(&mut outbox, &table.row(set)) else { panic!() };
        assert_eq!((unfit.id.as_deref(), unfit.reason), (Some(ID), UnfitReason::NoDestination));
    }
}

#[test]
fn the_largest_frame_goes_and_one_byte_more_does_not() {
    let table = Table::walpost();
    let max = 2_000;
    let small = Settings { max_frame_size: max, ..settings(LayoutKind::Walpost) };
    let mut outbox = outbox(small, &table);
    let body = "x".repeat(max);
    let mut with = |len: usize| {
        map(&mut outbox, &table.row(&[("id", ID), ("destination", "d:"), ("body", &body[..len])]))
    };
    let Row::Message(empty, _) = with(0) else { panic!() };
    let room = max - empty.frame_len();
    let Row::Message(full, _) = with(room) else { panic!() };
    assert_eq!(full.frame_len(), max);
    assert!(frame(&full).len() <= max);
    let Row::Unfit(unfit) = with(room + 1) else { panic!() };
    assert_eq!(unfit.reason, UnfitReason::TooLarge { frame_len: max + 1, max });
}

#[test]
fn headers_that_cannot_be_sent() {
    let (mut outbox, table) = default();
    let mut with = |own: &str| {
        let set = [("id", ID), ("destination", "d"), ("headers", own)];
        reason(&mut outbox, &table.row(&set))
    };
    let header = |name: &str| UnfitReason::Header { name: name.into() };
    assert_eq!(with(r#"{"": "x"}"#), header(""));
    assert_eq!(with(r#"{"x": "\u0000"}"#), header("x"));
    assert!(matches!(with("[]"), UnfitReason::HeadersNotAnObject { .. }));
    assert!(matches!(with("\"{}\""), UnfitReason::HeadersNotAnObject { .. }));
    assert!(matches!(with(""), UnfitReason::HeadersNotAnObject { .. }));
}

/// PostgreSQL sends no such rows; a stand-in for it might.
#[test]
fn values_that_postgres_never_sends() {
    let (mut outbox, table) = default();
    let text = |text: &'static str| Value::Text(text.as_bytes());
    let base = [
        text(ID),
        text("d"),
        Value::Null,
        Value::Null,
        Value::Null,
        Value::Null,
        Value::Null,
        Value::Null,
        Value::Null,
    ];
    let mut with = |place: usize, value: Value<'static>| {
        let mut values = base;
        values[place] = value;
        map(&mut outbox, &Bytes::new(table.oid, &values))
    };
    let column = |name: &str| name.to_owned();
    for place in [0, 1, 2, 3, 4, 5, 6] {
        let name = column(table.columns[place].0);
        let Row::Unfit(unfit) = with(place, Value::Unchanged) else { panic!("{place}") };
        assert_eq!(unfit.reason, UnfitReason::NotSent { column: name.clone() });
        let Row::Unfit(unfit) = with(place, Value::Binary(b"x")) else { panic!("{place}") };
        assert_eq!(unfit.reason, UnfitReason::Binary { column: name.clone() });
        let not_text = with(place, Value::Text(b"\xFF"));
        match place {
            5 => assert!(matches!(not_text, Row::Message(..))),
            6 => assert!(matches!(not_text, Row::Unfit(_))),
            _ => {
                let Row::Unfit(unfit) = not_text else { panic!("{place}") };
                assert_eq!(unfit.reason, UnfitReason::NotUtf8 { column: name });
            }
        }
    }
    // What no message is made of does no harm.
    for place in [7, 8] {
        assert!(matches!(with(place, Value::Unchanged), Row::Message(..)));
    }
    for (place, what) in [(0, "id"), (1, "destination"), (3, "key")] {
        let Row::Unfit(unfit) = with(place, Value::Text(b"a\0b")) else { panic!("{what}") };
        assert_eq!(unfit.reason, UnfitReason::Nul { what });
    }
}

#[test]
fn nul_in_a_templates_value_names_the_header() {
    let table = Table::walpost();
    let mut settings = settings(LayoutKind::Walpost);
    settings.headers = vec![("x-xid".into(), template("{column:xid}"))];
    let mut outbox = outbox(settings, &table);
    let mut with = |xid: Value<'_>| {
        let mut values = vec![Value::Null; 9];
        values[0] = Value::Text(b"1");
        values[1] = Value::Text(b"d");
        values[8] = xid;
        reason(&mut outbox, &Bytes::new(table.oid, &values))
    };
    assert_eq!(with(Value::Text(b"\0")), UnfitReason::Header { name: "x-xid".into() });
    assert_eq!(with(Value::Text(b"\xFF")), UnfitReason::NotUtf8 { column: "xid".into() });
    assert_eq!(with(Value::Unchanged), UnfitReason::NotSent { column: "xid".into() });
}
