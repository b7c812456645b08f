//! Rows that are no messages, and why.

use std::fmt;

/// A row of an outbox that cannot be a message. It must not be passed over unseen.
///
/// It prints as one line for an operator, whatever the row holds; bodies are never in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// Where it was inserted: `schema.name`, or the prefix of a logical message.
    pub table: String,
    /// Its id, where that could be read.
    pub id: Option<String>,
    /// What is wrong with it.
    pub reason: UnfitReason,
}

/// Why a row cannot be a message. Columns and headers are named as the operator knows them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnfitReason {
    /// The id is null or empty.
    #[error("it has no id")]
    NoId,
    /// The destination is null or empty, also with the template applied.
    #[error("it has no destination")]
    NoDestination,
    /// The STOMP frame would be larger than the broker takes.
    #[error("its frame of {frame_len} bytes is larger than broker.max_frame_size ({max} bytes)")]
    TooLarge {
        /// Bytes of the frame, escapes and the broker's own headers included.
        frame_len: usize,
        /// The setting.
        max: usize,
    },
    /// The row, with the columns that are not sent, is longer than what is read of one.
    #[error(
        "with all its columns it is longer than what is read of a row (2 x broker.max_frame_size + 1 MiB)"
    )]
    TooLong,
    /// A header whose name is empty or which has a NUL in it.
    #[error("its header '{}' can't be sent (empty name, or a NUL)", Shown(.name))]
    Header {
        /// Its name.
        name: String,
    },
    /// More headers of its own than anybody means to send.
    #[error("it has more than {max} headers")]
    TooManyHeaders {
        /// How many are allowed.
        max: usize,
    },
    /// Its headers are no JSON object.
    #[error("its headers are not a JSON object (see line {line}, column {column} of them)")]
    HeadersNotAnObject {
        /// Where the reader gave up, counted from 1.
        line: usize,
        /// Where in the line.
        column: usize,
    },
    /// A text that a STOMP header must carry has a NUL in it.
    #[error("there is a NUL in its {what}")]
    Nul {
        /// `id`, `destination` or `key`.
        what: &'static str,
    },
    /// Both columns for a body are set.
    #[error("it has two bodies, in {} and {}", Shown(.text), Shown(.bytes))]
    TwoBodies {
        /// The column of the one.
        text: String,
        /// The column of the other.
        bytes: String,
    },
    /// A `bytea` that is not in hex format.
    #[error("column {} is no bytea in hex format (bytea_output must be hex)", Shown(.column))]
    Bytea {
        /// The column.
        column: String,
    },
    /// A text that is no UTF-8.
    #[error("column {} is not UTF-8 (client_encoding must be UTF8)", Shown(.column))]
    NotUtf8 {
        /// The column.
        column: String,
    },
    /// A TOASTed value that PostgreSQL did not send. It sends all of an inserted row.
    #[error("PostgreSQL did not send the value of column {}", Shown(.column))]
    NotSent {
        /// The column.
        column: String,
    },
    /// A value in binary format, which walpost never asks for.
    #[error("PostgreSQL sent column {} in binary format", Shown(.column))]
    Binary {
        /// The column.
        column: String,
    },
    /// A logical message with walpost's prefix that does not begin with the line that `walpost.emit` writes.
    #[error(
        "it was not written by walpost.emit (see column {column} of its first line); call that, or use another prefix"
    )]
    NotEmitted {
        /// Where the reader gave up, counted from 1.
        column: usize,
    },
}

/// Why something was read and is no message, rightly so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SkipReason {
    /// A row of a table that is no outbox.
    OtherTable,
    /// Layout `django`: the row's status is not 1 (scheduled).
    Status,
    /// A logical message with a prefix that is not ours.
    OtherPrefix,
    /// A logical message outside of any transaction.
    NonTransactional,
    /// A logical message of another shard.
    OtherShard,
}

impl SkipReason {
    /// The label of `walpost_rows_skipped_total`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            SkipReason::OtherTable => "other_table",
            SkipReason::Status => "status",
            SkipReason::OtherPrefix => "other_prefix",
            SkipReason::NonTransactional => "non_transactional",
            SkipReason::OtherShard => "other_shard",
        }
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.id {
            Some(id) => write!(f, "the row '{}' in {}", Shown(id), Shown(&self.table))?,
            None => write!(f, "a row in {}", Shown(&self.table))?,
        }
        write!(f, " cannot be a message: {}", self.reason)
    }
}

/// Somebody else's text in a line of ours: control characters escaped, long ones cut.
pub(super) struct Shown<'a>(pub(super) &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut symbols = self.0.chars();
        for symbol in symbols.by_ref().take(100) {
            if symbol.is_control() || ('\u{2028}'..='\u{202e}').contains(&symbol) {
                write!(f, "{}", symbol.escape_default())?;
            } else {
                write!(f, "{symbol}")?;
            }
        }
        if symbols.next().is_some() { f.write_str("…") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_well() {
        let unfit = |id: Option<&str>, reason| {
            Unfit { table: "walpost.outbox".into(), id: id.map(Into::into), reason }.to_string()
        };
        assert_eq!(
            unfit(Some("7f"), UnfitReason::TooLarge { frame_len: 5_000_000, max: 4_194_304 }),
            "the row '7f' in walpost.outbox cannot be a message: its frame of 5000000 bytes is \
             larger than broker.max_frame_size (4194304 bytes)"
        );
        assert_eq!(
            unfit(None, UnfitReason::NoId),
            "a row in walpost.outbox cannot be a message: it has no id"
        );
        assert!(
            unfit(Some("a\nb"), UnfitReason::Header { name: "x\0".into() })
                .ends_with("its header 'x\\u{0}' can't be sent (empty name, or a NUL)")
        );
    }

    proptest! {
        #[test]
        fn is_one_line_whatever_the_row_holds(
            id in prop::option::of(any::<String>()), table: String, column: String,
        ) {
            let unfit = Unfit { table, id, reason: UnfitReason::NotUtf8 { column } };
            let line = unfit.to_string();
            prop_assert!(!line.chars().any(|symbol| symbol.is_control()));
            prop_assert!(line.chars().count() < 4_000);
        }
    }
}
