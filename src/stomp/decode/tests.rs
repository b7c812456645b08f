use super::*;
use proptest::prelude::*;

const LIMITS: Limits = Limits { header_line: 1000, headers: 4, body: 100 };

/// What comes out of `bytes` given in pieces of `size`; heart-beats are left out, since how many
/// are told apart depends on the pieces. At the end: how many bytes were not used, or the error.
fn decode_in(
    bytes: &[u8],
    size: usize,
    version: Version,
) -> (Vec<Inbound>, Result<usize, DecodeError>) {
    let mut decoder = Decoder::new(LIMITS);
    decoder.set_version(version);
    let mut input = BytesMut::new();
    let mut found = Vec::new();
    for piece in bytes.chunks(size.max(1)) {
        input.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut input) {
                Ok(None) => break,
                Ok(Some(Inbound::HeartBeat)) => {}
                Ok(Some(inbound)) => found.push(inbound),
                Err(error) => {
                    assert_eq!(decoder.decode(&mut input), Err(error.clone()), "not for ever");
                    return (found, Err(error));
                }
            }
        }
    }
    (found, Ok(input.len()))
}

fn whole(bytes: &[u8], version: Version) -> (Vec<Inbound>, Result<usize, DecodeError>) {
    decode_in(bytes, bytes.len(), version)
}

fn error(bytes: &[u8]) -> String {
    let (found, end) = whole(bytes, Version::V1_2);
    assert_eq!(found, []);
    end.unwrap_err().to_string()
}

fn frame(bytes: &[u8], version: Version) -> Frame {
    let (mut found, end) = whole(bytes, version);
    assert_eq!(end, Ok(0));
    match (found.pop(), found.is_empty()) {
        (Some(Inbound::Frame(frame)), true) => frame,
        other => panic!("{other:?} {found:?}"),
    }
}

#[test]
fn a_message_with_all_there_is() {
    let bytes = b"MESSAGE\r\na\\cb:1\\r\\n\\\\\r\ncontent-length:5\ncontent-length:99\nempty:\r\n\r\nx\0y\n\0\0\r\n";
    let frame = frame(bytes, Version::V1_2);
    assert_eq!(frame.command, Command::Message);
    assert_eq!(frame.header("a:b"), Some("1\r\n\\"));
    assert_eq!(frame.header("empty"), Some(""));
    assert_eq!(frame.header("content-length"), Some("5"));
    assert_eq!(&frame.body[..], b"x\0y\n\0");
}

#[test]
fn versions_differ_in_escapes_and_line_ends() {
    let bytes = b"MESSAGE\na:1\\c2\r\n\n\0";
    assert_eq!(frame(bytes, Version::V1_2).header("a"), Some("1:2"));
    assert_eq!(frame(bytes, Version::V1_1).header("a"), Some("1:2\r"));
    assert_eq!(frame(bytes, Version::V1_0).header("a"), Some("1\\c2\r"));
    // More colons than needed do no harm.
    assert_eq!(frame(b"MESSAGE\na:1:2\n\n\0", Version::V1_2).header("a"), Some("1:2"));
}

#[test]
fn heartbeats_are_line_ends_between_frames() {
    let mut decoder = Decoder::new(LIMITS);
    let mut input = BytesMut::new();
    for (bytes, expected) in [
        ("", None),
        ("\n", Some(Inbound::HeartBeat)),
        ("\r", None),
        ("\n", Some(Inbound::HeartBeat)),
        ("\r\n\n\nRECEIPT\nreceipt-id:1\n\n\0\n", Some(Inbound::HeartBeat)),
        ("", Some(Inbound::Receipt(1))),
        ("", Some(Inbound::HeartBeat)),
        ("", None),
    ] {
        input.extend_from_slice(bytes.as_bytes());
        assert_eq!(decoder.decode(&mut input), Ok(expected), "{bytes:?}");
    }
}

#[test]
fn receipts_by_both_ways() {
    for (bytes, expected) in [
        (&b"RECEIPT\nreceipt-id:12\n\n\0"[..], Inbound::Receipt(12)),
        (b"RECEIPT\ncontent-length:0\nreceipt-id:12\n\n\0", Inbound::Receipt(12)),
        (b"RECEIPT\r\nreceipt-id:12\r\nx:y\r\n\r\nbody\0", Inbound::Receipt(12)),
    ] {
        for size in 1..=bytes.len() {
            assert_eq!(decode_in(bytes, size, Version::V1_2), (vec![expected.clone()], Ok(0)));
        }
    }
    for id in ["", "012", "x", "18446744073709551616", "1 "] {
        let bytes = format!("RECEIPT\nreceipt-id:{id}\n\n\0");
        assert_eq!(frame(bytes.as_bytes(), Version::V1_2).header("receipt-id"), Some(id));
    }
    assert_eq!(frame(b"RECEIPT\n\n\0", Version::V1_2).header("receipt-id"), None);
}

#[test]
fn an_error_frame_is_read_whatever_is_in_it() {
    let frame = frame(b"ERROR\nmessage:C:\\temp \\q \xff\\\n\nwhy\0", Version::V1_2);
    assert_eq!(frame.header("message"), Some("C:\\temp \\q \u{fffd}\\"));
}

