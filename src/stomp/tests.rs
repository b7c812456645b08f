//! What the encoder writes, the decoder reads.

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;

use super::decode::{Decoder, Inbound, Limits};
use super::encode::{END, ReceiptId, SendHead, abort, begin, commit, disconnect, send_head};
use super::escape::{can_send_name, can_send_value, encoded_len};
use super::{Command, Frame, Version};

const LIMITS: Limits = Limits { header_line: 4096, headers: 32, body: 4096 };

#[derive(Clone, Debug)]
struct Send {
    version: Version,
    destination: String,
    receipt: Option<Result<u64, String>>,
    transaction: Option<String>,
    content_length: bool,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Send {
    fn own_headers(&self) -> Vec<(String, String)> {
        let receipt = self.receipt.as_ref().map(|id| match id {
            Ok(number) => number.to_string(),
            Err(text) => text.clone(),
        });
        let length = self.content_length.then(|| self.body.len().to_string());
        [
            ("destination", Some(self.destination.clone())),
            ("receipt", receipt),
            ("transaction", self.transaction.clone()),
            ("content-length", length),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
    }

    fn write(&self, out: &mut BytesMut) {
        let head = SendHead {
            destination: &self.destination,
            receipt: self.receipt.as_ref().map(|id| match id {
                Ok(number) => ReceiptId::Number(*number),
                Err(text) => ReceiptId::Text(text),
            }),
            transaction: self.transaction.as_deref(),
            content_length: self.content_length.then_some(self.body.len()),
        };
        let headers = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        send_head(out, self.version, &head, headers).unwrap();
        out.extend_from_slice(&self.body);
        out.put_u8(END);
    }

    fn expected(&self) -> Inbound {
        let mut headers = self.own_headers();
        headers.extend(self.headers.iter().cloned());
        Inbound::Frame(Frame {
            command: Command::Client("SEND"),
            headers,
            body: Bytes::from(self.body.clone()),
        })
    }

    fn encoded_len(&self) -> usize {
        let mut headers = self.own_headers();
        headers.extend(self.headers.iter().cloned());
        let lines: usize = headers
            .iter()
            .map(|(name, value)| {
                encoded_len(name, self.version) + encoded_len(value, self.version) + 2
            })
            .sum();
        "SEND\n\n\0".len() + lines + self.body.len()
    }
}

/// Texts with much of what escaping is about.
fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z:\\\\\r\nä😀 ]{0,8}", "\\PC{0,12}", any::<String>()]
}

fn value(version: Version) -> impl Strategy<Value = String> {
    text().prop_map(move |text| {
        text.chars().filter(|c| can_send_value(c.encode_utf8(&mut [0; 4]), version)).collect()
    })
}

fn name(version: Version) -> impl Strategy<Value = String> {
    text()
        .prop_map(move |text| -> String {
            text.chars().filter(|c| can_send_name(c.encode_utf8(&mut [0; 4]), version)).collect()
        })
        .prop_filter("a name", move |name| can_send_name(name, version))
}

fn send() -> impl Strategy<Value = Send> {
    proptest::sample::select(Version::ALL.to_vec()).prop_flat_map(|version| {
        (
            value(version),
            proptest::option::of(prop_oneof![
                any::<u64>().prop_map(Ok),
                value(version).prop_map(Err)
            ]),
            proptest::option::of(value(version)),
            any::<bool>(),
            proptest::collection::vec((name(version), value(version)), 0..6),
            proptest::collection::vec(prop_oneof![Just(0), Just(b'\n'), any::<u8>()], 0..40),
        )
            .prop_map(
                move |(destination, receipt, transaction, content_length, headers, mut body)| {
                    if !content_length {
                        body.retain(|byte| *byte != 0);
                    }
                    Send {
                        version,
                        destination,
                        receipt,
                        transaction,
                        content_length,
                        headers,
                        body,
                    }
                },
            )
    })
}

/// Decodes `bytes` in pieces of the given sizes, heart-beats left out.
fn decode(bytes: &[u8], sizes: &[usize], version: Version) -> Vec<Inbound> {
    let mut decoder = Decoder::new(LIMITS);
    decoder.set_version(version);
    let mut input = BytesMut::new();
    let mut found = Vec::new();
    let mut sizes = sizes.iter().cycle();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
        rest = after;
        input.extend_from_slice(piece);
        while let Some(inbound) = decoder.decode(&mut input).unwrap() {
            if inbound != Inbound::HeartBeat {
                found.push(inbound);
            }
        }
    }
    found
}

proptest! {
    #[test]
    fn sends_come_back_in_any_pieces(
        mut sends in proptest::collection::vec(send(), 1..4),
        sizes in proptest::collection::vec(1..60_usize, 1..8),
        heart_beats in proptest::collection::vec(0..3_usize, 3),
    ) {
        let version = sends[0].version;
        sends.retain(|send| send.version == version);
        let mut bytes = BytesMut::new();
        for (send, beats) in sends.iter().zip(heart_beats) {
            let before = bytes.len();
            send.write(&mut bytes);
            prop_assert_eq!(bytes.len() - before, send.encoded_len());
            bytes.put_bytes(b'\n', beats);
        }
        let expected: Vec<_> = sends.iter().map(Send::expected).collect();
        prop_assert_eq!(decode(&bytes, &sizes, version), expected.clone());
        prop_assert_eq!(decode(&bytes, &[1], version), expected.clone());
        prop_assert_eq!(decode(&bytes, &[usize::MAX], version), expected);
    }

    #[test]
    fn a_prefix_is_no_frame(send in send()) {
        let mut bytes = BytesMut::new();
        send.write(&mut bytes);
        for end in 0..bytes.len() {
            let mut decoder = Decoder::new(LIMITS);
            decoder.set_version(send.version);
            let mut input = BytesMut::from(&bytes[..end]);
            prop_assert_eq!(decoder.decode(&mut input), Ok(None), "{} of {}", end, bytes.len());
        }
    }

    #[test]
    fn the_encoder_takes_what_can_be_sent(
        version in proptest::sample::select(Version::ALL.to_vec()),
        name in text(),
        value in text(),
    ) {
        let head = SendHead { destination: "d", receipt: None, transaction: None, content_length: None };
        let mut out = BytesMut::new();
        let written = send_head(&mut out, version, &head, [(name.as_str(), value.as_str())]);
        prop_assert_eq!(
            written.is_ok(),
            can_send_name(&name, version) && can_send_value(&value, version),
            "{:?}", written
        );
        prop_assert_eq!(out.is_empty(), written.is_err());
    }
}

#[test]
fn frames_without_a_body_come_back() {
    for version in Version::ALL {
        let mut bytes = BytesMut::new();
        begin(&mut bytes, version, "t\\1", None).unwrap();
        commit(&mut bytes, version, "t\\1", Some(ReceiptId::Number(5))).unwrap();
        abort(&mut bytes, version, "t\\1", Some(ReceiptId::Text("a:b"))).unwrap();
        disconnect(&mut bytes, version, Some(ReceiptId::Number(6))).unwrap();
        let found = decode(&bytes, &[3], version);
        let told: Vec<_> = found
            .iter()
            .map(|inbound| match inbound {
                Inbound::Frame(frame) => {
                    (frame.command.as_str(), frame.header("transaction"), frame.header("receipt"))
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(
            told,
            [
                ("BEGIN", Some("t\\1"), None),
                ("COMMIT", Some("t\\1"), Some("5")),
                ("ABORT", Some("t\\1"), Some("a:b")),
                ("DISCONNECT", None, Some("6")),
            ]
        );
    }
}
