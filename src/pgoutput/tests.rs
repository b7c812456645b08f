mod encode;
mod recorded;
mod render;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::lsn::Lsn;
use encode::{encode, encode_values};

fn value() -> impl Strategy<Value = Value<'static>> {
    let content = || vec(any::<u8>(), 0..40).prop_map(|bytes| &*bytes.leak());
    prop_oneof![
        Just(Value::Null),
        Just(Value::Unchanged),
        content().prop_map(Value::Text),
        content().prop_map(Value::Binary),
    ]
}

fn tuple_of(values: &[Value<'_>]) -> Tuple<'static> {
    Tuple::from_checked(values.len() as u16, encode_values(values).leak())
}

fn tuple() -> impl Strategy<Value = Tuple<'static>> {
    vec(value(), 0..12).prop_map(|values| tuple_of(&values))
}

fn text() -> impl Strategy<Value = &'static str> {
    "[^\0]{0,12}".prop_map(|text| &*text.leak())
}

fn namespace() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("pg_catalog"), "[^\0]{1,12}".prop_map(|text| &*text.leak())]
}

fn position() -> impl Strategy<Value = Lsn> {
    (1..=u64::MAX).prop_map(Lsn)
}

fn identity() -> impl Strategy<Value = Identity> {
    prop_oneof![Just(Identity::Key), Just(Identity::Full)]
}

fn column() -> impl Strategy<Value = Column<'static>> {
    (any::<bool>(), text(), any::<u32>(), any::<i32>()).prop_map(
        |(key, name, type_oid, type_modifier)| Column { key, name, type_oid, type_modifier },
    )
}

fn relation() -> impl Strategy<Value = Message<'static>> {
    let identity = prop_oneof![Just(b'd'), Just(b'n'), Just(b'f'), Just(b'i')];
    (any::<u32>(), namespace(), text(), identity, vec(column(), 0..9)).prop_map(
        |(oid, namespace, name, replica_identity, columns)| {
            Message::Relation(Relation { oid, namespace, name, replica_identity, columns })
        },
    )
}

fn message() -> impl Strategy<Value = Message<'static>> {
    let time = || any::<i64>().prop_map(PgTime);
    let lsn = || any::<u64>().prop_map(Lsn);
    prop_oneof![
        (position(), time(), any::<u32>()).prop_map(|(commit_lsn, commit_time, xid)| {
            Message::Begin(Begin { commit_lsn, commit_time, xid })
        }),
        (position(), position(), time()).prop_map(|(commit_lsn, end_lsn, commit_time)| {
            Message::Commit(Commit { commit_lsn, end_lsn, commit_time })
        }),
        (lsn(), text()).prop_map(|(commit_lsn, name)| Message::Origin(Origin { commit_lsn, name })),
        relation(),
        (any::<u32>(), namespace(), text())
            .prop_map(|(oid, namespace, name)| Message::Type(Type { oid, namespace, name })),
        (any::<u32>(), tuple())
            .prop_map(|(relation, new)| Message::Insert(Insert { relation, new })),
        (any::<u32>(), proptest::option::of((identity(), tuple())), tuple())
            .prop_map(|(relation, old, new)| Message::Update(Update { relation, old, new })),
        (any::<u32>(), identity(), tuple()).prop_map(|(relation, identity, old)| {
            Message::Delete(Delete { relation, identity, old })
        }),
        (any::<u8>(), vec(any::<u32>(), 0..9))
            .prop_map(|(options, relations)| Message::Truncate(Truncate { options, relations })),
        (any::<bool>(), lsn(), text(), vec(any::<u8>(), 0..40)).prop_map(
            |(transactional, lsn, prefix, content)| {
                Message::Logical(Logical { transactional, lsn, prefix, content: content.leak() })
            }
        ),
    ]
}

