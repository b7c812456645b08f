//! What a header name or value can carry and how it is written, per version (chapter "Value
//! Encoding").
//!
//! | version | written as an escape | cannot be carried |
//! |---|---|---|
//! | 1.0 | nothing | NUL, LF; a colon in a name |
//! | 1.1 | `\` LF `:` | NUL |
//! | 1.2 | `\` LF `:` CR | NUL |
//! | CONNECT, CONNECTED of any version | nothing | NUL, LF, CR; a colon in a name |
//!
//! RabbitMQ undoes escapes in CONNECT all the same; see
//! [`SessionSettings::escape_connect`](super::session::SessionSettings::escape_connect).
//!
//! In 1.0 and 1.1 a line ends in LF alone, so a CR is a character like any other there.

use std::borrow::Cow;

use bytes::BytesMut;

use super::Version;

/// The byte goes as it is.
const PLAIN: u8 = 0;
/// The byte cannot be carried. Any other class is the letter behind the backslash.
const FORBIDDEN: u8 = 1;

/// For each byte: [`PLAIN`], [`FORBIDDEN`], or the letter of its escape.
pub(super) struct Table([u8; 256]);

static V1_0_NAME: Table = Table::new(&[(0, FORBIDDEN), (b'\n', FORBIDDEN), (b':', FORBIDDEN)]);
static V1_0_VALUE: Table = Table::new(&[(0, FORBIDDEN), (b'\n', FORBIDDEN)]);
static V1_1: Table = Table::new(&[(0, FORBIDDEN), (b'\n', b'n'), (b':', b'c'), (b'\\', b'\\')]);
static V1_2: Table =
    Table::new(&[(0, FORBIDDEN), (b'\n', b'n'), (b':', b'c'), (b'\\', b'\\'), (b'\r', b'r')]);
static CONNECT_VALUE: Table = Table::new(&[(0, FORBIDDEN), (b'\n', FORBIDDEN), (b'\r', FORBIDDEN)]);

impl Table {
    const fn new(special: &[(u8, u8)]) -> Table {
        let mut classes = [PLAIN; 256];
        let mut at = 0;
        while at < special.len() {
            classes[special[at].0 as usize] = special[at].1;
            at += 1;
        }
        Table(classes)
    }

    /// The table for header names.
    pub(super) fn names(version: Version) -> &'static Table {
        match version {
            Version::V1_0 => &V1_0_NAME,
            Version::V1_1 => &V1_1,
            Version::V1_2 => &V1_2,
        }
    }

    /// The table for header values.
    pub(super) fn values(version: Version) -> &'static Table {
        match version {
            Version::V1_0 => &V1_0_VALUE,
            Version::V1_1 => &V1_1,
            Version::V1_2 => &V1_2,
        }
    }

    /// The table for values of a CONNECT frame: as the specification has it, or escaped as in 1.2,
    /// which is what RabbitMQ reads.
    pub(super) fn connect_values(escaped: bool) -> &'static Table {
        if escaped { &V1_2 } else { &CONNECT_VALUE }
    }

    fn class(&self, byte: u8) -> u8 {
        self.0[usize::from(byte)]
    }

    /// Appends `text`, escaped. The error is the first byte that cannot be carried; `out` then
    /// holds what came before it.
    #[inline]
    pub(super) fn write(&self, out: &mut BytesMut, text: &str) -> Result<(), u8> {
        let mut rest = text.as_bytes();
        if !may_be_special(rest) {
            out.extend_from_slice(rest);
            return Ok(());
        }
        while let Some(at) = rest.iter().position(|byte| self.class(*byte) != PLAIN) {
            let byte = rest[at];
            let letter = self.class(byte);
            if letter == FORBIDDEN {
                return Err(byte);
            }
            out.extend_from_slice(&rest[..at]);
            out.extend_from_slice(&[b'\\', letter]);
            rest = &rest[at + 1..];
        }
        out.extend_from_slice(rest);
        Ok(())
    }
}

/// Whether a byte is there that some table treats apart. Without an early end, so that the compiler
/// looks at many bytes at once: most texts have none.
fn may_be_special(bytes: &[u8]) -> bool {
    bytes.iter().fold(false, |found, byte| found | matches!(byte, 0 | b'\n' | b'\r' | b':' | b'\\'))
}

/// Whether a header may be called `name`. An empty name may not be sent in any version.
#[must_use]
pub fn can_send_name(name: &str, version: Version) -> bool {
    let table = Table::names(version);
    !name.is_empty() && name.bytes().all(|byte| table.class(byte) != FORBIDDEN)
}

/// Whether a header may have this value.
#[must_use]
pub fn can_send_value(value: &str, version: Version) -> bool {
    let table = Table::values(version);
    value.bytes().all(|byte| table.class(byte) != FORBIDDEN)
}

