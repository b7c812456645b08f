//! Frames as they are written.

use super::*;

fn text(write: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>) -> String {
    let mut out = BytesMut::new();
    write(&mut out).unwrap();
    String::from_utf8(out.to_vec()).unwrap()
}

const HEAD: SendHead<'_> = SendHead {
    destination: "/topic/a:b",
    receipt: Some(ReceiptId::Number(17)),
    transaction: None,
    content_length: Some(5),
};

#[test]
fn a_send() {
    let head = text(|out| {
        send_head(out, Version::V1_2, &HEAD, [("content-type", "text/plain"), ("a:b", "1\r\n")])
    });
    assert_eq!(
        head,
        "SEND\ndestination:/topic/a\\cb\nreceipt:17\ncontent-length:5\n\
         content-type:text/plain\na\\cb:1\\r\\n\n\n"
    );
}

#[test]
fn a_send_with_little() {
    let head = SendHead { receipt: None, transaction: Some("t\\1"), content_length: None, ..HEAD };
    assert_eq!(
        text(|out| send_head(out, Version::V1_1, &head, [])),
        "SEND\ndestination:/topic/a\\cb\ntransaction:t\\\\1\n\n"
    );
    assert_eq!(
        text(|out| send_head(out, Version::V1_0, &head, [("a", "b:c\\")])),
        "SEND\ndestination:/topic/a:b\ntransaction:t\\1\na:b:c\\\n\n"
    );
}

#[test]
fn frames_without_a_body() {
    let receipt = Some(ReceiptId::Text("r:1"));
    let version = Version::V1_2;
    assert_eq!(text(|out| begin(out, version, "t", None)), "BEGIN\ntransaction:t\n\n\0");
    assert_eq!(
        text(|out| abort(out, version, "t", receipt)),
        "ABORT\ntransaction:t\nreceipt:r\\c1\n\n\0"
    );
    assert_eq!(
        text(|out| commit(out, version, "t", Some(ReceiptId::Number(u64::MAX)))),
        "COMMIT\ntransaction:t\nreceipt:18446744073709551615\n\n\0"
    );
    assert_eq!(text(|out| disconnect(out, version, receipt)), "DISCONNECT\nreceipt:r\\c1\n\n\0");
    assert_eq!(text(|out| disconnect(out, version, None)), "DISCONNECT\n\n\0");
}

#[test]
fn an_error_leaves_nothing() {
    let cases: [(Version, &str, &str); 6] = [
        (Version::V1_2, "", "x"),
        (Version::V1_2, "x\0", "x"),
        (Version::V1_2, "x", "\0"),
        (Version::V1_0, "x", "a\nb"),
        (Version::V1_0, "x:y", "a"),
        (Version::V1_1, "content-length", "7"),
    ];
    for (version, name, value) in cases {
        let mut out = BytesMut::from(&b"before"[..]);
        assert!(send_head(&mut out, version, &HEAD, [("ok", "1"), (name, value)]).is_err());
        assert_eq!(out, &b"before"[..], "{name:?} {value:?}");
    }
    let mut out = BytesMut::new();
    assert!(begin(&mut out, Version::V1_2, "t\0", None).is_err());
    assert!(out.is_empty());
}

#[test]
fn errors_name_the_header_and_hide_the_value() {
    let mut out = BytesMut::new();
    let error = send_head(&mut out, Version::V1_0, &HEAD, [("x-a", "words\nmore")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the value of header 'x-a' has a line feed, which STOMP cannot carry there"
    );
    let error = send_head(&mut out, Version::V1_0, &HEAD, [("x\n:", "")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the name of header 'x :' has a line feed, which STOMP cannot carry there"
    );
}
