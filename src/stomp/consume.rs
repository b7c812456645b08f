//! Client frames of a consumer: SUBSCRIBE, UNSUBSCRIBE, ACK, NACK (chapter "Client Frames").

use bytes::BytesMut;

use super::Version;
use super::encode::{EncodeError, ReceiptId, header, receipt_header, value, whole};
use super::frame::Frame;

/// How messages of a subscription are acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckMode {
    /// An ACK stands for every message up to its own.
    Client,
    /// An ACK stands for its message alone; version 1.0 has no such mode.
    ClientIndividual,
}

impl AckMode {
    /// As the `ack` header of SUBSCRIBE writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            AckMode::Client => "client",
            AckMode::ClientIndividual => "client-individual",
        }
    }
}

/// The headers of a SUBSCRIBE that are walpost's own.
#[derive(Clone, Copy, Debug)]
pub struct Subscribe<'a> {
    /// The subscription's id, unique on the connection.
    pub id: &'a str,
    /// Where messages are read.
    pub destination: &'a str,
    /// How they are acknowledged.
    pub ack: AckMode,
    /// Asks for a RECEIPT.
    pub receipt: Option<ReceiptId<'a>>,
}

/// What an ACK or NACK says of its message; how depends on the version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handle {
    /// The MESSAGE's header `ack`, from version 1.2 on.
    ack: Option<String>,
    message_id: String,
    subscription: Option<String>,
}

impl Handle {
    /// That of a MESSAGE; none: it has no id.
    #[must_use]
    pub fn of(message: &Frame) -> Option<Handle> {
        let text = |name| message.header(name).map(str::to_owned);
        let (ack, message_id) = (text("ack"), text("message-id"));
        Some(Handle {
            message_id: message_id.or_else(|| ack.clone())?,
            ack,
            subscription: text("subscription"),
        })
    }

    /// The broker's own id of the message.
    #[must_use]
    pub fn message_id(&self) -> &str {
        &self.message_id
    }
}

/// ACK or NACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The message is done.
    Ack,
    /// It is not, and is not to come again. Version 1.0 has no NACK.
    Nack,
}

/// Writes a whole SUBSCRIBE frame. `headers` come after our own; one of ours among them is left out.
///
/// # Errors
/// A name or value that the version cannot carry; nothing is left in `out` then.
pub fn subscribe<'a>(
    out: &mut BytesMut,
    version: Version,
    subscribe: &Subscribe<'_>,
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<(), EncodeError> {
    whole(out, |out| {
        out.extend_from_slice(b"SUBSCRIBE\n");
        header(out, version, "id", subscribe.id)?;
        header(out, version, "destination", subscribe.destination)?;
        header(out, version, "ack", subscribe.ack.as_str())?;
        if let Some(receipt) = subscribe.receipt {
            receipt_header(out, version, receipt)?;
        }
        for (name, text) in headers {
            if !matches!(name, "id" | "destination" | "ack" | "receipt" | "content-length") {
                header(out, version, name, text)?;
            }
        }
        out.extend_from_slice(b"\n\0");
        Ok(())
    })
}

/// Writes a whole UNSUBSCRIBE frame.
///
/// # Errors
/// An id that the version cannot carry; nothing is left in `out` then.
pub fn unsubscribe(
    out: &mut BytesMut,
    version: Version,
    id: &str,
    receipt: Option<ReceiptId<'_>>,
) -> Result<(), EncodeError> {
    whole(out, |out| {
        out.extend_from_slice(b"UNSUBSCRIBE\n");
        header(out, version, "id", id)?;
        if let Some(receipt) = receipt {
            receipt_header(out, version, receipt)?;
        }
        out.extend_from_slice(b"\n\0");
        Ok(())
    })
}

