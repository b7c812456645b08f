//! Layout `custom`, templates over columns, and settings that cannot be meant.

use super::*;

fn events() -> Table {
    let columns = vec![
        ("event", INT4),
        ("payload", BYTEA),
        ("topic", TEXT),
        ("meta", JSON),
        ("mime", TEXT),
        ("made", TIMESTAMPTZ),
        ("tenant", TEXT),
    ];
    Table { oid: 9, schema: "app", name: "events", columns }
}

fn columns() -> Columns {
    let name = |name: &str| Some(name.to_owned());
    Columns {
        id: name("event"),
        destination: name("topic"),
        headers: name("meta"),
        body: name("payload"),
        content_type: name("mime"),
        created_at: name("made"),
        ..Columns::default()
    }
}

fn custom(columns: Columns) -> Settings {
    Settings {
        tables: vec![TableName { schema: "app".into(), name: "events".into() }],
        ..settings(LayoutKind::Custom(columns))
    }
}

#[test]
fn any_table() {
    let table = events();
    let mut outbox = outbox(custom(columns()), &table);
    let row = table.row(&[
        ("event", "42"),
        ("topic", "/queue/x"),
        ("payload", "\\x00ff"),
        ("meta", r#"{"a" : 1}"#),
        ("mime", "image/png"),
    ]);
    let first = message(&mut outbox, &row);
    assert_eq!((first.id(), first.destination()), ("42", "/queue/x"));
    assert_eq!(first.body_slice(), [0, 255]);
    assert_eq!(first.header("content-type"), Some("image/png"));
    assert_eq!(first.header("a"), Some("1"));
    let row = table.row(&[("event", "43"), ("topic", "t"), ("payload", "\\x"), ("mime", "")]);
    let second = message(&mut outbox, &row);
    assert_eq!(second.header("content-type"), Some("application/octet-stream"));
}

#[test]
fn one_column_may_be_several_things() {
    let table = events();
    let name = |name: &str| Some(name.to_owned());
    let columns =
        Columns { key: name("event"), body: name("meta"), headers: name("meta"), ..columns() };
    let mut outbox = outbox(custom(columns), &table);
    let row = table.row(&[("event", "42"), ("topic", "t"), ("meta", r#"{"a": 1}"#)]);
    let message = message(&mut outbox, &row);
    assert_eq!((message.id(), message.key()), ("42", "42"));
    assert_eq!(message.body_slice(), br#"{"a": 1}"#);
    assert_eq!(message.header("a"), Some("1"));
}

#[test]
fn templates_reach_every_column_and_the_transaction() {
    let table = events();
    let mut settings = custom(Columns { destination: None, ..columns() });
    settings.destination = template("/topic/[{column:tenant}.]{id}");
    settings.key = template("{column:tenant}");
    settings.headers = vec![
        ("x-position".into(), template("{lsn} {xid}")),
        ("x-times".into(), template("{commit_time}|{now}")),
        ("x-tenant".into(), template("[{column:tenant}/{column:made}]")),
    ];
    let mut outbox = outbox(settings, &table);
    let row = table.row(&[("event", "1"), ("tenant", "acme"), ("made", "today")]);
    let with = message(&mut outbox, &row);
    assert_eq!((with.destination(), with.key()), ("/topic/acme.1", "acme"));
    assert_eq!(with.header("x-position"), Some("16/B374D848 742"));
    let times = "2026-01-31 12:00:00+00:00|2026-01-31 12:00:00.123456+00:00";
    assert_eq!(with.header("x-times"), Some(times));
    assert_eq!(with.header("x-tenant"), Some("acme/today"));
    let without = message(&mut outbox, &table.row(&[("event", "2")]));
    assert_eq!((without.destination(), without.key()), ("/topic/2", ""));
    assert_eq!(without.header("x-tenant"), None);
    // The next transaction.
    let next = Context { commit_lsn: Lsn(255), xid: 743, ..context() };
    let Row::Message(next, _) = outbox.row(&row.insert(), &next).unwrap() else { panic!() };
    assert_eq!(next.header("x-position"), Some("0/FF 743"));
}

#[test]
fn columns_that_are_not_there() {
    let mut settings =
        custom(Columns { version: Some("v".into()), created_at: Some("at".into()), ..columns() });
    settings.headers = vec![("x".into(), template("{column:nope}"))];
    settings.key = template("{column:none}");
    let mut outbox = Outbox::new(settings).unwrap();
    let error = outbox.relation(&events().relation()).unwrap_err();
    let missing: Vec<_> =
        error.missing.iter().map(|m| (m.column.as_str(), m.needed_by.as_str())).collect();
    assert_eq!(
        missing,
        [
            ("v", "outbox.columns.version"),
            ("at", "outbox.columns.created_at"),
            ("none", "outbox.key"),
            ("nope", "outbox.headers.x"),
        ]
    );
    assert_eq!(error.present.len(), 7);
}

#[test]
fn settings_that_cannot_be_meant() {
    let error = |settings: Settings| Outbox::new(settings).unwrap_err().to_string();
    let none = || settings(LayoutKind::Walpost);
    assert_eq!(
        error(settings(LayoutKind::Debezium)),
        "outbox.layout: 'debezium' is not in this version"
    );
    assert!(error(settings(LayoutKind::Custom(columns()))).starts_with("outbox.tables: "));
    assert!(error(custom(Columns { id: None, ..columns() })).starts_with("outbox.columns.id: "));
    assert_eq!(
        error(custom(Columns { destination: None, ..columns() })),
        "outbox.columns.destination: the template '{destination}[.{version}]' of \
         outbox.destination needs it"
    );
    assert!(error(Settings { destination: template(""), ..none() }).contains("empty"));
    let with = |name: &str| vec![(name.to_owned(), template("x"))];
    assert_eq!(
        error(Settings { headers: with("receipt"), ..none() }),
        "outbox.headers: the header 'receipt' is walpost's own and can't be set"
    );
    assert!(error(Settings { headers: with(""), ..none() }).contains("''"));
    assert!(
        error(Settings { headers: [with("a"), with("a")].concat(), ..none() }).contains("twice")
    );
    let broker = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    for (name, value) in [("ack", "1"), ("a\0", "1"), ("a", "\0")] {
        let broker_headers = broker(name, value);
        let error = error(Settings { broker_headers, ..none() });
        assert!(error.starts_with("broker.headers: "), "{error}");
    }
    let content_type = Some("a\0".into());
    assert!(error(Settings { content_type, ..none() }).starts_with("outbox.content_type: "));
}
