//! What holds for every row.

use proptest::prelude::*;

use super::*;

/// Texts with much of what is special to STOMP, JSON and bytea.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[a-z\\\\:\r\n\"{}é🦀\0]{0,12}",
        Just("{}".to_owned()),
        Just(r#"{"x": "y:", "ack": 1, "persistent": "no"}"#.to_owned()),
        "\\\\x([0-9a-fA-F]{2}){0,8}",
        Just("1".to_owned()),
    ]
}

#[derive(Clone, Debug)]
enum Cell {
    Null,
    Unchanged,
    Text(Vec<u8>),
    Binary(Vec<u8>),
}

fn cells() -> impl Strategy<Value = Cell> {
    prop_oneof![
        3 => Just(Cell::Null),
        8 => texts().prop_map(|text| Cell::Text(text.into_bytes())),
        1 => any::<Vec<u8>>().prop_map(Cell::Text),
        1 => any::<Vec<u8>>().prop_map(Cell::Binary),
        1 => Just(Cell::Unchanged),
    ]
}

fn values(cells: &[Cell]) -> Vec<Value<'_>> {
    let value = |cell| match cell {
        &Cell::Null => Value::Null,
        &Cell::Unchanged => Value::Unchanged,
        Cell::Text(bytes) => Value::Text(bytes),
        Cell::Binary(bytes) => Value::Binary(bytes),
    };
    cells.iter().map(value).collect()
}

/// Settings with a header of each level and templates over all there is.
fn rich() -> Settings {
    Settings {
        headers: vec![
            ("x-all".into(), template("{id}{key}{version}{lsn}{column:created_at}[{column:xid}]")),
            ("x-dest".into(), template("{destination}")),
        ],
        key: template("[{key}/{column:xid}]"),
        ..settings(LayoutKind::Walpost)
    }
}

proptest! {
    #[test]
    fn a_row_is_a_message_or_a_reason(
        cells in prop::collection::vec(cells(), 9),
        rich_settings: bool,
        max_frame_size in prop_oneof![Just(4usize << 20), 0usize..1_500],
    ) {
        let table = Table::walpost();
        let settings = if rich_settings { rich() } else { settings(LayoutKind::Walpost) };
        let mut outbox = outbox(Settings { max_frame_size, ..settings }, &table);
        let row = Bytes::new(table.oid, &values(&cells));
        match map(&mut outbox, &row) {
            Row::Message(message, _) => {
                prop_assert!(!message.id().is_empty() && !message.destination().is_empty());
                let names: Vec<_> = message.headers().map(|(name, _)| name).collect();
                for (place, name) in names.iter().enumerate() {
                    prop_assert!(!names[..place].contains(name), "{} twice in {:?}", name, names);
                    prop_assert!(!name.is_empty() && !crate::outbox::headers::is_forbidden(name));
                }
                prop_assert_eq!(names[0], "content-type");
                let frame = frame(&message);
                let head = &frame[..frame.len() - message.body_slice().len() - 1];
                prop_assert!(!head.contains(&0));
                prop_assert!(frame.len() <= message.frame_len());
                prop_assert!(message.frame_len() <= frame.len() + 40);
                prop_assert!(message.frame_len() <= max_frame_size);
                prop_assert_eq!(message.body(), message.body_slice().to_vec());
                // The same row is the same message, whatever came between.
                let other = table.row(&[("id", "2"), ("destination", "other"), ("headers", r#"{"h": 1}"#)]);
                map(&mut outbox, &other);
                prop_assert_eq!(map(&mut outbox, &row), Row::Message(message, outbox_dropped(&cells)));
            }
            Row::Unfit(unfit) => prop_assert!(!unfit.to_string().contains('\n')),
            Row::Skipped(reason) => prop_assert!(false, "{:?}", reason),
        }
    }

    #[test]
    fn any_bytes_are_a_row_or_an_error(
        count in 0u16..12,
        bytes in prop::collection::vec(
            prop_oneof![3 => prop::sample::select(b"ntub\0\0\0\x01".to_vec()), 1 => any::<u8>()], 0..80),
        leading in prop::collection::vec(cells(), 0..12),
    ) {
        let table = Table::walpost();
        let mut outbox = outbox(rich(), &table);
        let row = Bytes { relation: table.oid, count, bytes };
        let _ = outbox.row(&row.insert(), &context());
        prop_assert!(matches!(outbox.truncated(table.oid, &values(&leading)), Ok(Row::Unfit(_))));
    }
}

/// The one forbidden header that [`texts`] can bring.
fn outbox_dropped(cells: &[Cell]) -> Dropped {
    let own = matches!(&cells[4], Cell::Text(text) if text.windows(5).any(|at| at == b"\"ack\""));
    Dropped(usize::from(own))
}
