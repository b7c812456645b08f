//! Client frames, written into a buffer (chapters "STOMP Frames" and "Client Frames").
//!
//! A frame that cannot be written leaves nothing in the buffer: half a frame would make the broker
//! read the next one as part of it.

use bytes::BytesMut;

use super::Version;
use super::escape::Table;
use super::printable::printable;

#[cfg(test)]
mod tests;

/// The NUL behind the body that ends a frame.
pub const END: u8 = 0;

/// Characters of a header's name that an error shows.
const NAME_SHOWN: usize = 60;

/// The `receipt` header: what the broker's RECEIPT will carry as `receipt-id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiptId<'a> {
    /// A number in decimal; its RECEIPT is read without allocating.
    Number(u64),
    /// Any text.
    Text(&'a str),
}

/// The headers of a SEND that are walpost's own.
#[derive(Clone, Copy, Debug)]
pub struct SendHead<'a> {
    /// Where the message goes.
    pub destination: &'a str,
    /// Asks for a RECEIPT.
    pub receipt: Option<ReceiptId<'a>>,
    /// The STOMP transaction that the message is part of.
    pub transaction: Option<&'a str>,
    /// Bytes of the body. Without it the body must have no NUL.
    pub content_length: Option<usize>,
}

/// A header that cannot be written. Its value is not shown: it may be anybody's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A header without a name.
    #[error("a header has no name")]
    EmptyName,
    /// The name has a character that the version cannot carry.
    #[error("the name of header '{name}' has {}, which STOMP cannot carry there", describe(*byte))]
    Name {
        /// The name, cleaned and cut for a log.
        name: String,
        /// What cannot be carried.
        byte: u8,
    },
    /// The value has a character that the version cannot carry.
    #[error("the value of header '{name}' has {}, which STOMP cannot carry there", describe(*byte))]
    Value {
        /// The header's name, cleaned and cut for a log.
        name: String,
        /// What cannot be carried.
        byte: u8,
    },
    /// One of `destination`, `receipt`, `transaction`, `content-length` among the other headers.
    #[error("the header '{0}' belongs to the relay and cannot be set")]
    Reserved(&'static str),
}

/// What a CONNECT frame says.
pub(super) struct Connect<'a> {
    pub(super) host: &'a str,
    pub(super) login: Option<&'a str>,
    pub(super) passcode: Option<&'a str>,
    pub(super) client_id: Option<&'a str>,
    /// Milliseconds: what the client can send, and what it would like to hear.
    pub(super) heart_beat: (u64, u64),
    /// Escape the texts against the specification.
    pub(super) escaped: bool,
}

/// Writes SEND, its headers and the blank line. The caller appends the body and [`END`].
/// `headers` come after our own, in their order.
///
/// # Errors
/// A name or value that the version cannot carry, or one of our own headers among `headers`.
/// Nothing is left in `out` then.
pub fn send_head<'a>(
    out: &mut BytesMut,
    version: Version,
    head: &SendHead<'_>,
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<(), EncodeError> {
    whole(out, |out| {
        out.extend_from_slice(b"SEND\ndestination:");
        value(out, version, "destination", head.destination)?;
        if let Some(receipt) = head.receipt {
            receipt_header(out, version, receipt)?;
        }
        if let Some(transaction) = head.transaction {
            out.extend_from_slice(b"transaction:");
            value(out, version, "transaction", transaction)?;
        }
        if let Some(length) = head.content_length {
            out.extend_from_slice(b"content-length:");
            out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            out.extend_from_slice(b"\n");
        }
        for (name, text) in headers {
            if let Some(own) = own_header(name) {
                return Err(EncodeError::Reserved(own));
            }
            header(out, version, name, text)?;
        }
        out.extend_from_slice(b"\n");
        Ok(())
    })
}

/// Writes a whole BEGIN frame.
///
/// # Errors
/// An id that the version cannot carry; nothing is left in `out` then.
pub fn begin(
    out: &mut BytesMut,
    version: Version,
    transaction: &str,
    receipt: Option<ReceiptId<'_>>,
) -> Result<(), EncodeError> {
    bodiless(out, version, "BEGIN", Some(transaction), receipt)
}

/// Writes a whole ABORT frame.
///
/// # Errors
/// An id that the version cannot carry; nothing is left in `out` then.
pub fn abort(
    out: &mut BytesMut,
    version: Version,
    transaction: &str,
    receipt: Option<ReceiptId<'_>>,
) -> Result<(), EncodeError> {
    bodiless(out, version, "ABORT", Some(transaction), receipt)
}

/// Writes a whole COMMIT frame.
///
/// # Errors
/// An id that the version cannot carry; nothing is left in `out` then.
pub fn commit(
    out: &mut BytesMut,
    version: Version,
    transaction: &str,
    receipt: Option<ReceiptId<'_>>,
) -> Result<(), EncodeError> {
    bodiless(out, version, "COMMIT", Some(transaction), receipt)
}

