//! Why bytes are no pgoutput message.

/// Bytes that are no message of pgoutput protocol version 1.
///
/// Each names the message, the field and the offset from the message's first byte. The LSN is the
/// caller's to add: it stands in the XLogData header, outside of the message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No byte at all.
    #[error("an empty pgoutput message")]
    Empty,
    /// A message that protocol version 1 does not have.
    #[error("unknown pgoutput message '{char}' (0x{code:02X})", char = .0.escape_ascii(), code = .0)]
    UnknownTag(u8),
    /// The bytes end inside a field.
    #[error("pgoutput {message}: the bytes end inside {field} at offset {at}")]
    EndsEarly {
        /// The message's name in the PostgreSQL documentation.
        message: &'static str,
        /// The field's name.
        field: &'static str,
        /// Where the field begins.
        at: usize,
    },
    /// Bytes are left after the last field.
    #[error("pgoutput {message}: {count} bytes too many from offset {at} on")]
    TrailingBytes {
        /// The message's name in the PostgreSQL documentation.
        message: &'static str,
        /// Where the message should have ended.
        at: usize,
        /// How many bytes follow.
        count: usize,
    },
    /// A name that is not UTF-8, although client_encoding is.
    #[error("pgoutput {message}: {field} at offset {at} is not UTF-8")]
    NotUtf8 {
        /// The message's name in the PostgreSQL documentation.
        message: &'static str,
        /// The field's name.
        field: &'static str,
        /// Where the field begins.
        at: usize,
    },
    /// A one-byte field holds what protocol version 1 does not define.
    #[error("pgoutput {message}: {field} at offset {at} is 0x{value:02X}, which has no meaning")]
    BadValue {
        /// The message's name in the PostgreSQL documentation.
        message: &'static str,
        /// The field's name.
        field: &'static str,
        /// Where the field is.
        at: usize,
        /// What it holds.
        value: u8,
    },
    /// A position that must be one is `0/0`; PostgreSQL's own subscriber refuses this as well.
    #[error("pgoutput {message}: {field} is 0/0")]
    NoPosition {
        /// The message's name in the PostgreSQL documentation.
        message: &'static str,
        /// The field's name.
        field: &'static str,
    },
}
