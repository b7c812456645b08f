//! Which header wins.

use super::*;

fn with_own(settings: Settings, own: &str) -> (Message, Dropped) {
    let table = Table::walpost();
    let mut outbox = outbox(settings, &table);
    let row = table.row(&[("id", ID), ("destination", "d"), ("headers", own), ("body", "1")]);
    match map(&mut outbox, &row) {
        Row::Message(message, dropped) => (message, dropped),
        other => panic!("{other:?}"),
    }
}

fn all_levels() -> Settings {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let named = |name: &str, text: &str| (name.to_owned(), template(text));
    Settings {
        headers: vec![
            named("x", "of outbox.headers {version}"),
            named("msg-type", "Event"),
            named("y", "outbox"),
        ],
        broker_headers: vec![
            pair("persistent", "true"),
            pair("y", "broker"),
            pair("msg-id", "broker"),
            pair("z", "broker"),
        ],
        ..settings(LayoutKind::Walpost)
    }
}

#[test]
fn row_over_settings_over_style_over_broker() {
    let own =
        r#"{"y": "row", "persistent": false, "n": 7, "content-type": "text/plain", "z": null}"#;
    let (message, dropped) = with_own(all_levels(), own);
    assert_eq!(
        headers(&message),
        [
            ("content-type", "text/plain"),
            ("msg-id", ID),
            ("msg-destination", "d"),
            ("msg-type", "Event"),
            ("msg-sent-time", "2026-01-31 12:00:00.123456+00:00"),
            ("x", "of outbox.headers "),
            ("z", "broker"),
            ("y", "row"),
            ("persistent", "false"),
            ("n", "7"),
        ]
    );
    assert_eq!(dropped, Dropped(0));
}

#[test]
fn what_is_walposts_own_is_dropped_and_counted() {
    let own = r#"{"destination": "/queue/else", "receipt": "1", "transaction": "t", "id": "1",
        "content-length": "0", "ack": "a", "message-id": "m", "Id": "mine"}"#;
    let (message, dropped) = with_own(settings(LayoutKind::Walpost), own);
    assert_eq!(dropped, Dropped(7));
    assert_eq!(headers(&message).last(), Some(&("Id", "mine")));
    assert_eq!(message.destination(), "d");
    assert!(!headers(&message).iter().any(|(name, _)| *name == "destination"));
}

#[test]
fn an_empty_template_takes_a_header_away() {
    let mut settings = all_levels();
    settings.headers = vec![
        ("msg-sent-time".into(), template("")),
        ("persistent".into(), template("")),
        ("content-type".into(), template("[{version}]")),
        ("y".into(), template("[{version}]")),
    ];
    let (message, _) = with_own(settings, "{}");
    let names: Vec<_> = message.headers().map(|(name, _)| name).collect();
    assert_eq!(names, ["msg-id", "msg-destination", "msg-type", "z"]);
}

#[test]
fn content_types() {
    let of = |settings: Settings, own: &str| {
        with_own(settings, own).0.header("content-type").map(str::to_owned)
    };
    let own = r#"{"content-type": ""}"#;
    let content_type = |text: &str| Settings { content_type: Some(text.into()), ..all_levels() };
    assert_eq!(of(content_type("a/b"), "{}").as_deref(), Some("a/b"));
    assert_eq!(of(content_type("a/b"), own).as_deref(), Some(""));
    assert_eq!(of(content_type(""), "{}"), None);
    let mut by_broker = all_levels();
    by_broker.broker_headers.push(("content-type".into(), "c/d".into()));
    assert_eq!(of(by_broker.clone(), "{}").as_deref(), Some("c/d"));
    by_broker.content_type = Some("a/b".into());
    assert_eq!(of(by_broker.clone(), "{}").as_deref(), Some("a/b"));
    by_broker.headers = vec![("content-type".into(), template("{destination}/{id}"))];
    assert_eq!(of(by_broker, "{}"), Some(format!("d/{ID}")));
}

#[test]
fn no_style() {
    let bare = Settings { header_style: HeaderStyle::None, ..settings(LayoutKind::Walpost) };
    let (message, _) = with_own(bare, "{}");
    let expected = [("content-type", "application/json"), ("persistent", "true")];
    assert_eq!(headers(&message), expected);
}

#[test]
fn any_character_but_nul_is_kept() {
    let own = r#"{"q:\n": "a:\\b\r\n\"🦀\u0001"}"#;
    let (message, _) = with_own(settings(LayoutKind::Walpost), own);
    assert_eq!(message.header("q:\n"), Some("a:\\b\r\n\"🦀\u{1}"));
    assert!(message.frame_len() >= frame(&message).len());
}