/// Bytes that `text` takes as a header's name or value, escapes included.
#[must_use]
pub fn encoded_len(text: &str, version: Version) -> usize {
    let table = Table::values(version);
    text.bytes().map(|byte| if table.class(byte) > FORBIDDEN { 2 } else { 1 }).sum()
}

/// A backslash that begins no escape of the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UndefinedEscape;

/// Undoes the escapes of a received name or value. With `lenient` an undefined one stays as it is,
/// otherwise it is an error (as the specification demands).
pub(super) fn unescape(
    bytes: &[u8],
    version: Version,
    lenient: bool,
) -> Result<Cow<'_, [u8]>, UndefinedEscape> {
    if version == Version::V1_0 || memchr::memchr(b'\\', bytes).is_none() {
        return Ok(Cow::Borrowed(bytes));
    }
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        plain.extend_from_slice(&rest[..at]);
        let byte = match rest.get(at + 1) {
            Some(b'\\') => b'\\',
            Some(b'n') => b'\n',
            Some(b'c') => b':',
            Some(b'r') if version == Version::V1_2 => b'\r',
            _ if lenient => {
                plain.push(b'\\');
                rest = &rest[at + 1..];
                continue;
            }
            _ => return Err(UndefinedEscape),
        };
        plain.push(byte);
        rest = &rest[at + 2..];
    }
    plain.extend_from_slice(rest);
    Ok(Cow::Owned(plain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(text: &str, version: Version) -> Option<String> {
        let mut out = BytesMut::new();
        Table::values(version).write(&mut out, text).ok()?;
        Some(String::from_utf8(out.to_vec()).unwrap())
    }

    #[test]
    fn each_version_writes_its_own_escapes() {
        let text = "a\\b:c\rd";
        assert_eq!(written(text, Version::V1_0).unwrap(), text);
        assert_eq!(written(text, Version::V1_1).unwrap(), "a\\\\b\\cc\rd");
        assert_eq!(written(text, Version::V1_2).unwrap(), "a\\\\b\\cc\\rd");
        assert_eq!(written("\n", Version::V1_0), None);
        assert_eq!(written("\n", Version::V1_1).unwrap(), "\\n");
        assert_eq!(written("\n", Version::V1_2).unwrap(), "\\n");
    }

    #[test]
    fn what_can_be_sent() {
        for version in Version::ALL {
            assert!(!can_send_name("", version), "{version}");
            assert!(!can_send_name("a\0", version), "{version}");
            assert!(!can_send_value("a\0", version), "{version}");
            assert!(can_send_value("", version), "{version}");
            assert!(can_send_value("a:b\\\r", version), "{version}");
            assert_eq!(can_send_value("a\nb", version), version != Version::V1_0, "{version}");
            assert_eq!(can_send_name("a\nb", version), version != Version::V1_0, "{version}");
            assert_eq!(can_send_name("a:b", version), version != Version::V1_0, "{version}");
        }
    }

    #[test]
    fn what_a_table_treats_apart_is_looked_for() {
        for table in [&V1_0_NAME, &V1_0_VALUE, &V1_1, &V1_2, &CONNECT_VALUE] {
            for byte in 0..=255 {
                assert!(table.class(byte) == PLAIN || may_be_special(&[byte]), "{byte}");
            }
        }
    }

    #[test]
    fn undefined_escapes() {
        for (text, version) in
            [("\\t", Version::V1_2), ("\\r", Version::V1_1), ("a\\", Version::V1_1)]
        {
            assert_eq!(unescape(text.as_bytes(), version, false), Err(UndefinedEscape), "{text}");
            assert_eq!(
                unescape(text.as_bytes(), version, true).unwrap(),
                text.as_bytes(),
                "{text}"
            );
            assert_eq!(unescape(text.as_bytes(), Version::V1_0, false).unwrap(), text.as_bytes());
        }
        assert_eq!(unescape(b"\\q\\n\\", Version::V1_2, true).unwrap(), &b"\\q\n\\"[..]);
    }

    proptest! {
        #[test]
        fn written_and_read_again_is_the_same(text in "[a:\\\\\r\n\0ä]{0,12}", which in 0..3_usize) {
            let version = Version::ALL[which];
            let out = written(&text, version);
            prop_assert_eq!(out.is_some(), can_send_value(&text, version));
            if let Some(out) = out {
                prop_assert_eq!(out.len(), encoded_len(&text, version));
                prop_assert_eq!(unescape(out.as_bytes(), version, false).unwrap(), text.as_bytes());
            }
        }

        #[test]
        fn any_bytes_are_text_or_an_error(bytes: Vec<u8>, which in 0..3_usize, lenient: bool) {
            let result = unescape(&bytes, Version::ALL[which], lenient);
            prop_assert!(result.is_ok() || !lenient);
        }
    }
}
