//! What can be known of a message of which only the beginning was kept.

use super::reader::Reader;
use super::tuple::Value;

/// A message that was too long to be read, by its beginning.
#[derive(Clone, Debug, PartialEq)]
pub enum Truncated<'a> {
    /// An inserted row.
    Insert {
        /// The oid of its relation.
        relation: u32,
        /// The values that are complete, in order.
        values: Vec<Value<'a>>,
    },
    /// An update or a delete.
    Operation,
    /// A logical message.
    Logical {
        /// Whether it belongs to a transaction.
        transactional: bool,
        /// Its prefix and the beginning of its content, where those were kept.
        content: Option<(&'a str, &'a [u8])>,
    },
}

/// Decodes the beginning of one XLogData. `None` where not even the header of such a message is
/// there, or where it is one that is never long.
#[must_use]
pub fn decode_truncated(beginning: &[u8]) -> Option<Truncated<'_>> {
    match beginning.first()? {
        b'I' => {
            let mut reader = Reader::after_tag("Insert", beginning);
            let relation = reader.u32("relation").ok()?;
            reader.one_of("kind of tuple", b"N").ok()?;
            Some(Truncated::Insert { relation, values: reader.leading_values()? })
        }
        b'U' | b'D' => Some(Truncated::Operation),
        b'M' => {
            let mut reader = Reader::after_tag("Message", beginning);
            let transactional = reader.one_of("flags", &[0, 1]).ok()? == 1;
            reader.lsn("LSN").ok()?;
            let prefix = reader.text("prefix").ok();
            // Behind it stands the length, of what was not kept too.
            let content = prefix.map(|prefix| (prefix, reader.rest().get(4..).unwrap_or_default()));
            Some(Truncated::Logical { transactional, content })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logical_message_is_known_by_its_prefix() {
        let logical = |transactional, content| Truncated::Logical { transactional, content };
        let whole = b"M\x01\0\0\0\0\0\0\0\x01walpost\0\0\xff\xff\xffbo";
        assert_eq!(
            decode_truncated(whole),
            Some(logical(true, Some(("walpost", b"bo".as_slice()))))
        );
        assert_eq!(decode_truncated(&whole[..14]), Some(logical(true, None)));
        assert_eq!(decode_truncated(&whole[..5]), None);
        assert_eq!(
            decode_truncated(b"M\0\0\0\0\0\0\0\0\x01x\0"),
            Some(logical(false, Some(("x", b"".as_slice()))))
        );
        // A flag without a known meaning.
        assert_eq!(decode_truncated(b"M\x03\0\0\0\0\0\0\0\x01x\0"), None);
    }

    #[test]
    fn what_is_never_long_is_nothing() {
        assert_eq!(decode_truncated(b"U\0"), Some(Truncated::Operation));
        assert_eq!(decode_truncated(b"B\0\0\0\0"), None);
        assert_eq!(decode_truncated(b""), None);
    }
}