/// Writes a whole DISCONNECT frame. Its receipt says that the broker has read all that came before.
///
/// # Errors
/// An id that the version cannot carry; nothing is left in `out` then.
pub fn disconnect(
    out: &mut BytesMut,
    version: Version,
    receipt: Option<ReceiptId<'_>>,
) -> Result<(), EncodeError> {
    bodiless(out, version, "DISCONNECT", None, receipt)
}

/// Writes a whole CONNECT frame. By the specification nothing is escaped in it, whatever the
/// version (chapter "Value Encoding"), so a line end in a passcode would be a header of its own: an
/// error instead.
pub(super) fn connect(out: &mut BytesMut, connect: &Connect<'_>) -> Result<(), EncodeError> {
    whole(out, |out| {
        out.extend_from_slice(b"CONNECT\naccept-version:");
        for (place, version) in Version::ALL.iter().enumerate() {
            out.extend_from_slice(if place == 0 { b"" } else { b"," });
            out.extend_from_slice(version.as_str().as_bytes());
        }
        let texts = [
            ("host", Some(connect.host)),
            ("login", connect.login),
            ("passcode", connect.passcode),
            ("client-id", connect.client_id),
        ];
        for (name, text) in texts {
            let Some(text) = text else { continue };
            out.extend_from_slice(b"\n");
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b":");
            Table::connect_values(connect.escaped)
                .write(out, text)
                .map_err(|byte| bad_value(name, byte))?;
        }
        let (send, expect) = connect.heart_beat;
        out.extend_from_slice(b"\nheart-beat:");
        out.extend_from_slice(itoa::Buffer::new().format(send).as_bytes());
        out.extend_from_slice(b",");
        out.extend_from_slice(itoa::Buffer::new().format(expect).as_bytes());
        out.extend_from_slice(b"\n\n\0");
        Ok(())
    })
}

fn bodiless(
    out: &mut BytesMut,
    version: Version,
    command: &str,
    transaction: Option<&str>,
    receipt: Option<ReceiptId<'_>>,
) -> Result<(), EncodeError> {
    whole(out, |out| {
        out.extend_from_slice(command.as_bytes());
        out.extend_from_slice(b"\n");
        if let Some(transaction) = transaction {
            out.extend_from_slice(b"transaction:");
            value(out, version, "transaction", transaction)?;
        }
        if let Some(receipt) = receipt {
            receipt_header(out, version, receipt)?;
        }
        out.extend_from_slice(b"\n\0");
        Ok(())
    })
}

/// Runs `write` and takes back what it wrote if it fails.
pub(super) fn whole(
    out: &mut BytesMut,
    write: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let before = out.len();
    write(out).inspect_err(|_| out.truncate(before))
}

pub(super) fn receipt_header(
    out: &mut BytesMut,
    version: Version,
    receipt: ReceiptId<'_>,
) -> Result<(), EncodeError> {
    out.extend_from_slice(b"receipt:");
    match receipt {
        ReceiptId::Number(number) => {
            out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
            out.extend_from_slice(b"\n");
            Ok(())
        }
        ReceiptId::Text(text) => value(out, version, "receipt", text),
    }
}

pub(super) fn header(
    out: &mut BytesMut,
    version: Version,
    name: &str,
    text: &str,
) -> Result<(), EncodeError> {
    if name.is_empty() {
        return Err(EncodeError::EmptyName);
    }
    Table::names(version)
        .write(out, name)
        .map_err(|byte| EncodeError::Name { name: printable(name, NAME_SHOWN), byte })?;
    out.extend_from_slice(b":");
    value(out, version, name, text)
}

/// Writes a value and the end of its line.
pub(super) fn value(
    out: &mut BytesMut,
    version: Version,
    name: &str,
    text: &str,
) -> Result<(), EncodeError> {
    Table::values(version).write(out, text).map_err(|byte| bad_value(name, byte))?;
    out.extend_from_slice(b"\n");
    Ok(())
}

#[cold]
fn bad_value(name: &str, byte: u8) -> EncodeError {
    EncodeError::Value { name: printable(name, NAME_SHOWN), byte }
}

/// The headers that [`SendHead`] sets. The first of a repeated header wins, so another one would
/// be lost at best; a stray `content-length` would break the framing.
fn own_header(name: &str) -> Option<&'static str> {
    match name {
        "destination" => Some("destination"),
        "receipt" => Some("receipt"),
        "transaction" => Some("transaction"),
        "content-length" => Some("content-length"),
        _ => None,
    }
}

fn describe(byte: u8) -> &'static str {
    match byte {
        0 => "a NUL character",
        b'\n' => "a line feed",
        b'\r' => "a carriage return",
        b':' => "a colon",
        _ => "a character",
    }
}