/// Writes a whole ACK or NACK frame, with more headers of a broker's own.
///
/// # Errors
/// A value that the version cannot carry; nothing is left in `out` then.
pub fn answer(
    out: &mut BytesMut,
    version: Version,
    answer: Answer,
    handle: &Handle,
    headers: &[(&str, &str)],
) -> Result<(), EncodeError> {
    whole(out, |out| {
        out.extend_from_slice(match answer {
            Answer::Ack => b"ACK\n",
            Answer::Nack => b"NACK\n",
        });
        match (version, &handle.ack) {
            (Version::V1_2, Some(id)) => {
                out.extend_from_slice(b"id:");
                value(out, version, "id", id)?;
            }
            _ => {
                header(out, version, "message-id", &handle.message_id)?;
                if let Some(subscription) = &handle.subscription {
                    header(out, version, "subscription", subscription)?;
                }
            }
        }
        for (name, text) in headers {
            header(out, version, name, text)?;
        }
        out.extend_from_slice(b"\n\0");
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::decode::{Decoder, Inbound, Limits};
    use super::super::frame::Command;
    use super::*;

    fn message(headers: &[(&str, &str)]) -> Frame {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Frame {
            command: Command::Message,
            headers: headers.iter().map(own).collect(),
            body: Bytes::new(),
        }
    }

    fn text(write: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>) -> String {
        let mut out = BytesMut::new();
        write(&mut out).unwrap();
        String::from_utf8(out.to_vec()).unwrap()
    }

    const SUBSCRIBE: Subscribe<'_> = Subscribe {
        id: "0",
        destination: "/topic/a:b",
        ack: AckMode::Client,
        receipt: Some(ReceiptId::Number(3)),
    };

    #[test]
    fn subscriptions() {
        let headers = [("durable", "true"), ("ack", "auto"), ("id", "9"), ("x-queue-name", "q:1")];
        assert_eq!(
            text(|out| subscribe(out, Version::V1_2, &SUBSCRIBE, headers)),
            "SUBSCRIBE\nid:0\ndestination:/topic/a\\cb\nack:client\nreceipt:3\ndurable:true\n\
             x-queue-name:q\\c1\n\n\0"
        );
        assert_eq!(
            text(|out| unsubscribe(out, Version::V1_2, "0", None)),
            "UNSUBSCRIBE\nid:0\n\n\0"
        );
    }

    #[test]
    fn answers_name_the_message_as_their_version_does() {
        let all = message(&[("subscription", "0"), ("message-id", "T:7"), ("ack", "a:7")]);
        let handle = Handle::of(&all).unwrap();
        let requeue = [("requeue", "false")];
        assert_eq!(
            text(|out| answer(out, Version::V1_2, Answer::Nack, &handle, &requeue)),
            "NACK\nid:a\\c7\nrequeue:false\n\n\0"
        );
        assert_eq!(
            text(|out| answer(out, Version::V1_1, Answer::Ack, &handle, &[])),
            "ACK\nmessage-id:T\\c7\nsubscription:0\n\n\0"
        );
        let old = Handle::of(&message(&[("message-id", "T:7")])).unwrap();
        assert_eq!(
            text(|out| answer(out, Version::V1_0, Answer::Ack, &old, &[])),
            "ACK\nmessage-id:T:7\n\n\0"
        );
        assert_eq!(Handle::of(&message(&[("subscription", "0")])), None);
    }

    fn parsed(bytes: &[u8]) -> Frame {
        let mut decoder = Decoder::new(Limits::default());
        match decoder.decode(&mut BytesMut::from(bytes)) {
            Ok(Some(Inbound::Frame(frame))) => frame,
            other => panic!("{other:?}"),
        }
    }

    proptest! {
        /// Whatever is in a header, it is one header of one frame.
        #[test]
        fn what_is_written_is_read(name in "[^\0]{1,12}", word in "[^\0]{0,12}", id in "[^\0]{0,12}") {
            let mut out = BytesMut::new();
            let frame = Subscribe { id: &id, destination: &word, ..SUBSCRIBE };
            subscribe(&mut out, Version::V1_2, &frame, [(name.as_str(), word.as_str())]).unwrap();
            let read = parsed(&out);
            prop_assert_eq!(read.header("id"), Some(id.as_str()));
            prop_assert_eq!(read.header("destination"), Some(word.as_str()));
            if read.headers.len() == 5 {
                prop_assert_eq!(&read.headers[4], &(name, word.clone()));
            }

            let handle = Handle::of(&message(&[("message-id", &word), ("ack", &id)])).unwrap();
            out.clear();
            answer(&mut out, Version::V1_2, Answer::Ack, &handle, &[]).unwrap();
            let read = parsed(&out);
            prop_assert_eq!(read.header("id"), Some(id.as_str()));
            prop_assert_eq!(read.headers.len(), 1);
        }

        /// A NUL can't be carried, and leaves nothing.
        #[test]
        fn a_nul_leaves_nothing(word in "[a-z]{0,4}\0[a-z]{0,4}") {
            let mut out = BytesMut::new();
            let frame = Subscribe { destination: &word, ..SUBSCRIBE };
            prop_assert!(subscribe(&mut out, Version::V1_2, &frame, []).is_err());
            prop_assert!(unsubscribe(&mut out, Version::V1_2, &word, None).is_err());
            prop_assert!(out.is_empty());
        }
    }
}