#[test]
fn what_is_not_stomp() {
    for (bytes, words) in [
        (&b"AMQP\0\0\x09\x01"[..], "'AMQP' is no STOMP command"),
        (b"\x15\x03\x03\x00\x02", "'   ' is no STOMP command"),
        (b"SSH-2.0-OpenSSH_9", "'SSH-2.0-OpenSSH_9' is no STOMP command"),
        (b"receipt\n", "'receipt' is no STOMP command"),
        (b"MESSAGE\na:b\0", "a NUL among the headers of a frame"),
        (b"MESSAGE\nabc\n", "the header line 'abc' has no colon"),
        (b"MESSAGE\n:x\n", "a header without a name"),
        (b"MESSAGE\nsecret:\\t\n", "an undefined escape in header 'secret'"),
        (b"MESSAGE\na:\xff\n", "header 'a' is not UTF-8"),
        (b"MESSAGE\n\xff:a\n", "header '\u{fffd}' is not UTF-8"),
        (b"MESSAGE\ncontent-length:-1\n\n", "a content-length that is no number"),
        (b"MESSAGE\ncontent-length:\n\n", "a content-length that is no number"),
        (
            b"MESSAGE\ncontent-length:2\n\nabc",
            "no NUL behind the 2 bytes that content-length promised",
        ),
    ] {
        assert!(error(bytes).starts_with(words), "{}", error(bytes));
    }
    let (_, end) = whole(b"MESSAGE\na:\\r\n", Version::V1_1);
    assert_eq!(end, Err(DecodeError::UndefinedEscape { header: "a".to_owned() }));
}

#[test]
fn caps_hold_before_and_after_the_end_is_seen() {
    let line = |length: usize| format!("a:{}", "x".repeat(length - 2));
    let body = |length: usize| "x".repeat(length);
    for (fits, too_much) in [
        (format!("MESSAGE\n{}\n\n\0", line(1000)), format!("MESSAGE\n{}\n\n\0", line(1001))),
        (format!("MESSAGE\n{}\r\n\r\n\0", line(1000)), format!("MESSAGE\n{}", line(1001))),
        (format!("MESSAGE\n{}\n\0", "a:b\n".repeat(4)), format!("MESSAGE\n{}", "a:b\n".repeat(5))),
        (format!("MESSAGE\n\n{}\0", body(100)), format!("MESSAGE\n\n{}\0", body(101))),
        (format!("MESSAGE\n\n{}\0", body(100)), format!("MESSAGE\n\n{}", body(101))),
        (
            format!("MESSAGE\ncontent-length:100\n\n{}\0", body(100)),
            "MESSAGE\ncontent-length:101\n\n".to_owned(),
        ),
        (
            format!("MESSAGE\ncontent-length:{}1\n\nx\0", "0".repeat(50)),
            "MESSAGE\ncontent-length:99999999999999999999999\n\n".to_owned(),
        ),
        (
            format!("RECEIPT\nreceipt-id:1\n{}\n\0", "a:b\n".repeat(3)),
            format!("RECEIPT\nreceipt-id:1\n{}\n\0", "a:b\n".repeat(4)),
        ),
    ] {
        for size in [1, 7, 5000] {
            let (found, end) = decode_in(fits.as_bytes(), size, Version::V1_2);
            assert_eq!((found.len(), end), (1, Ok(0)), "{fits}");
            let (found, end) = decode_in(too_much.as_bytes(), size, Version::V1_2);
            assert!(found.is_empty() && end.is_err(), "{too_much}");
        }
    }
}

/// A body that arrives in small pieces is looked at once: a second look at each piece would take
/// hours here.
#[test]
fn a_large_body_in_small_pieces() {
    const LENGTH: usize = 32 << 20;
    for head in ["MESSAGE\n\n".to_owned(), format!("MESSAGE\ncontent-length:{LENGTH}\n\n")] {
        let mut decoder = Decoder::new(Limits { body: LENGTH, ..LIMITS });
        let mut input = BytesMut::from(head.as_str());
        for _ in 0..LENGTH / 64 {
            input.extend_from_slice(&[b'x'; 64]);
            assert_eq!(decoder.decode(&mut input), Ok(None));
        }
        input.extend_from_slice(&[0]);
        match decoder.decode(&mut input) {
            Ok(Some(Inbound::Frame(frame))) => assert_eq!(frame.body.len(), LENGTH),
            other => panic!("{}", other.is_ok()),
        }
    }
}

/// Bytes that look like STOMP often enough to reach every part of the decoder.
fn almost_stomp() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        proptest::sample::select(vec![
            "RECEIPT",
            "MESSAGE",
            "ERROR",
            "CONNECTED",
            "SEND",
            "\n",
            "\n",
            "\r\n",
            "\n\n",
            "\0",
            "\n\0",
            ":",
            "a:b",
            "receipt-id:",
            "receipt-id:7\n",
            "content-length:",
            "content-length:2\n",
            "0",
            "1",
            "18446744073709551615",
            "\\",
            "\\n",
            "\\c",
            "\\r",
            "\\t",
            "\r",
            "ä",
            " ",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        proptest::collection::vec(any::<u8>(), 0..3),
    ];
    let receipt = (0..30_u64, proptest::sample::select(vec!["\n", "\r\n"]))
        .prop_map(|(id, end)| format!("RECEIPT{end}receipt-id:{id}{end}{end}\0").into_bytes());
    proptest::collection::vec(prop_oneof![4 => piece, 1 => receipt], 0..16)
        .prop_map(|all| all.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_in_any_pieces_give_the_same(bytes in almost_stomp(), size in 1..20_usize, which in 0..3_usize) {
        let version = Version::ALL[which];
        let at_once = whole(&bytes, version);
        for size in [1, size] {
            let (found, end) = decode_in(&bytes, size, version);
            prop_assert_eq!(&found, &at_once.0);
            // Which of several faults is found first may depend on the pieces.
            prop_assert_eq!(end.is_ok(), at_once.1.is_ok());
            if end.is_ok() {
                prop_assert_eq!(&end, &at_once.1);
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>, size in 1..20_usize) {
        let _ = decode_in(&bytes, size, Version::V1_2);
    }
}
