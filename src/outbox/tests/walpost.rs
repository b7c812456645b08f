//! Layout `walpost`.

use super::*;

fn default() -> (Outbox, Table) {
    let table = Table::walpost();
    (outbox(settings(LayoutKind::Walpost), &table), table)
}

#[test]
fn a_row_becomes_a_message() {
    let (mut outbox, table) = default();
    let row = table.row(&[
        ("id", ID),
        ("destination", "/topic/orders"),
        ("version", "v1"),
        ("headers", "{}"),
        ("body", r#"{"id": 1, "name": "é \"x\" 🦀"}"#),
        ("created_at", "2026-01-31 11:59:59+00"),
        ("xid", "742"),
    ]);
    let message = message(&mut outbox, &row);
    assert_eq!(message.id(), ID);
    assert_eq!(message.destination(), "/topic/orders.v1");
    assert_eq!(message.key(), "");
    assert_eq!(message.body_slice(), r#"{"id": 1, "name": "é \"x\" 🦀"}"#.as_bytes());
    assert_eq!(
        headers(&message),
        [
            ("content-type", "application/json"),
            ("msg-id", ID),
            ("msg-destination", "/topic/orders.v1"),
            ("msg-type", "Published"),
            ("msg-sent-time", "2026-01-31 12:00:00.123456+00:00"),
            ("persistent", "true"),
        ]
    );
    assert_eq!(message.header("msg-type"), Some("Published"));
    assert_eq!(message.header("msg"), None);
    assert!((message.body().len()..message.body().len() + 800).contains(&message.size()));
    assert!(message.frame_len() >= frame(&message).len());
    assert!(message.frame_len() <= frame(&message).len() + 40);
}

#[test]
fn its_debug_shows_no_body() {
    let (mut outbox, table) = default();
    let row = table.row(&[("id", ID), ("destination", "d"), ("body", "\"secret\"")]);
    let shown = format!("{:?}", map(&mut outbox, &row));
    assert!(shown.contains(ID) && !shown.contains("secret"), "{shown}");
}

#[test]
fn version_is_left_out_where_null_or_empty() {
    let (mut outbox, table) = default();
    for set in [
        &[("id", ID), ("destination", "d")][..],
        &[("id", ID), ("destination", "d"), ("version", "")],
    ] {
        assert_eq!(message(&mut outbox, &table.row(set)).destination(), "d");
    }
}

#[test]
fn bodies() {
    let (mut outbox, table) = default();
    let mut with = |set: &[(&str, &str)]| {
        let message =
            message(&mut outbox, &table.row(&[&[("id", ID), ("destination", "d")], set].concat()));
        (message.body().to_vec(), message.header("content-type").unwrap().to_owned())
    };
    let json = "application/json".to_owned();
    let octets = "application/octet-stream".to_owned();
    assert_eq!(with(&[]), (vec![], json.clone()));
    assert_eq!(with(&[("body", "null")]), (b"null".to_vec(), json));
    assert_eq!(with(&[("body_bytes", "\\x")]), (vec![], octets.clone()));
    assert_eq!(with(&[("body_bytes", "\\x000aFf00")]), (vec![0, 10, 255, 0], octets));
    let set = [("id", ID), ("destination", "d"), ("body", "1"), ("body_bytes", "\\x01")];
    let two = UnfitReason::TwoBodies { text: "body".into(), bytes: "body_bytes".into() };
    assert_eq!(reason(&mut outbox, &table.row(&set)), two);
    for bad in ["", "00", "\\x0", "\\x0g", "\\x 00", "\\000", "\\x\\x", "\\xé", "\\x0é0"] {
        let set = [("id", ID), ("destination", "d"), ("body_bytes", bad)];
        let malformed = UnfitReason::Bytea { column: "body_bytes".into() };
        assert_eq!(reason(&mut outbox, &table.row(&set)), malformed, "{bad}");
    }
}

#[test]
fn a_large_body_arrives_whole_and_leaves_nothing_behind() {
    let table = Table::walpost();
    let raised = Settings { max_frame_size: 32 << 20, ..settings(LayoutKind::Walpost) };
    let mut outbox = outbox(raised, &table);
    let body = "x\u{7f}\\\"\t🦀".repeat((12 << 20) / 9);
    let row = table.row(&[("id", ID), ("destination", "d"), ("body", &body)]);
    let large = message(&mut outbox, &row);
    assert!(large.body_slice() == body.as_bytes());
    let hex: String = (0..1 << 20).map(|byte| format!("{:02x}", byte & 0xFF)).collect();
    let hex = format!("\\x{hex}");
    let row = table.row(&[("id", ID), ("destination", "d"), ("body_bytes", &hex)]);
    let bytes = message(&mut outbox, &row).body();
    assert!(bytes.len() == 1 << 20 && bytes.iter().enumerate().all(|(at, byte)| at as u8 == *byte));
    // The body outlives the message, and is not copied.
    let body = large.body();
    let at = body.as_ptr();
    drop(large);
    assert!(body.as_ptr() == at && body.starts_with(b"x"));
}

#[test]
fn huge_headers_leave_nothing_behind() {
    let table = Table::walpost();
    let mut outbox = outbox(settings(LayoutKind::Walpost), &table);
    let json = format!(r#"{{"h": "{}"}}"#, "x".repeat(3 << 20));
    let row = table.row(&[("id", ID), ("destination", "d"), ("headers", &json)]);
    let large = message(&mut outbox, &row);
    assert_eq!(large.header("h").map(str::len), Some(3 << 20));
    assert!(outbox.scratch.capacity() < 200 << 10, "{}", outbox.scratch.capacity());
}

#[test]
fn the_key_decides_the_lane() {
    let (mut outbox, table) = default();
    let mut with = |destination: &str, key: Option<&str>| {
        let mut set = vec![("id", ID), ("destination", destination)];
        set.extend(key.map(|key| ("key", key)));
        let message = message(&mut outbox, &table.row(&set));
        assert_eq!(message.key(), key.unwrap_or_default());
        message.key_hash()
    };
    assert_eq!(with("a", Some("k")), with("b", Some("k")));
    assert_eq!(with("a", None), with("a", Some("")));
    assert_ne!(with("a", None), with("b", None));
    assert_ne!(with("a", Some("k")), with("a", Some("l")));
}

#[test]
fn columns_in_any_order_and_others_beside_them() {
    let mut table = Table::walpost();
    table.columns.reverse();
    table.columns.insert(3, ("tenant", TEXT));
    let mut outbox = outbox(settings(LayoutKind::Walpost), &table);
    let row = table.row(&[
        ("id", ID),
        ("destination", "d"),
        ("body", "1"),
        ("tenant", "t"),
        ("key", "k"),
    ]);
    let message = message(&mut outbox, &row);
    assert_eq!((message.id(), message.destination(), message.key()), (ID, "d", "k"));
    assert_eq!(message.body_slice(), b"1");
}

#[test]
fn an_altered_table_is_read_anew() {
    let (mut outbox, mut table) = default();
    let set = [("id", ID), ("destination", "d"), ("body", "1")];
    let before = message(&mut outbox, &table.row(&set));
    let old = table.row(&set);
    table.columns.insert(0, ("first", TEXT));
    table.columns.retain(|(name, _)| *name != "created_at" && *name != "xid");
    assert!(matches!(
        outbox.row(&table.row(&set).insert(), &context()),
        Err(RowError::Columns { columns: 9, .. })
    ));
    outbox.relation(&table.relation()).unwrap();
    assert_eq!(message(&mut outbox, &table.row(&set)), before);
    assert!(outbox.row(&old.insert(), &context()).is_err());
    // The bytea becomes text, and comes as it is.
    table.columns.iter_mut().find(|(name, _)| *name == "body_bytes").unwrap().1 = TEXT;
    outbox.relation(&table.relation()).unwrap();
    let row = table.row(&[("id", ID), ("destination", "d"), ("body_bytes", "\\x00")]);
    assert_eq!(message(&mut outbox, &row).body_slice(), b"\\x00");
}

#[test]
fn a_table_that_does_not_fit() {
    let (mut outbox, mut table) = default();
    table.columns.retain(|(name, _)| *name != "key" && *name != "headers");
    let error = outbox.relation(&table.relation()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "table walpost.outbox does not fit: it has no column 'key' (outbox.layout walpost), no \
         column 'headers' (outbox.layout walpost); the columns that arrive are id, destination, \
         version, body, body_bytes, created_at, xid"
    );
    // Nothing is mapped by what the table was before.
    let row = Table::walpost().row(&[("id", ID), ("destination", "d")]);
    let unknown = RowError::UnknownRelation { oid: table.oid };
    assert_eq!(outbox.row(&row.insert(), &context()), Err(unknown));
}

#[test]
fn other_tables_and_new_sessions() {
    let (mut outbox, table) = default();
    let other = Table { oid: 7, name: "orders", ..Table::walpost() };
    outbox.relation(&other.relation()).unwrap();
    let row = Bytes::new(7, &[]);
    assert_eq!(map(&mut outbox, &row), Row::Skipped(SkipReason::OtherTable));
    assert_eq!(outbox.truncated(7, &[]), Ok(Row::Skipped(SkipReason::OtherTable)));
    // An oid that is used again.
    let reused = Table { oid: 7, ..Table::walpost() };
    outbox.relation(&reused.relation()).unwrap();
    message(&mut outbox, &reused.row(&[("id", ID), ("destination", "d")]));
    outbox.clear();
    let row = table.row(&[("id", ID), ("destination", "d")]);
    assert!(outbox.row(&row.insert(), &context()).is_err());
    assert!(outbox.truncated(table.oid, &[]).is_err());
    assert_eq!(outbox.tables(), [TableName { schema: "walpost".into(), name: "outbox".into() }]);
}

#[test]
fn several_tables() {
    let name = |schema: &str, name: &str| TableName { schema: schema.into(), name: name.into() };
    let mut outbox = Outbox::new(Settings {
        tables: vec![name("a", "outbox"), name("b", "Out \"box\"")],
        ..settings(LayoutKind::Walpost)
    })
    .unwrap();
    for (oid, schema, name, is_outbox) in [
        (1, "a", "outbox", true),
        (2, "b", "Out \"box\"", true),
        (3, "b", "outbox", false),
        (4, "walpost", "outbox", false),
    ] {
        let table = Table { oid, schema, name, ..Table::walpost() };
        outbox.relation(&table.relation()).unwrap();
        let skipped = Ok(Row::Skipped(SkipReason::OtherTable));
        assert_eq!(outbox.truncated(oid, &[]) != skipped, is_outbox, "{schema}.{name}");
    }
}