proptest! {
    #[test]
    fn encoded_and_decoded_is_the_same(message in message()) {
        let bytes = encode(&message);
        prop_assert_eq!(decode(&bytes), Ok(message));
    }

    #[test]
    fn a_strict_prefix_is_an_error_and_so_is_a_byte_too_many(message in message(), more: u8) {
        let mut bytes = encode(&message);
        for end in 0..bytes.len() {
            prop_assert!(decode(&bytes[..end]).is_err(), "{} of {} bytes", end, bytes.len());
        }
        bytes.push(more);
        let trailing = matches!(decode(&bytes), Err(DecodeError::TrailingBytes { count: 1, .. }));
        prop_assert!(trailing, "{:?}", decode(&bytes));
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error(tag in "[BCORYIUDTM]|[^a]", rest in vec(any::<u8>(), 0..90)) {
        let bytes = [tag.as_bytes(), &rest].concat();
        let _ = decode_truncated(&bytes);
        if let Ok(message) = decode(&bytes) {
            // What is not the same again (column flags, pg_catalog spelled out) is decoded alike.
            let again = encode(&message);
            prop_assert_eq!(decode(&again), Ok(message));
        }
    }

    #[test]
    fn a_changed_byte_does_no_harm(message in message(), at: prop::sample::Index, byte: u8) {
        let mut bytes = encode(&message);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = decode(&bytes);
        let _ = decode_truncated(&bytes);
    }

    #[test]
    fn a_tuple_has_as_many_values_as_it_says(values in vec(value(), 0..30)) {
        let tuple = tuple_of(&values);
        prop_assert_eq!(tuple.len(), values.len());
        prop_assert_eq!(tuple.is_empty(), values.is_empty());
        prop_assert_eq!(tuple.values().collect::<Vec<_>>(), values);
    }

    #[test]
    fn a_truncated_insert_keeps_the_values_that_are_complete(
        relation: u32,
        values in vec(value(), 0..12),
        cut: prop::sample::Index,
    ) {
        let bytes = encode(&Message::Insert(Insert { relation, new: tuple_of(&values) }));
        let cut = cut.index(bytes.len() + 1);
        let found = decode_truncated(&bytes[..cut]);
        let header = 8;
        prop_assert_eq!(found.is_some(), cut >= header);
        if let Some(Truncated::Insert { relation: oid, values: found }) = found {
            let complete = (0..=values.len())
                .rfind(|count| header + encode_values(&values[..*count]).len() <= cut)
                .unwrap();
            prop_assert_eq!(oid, relation);
            prop_assert_eq!(&found[..], &values[..complete]);
        }
    }
}

#[test]
fn an_error_names_the_message_the_field_and_the_offset() {
    let said = |bytes: &[u8]| decode(bytes).unwrap_err().to_string();
    assert_eq!(said(b""), "an empty pgoutput message");
    assert_eq!(said(b"S\0\0"), "unknown pgoutput message 'S' (0x53)");
    assert_eq!(said(b"\xff"), "unknown pgoutput message '\\xff' (0xFF)");
    assert_eq!(
        said(b"I\0\0\0\x01N\0\x02nt\0\0\0\x05four"),
        "pgoutput Insert: the bytes end inside column value at offset 9"
    );
    assert_eq!(
        said(b"I\0\0\0\x01N\0\x01x"),
        "pgoutput Insert: kind of column value at offset 8 is 0x78, which has no meaning"
    );
    assert_eq!(
        said(b"I\0\0\0\x01K\0\0"),
        "pgoutput Insert: kind of tuple at offset 5 is 0x4B, which has no meaning"
    );
    assert_eq!(said(b"I\0\0\0\x01N\0\x01nn"), "pgoutput Insert: 1 bytes too many from offset 9 on");
    assert_eq!(said(b"Y\0\0\0\x01\xC3\0n\0"), "pgoutput Type: namespace at offset 5 is not UTF-8");
    assert_eq!(
        said(b"Y\0\0\0\x01ns\0name"),
        "pgoutput Type: the bytes end inside name at offset 8"
    );
    assert_eq!(said(&[b'B'; 1]), "pgoutput Begin: the bytes end inside commit LSN at offset 1");
    assert_eq!(said(b"B\0\0\0\0\0\0\0\0"), "pgoutput Begin: commit LSN is 0/0");
    assert_eq!(
        said(b"C\x01\0\0\0\0\0\0\0\x01"),
        "pgoutput Commit: flags at offset 1 is 0x01, which has no meaning"
    );
}

#[test]
fn a_count_that_lies_reserves_no_memory() {
    // The largest counts there are, and nothing behind them.
    assert!(decode(b"T\xff\xff\xff\xff\0").is_err());
    assert!(decode(b"R\0\0\0\x01\0n\0d\xff\xff").is_err());
    assert!(decode(b"I\0\0\0\x01N\xff\xff").is_err());
    assert_eq!(
        decode_truncated(b"I\0\0\0\x01N\xff\xff"),
        Some(Truncated::Insert { relation: 1, values: vec![] })
    );
    assert!(decode(b"M\x01\0\0\0\0\0\0\0\x01p\0\xff\xff\xff\xff").is_err());
}

#[test]
fn an_empty_namespace_is_pg_catalog() {
    let Ok(Message::Relation(relation)) = decode(b"R\0\0\0\x01\0pg_class\0n\0\0") else { panic!() };
    assert_eq!((relation.namespace, relation.name), ("pg_catalog", "pg_class"));
}

#[test]
fn an_update_keeps_its_old_tuple_apart_from_the_new_one() {
    let bytes = b"U\0\0\0\x07K\0\x01t\0\0\0\x01aN\0\x01t\0\0\0\x01b";
    let Ok(Message::Update(update)) = decode(bytes) else { panic!() };
    let (identity, old) = update.old.unwrap();
    assert_eq!(identity, Identity::Key);
    assert_eq!(old.values().collect::<Vec<_>>(), [Value::Text(b"a")]);
    assert_eq!(update.new.values().collect::<Vec<_>>(), [Value::Text(b"b")]);
}
