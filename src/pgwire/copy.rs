//! What the server sends inside of CopyData while it replicates.

use crate::lsn::Lsn;
use crate::pgtime::PgTime;

/// The content of one CopyData.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicationMessage<'a> {
    /// `w`: a piece of the stream.
    XLogData {
        /// The position of what it carries; of a row, the start of its WAL record. The walsender puts
        /// `0/0` here for what is not the last message of its change: Relation, Type, and a Begin
        /// that an Origin follows.
        start: Lsn,
        /// The end of WAL as the server says; with pgoutput it is `start` again. Not a position to
        /// confirm.
        wal_end: Lsn,
        /// When it was sent, by the server's clock.
        sent_at: PgTime,
        /// One pgoutput message; its beginning, where the CopyData was truncated.
        data: &'a [u8],
    },
    /// `k`: the server is alive, and has read so far.
    Keepalive {
        /// What was read and sent. It can lie below the confirmed position during catch-up.
        wal_end: Lsn,
        /// When it was sent, by the server's clock.
        sent_at: PgTime,
        /// The server wants a status update at once.
        reply_requested: bool,
    },
}

/// The content of a CopyData that is no replication message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    /// An empty CopyData.
    #[error("an empty CopyData in the replication stream")]
    Empty,
    /// Neither XLogData nor a keepalive.
    #[error("unknown replication message '{}' of {len} bytes", tag.escape_ascii())]
    UnknownTag {
        /// Its type byte.
        tag: u8,
        /// Its length in bytes.
        len: usize,
    },
    /// A message that is too short, or a keepalive of another length than it has.
    #[error("{message} of {len} bytes ({expected} expected)")]
    BadLength {
        /// Its name.
        message: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The length in bytes that it must have: exactly for a keepalive, at least for XLogData.
        expected: usize,
    },
}

/// Reads the content of a CopyData that came in copy-both.
///
/// # Errors
/// [`CopyError`]: nothing the server is known to send.
#[inline]
pub fn parse(body: &[u8]) -> Result<ReplicationMessage<'_>, CopyError> {
    let &tag = body.first().ok_or(CopyError::Empty)?;
    match tag {
        b'w' => xlog_data(body),
        b'k' => keepalive(body),
        tag => Err(CopyError::UnknownTag { tag, len: body.len() }),
    }
}

fn xlog_data(body: &[u8]) -> Result<ReplicationMessage<'_>, CopyError> {
    const HEADER: usize = 25;
    let bad = CopyError::BadLength { message: "XLogData", len: body.len(), expected: HEADER };
    let (header, data) = body.split_first_chunk::<HEADER>().ok_or(bad)?;
    let (&[start, wal_end, sent_at], []) = header[1..].as_chunks::<8>() else { return Err(bad) };
    Ok(ReplicationMessage::XLogData {
        start: Lsn(u64::from_be_bytes(start)),
        wal_end: Lsn(u64::from_be_bytes(wal_end)),
        sent_at: PgTime(i64::from_be_bytes(sent_at)),
        data,
    })
}

fn keepalive(body: &[u8]) -> Result<ReplicationMessage<'_>, CopyError> {
    const LEN: usize = 18;
    let bad = CopyError::BadLength { message: "keepalive", len: body.len(), expected: LEN };
    let &[_, ref middle @ .., reply] = body else { return Err(bad) };
    let (&[wal_end, sent_at], []) = middle.as_chunks::<8>() else { return Err(bad) };
    Ok(ReplicationMessage::Keepalive {
        wal_end: Lsn(u64::from_be_bytes(wal_end)),
        sent_at: PgTime(i64::from_be_bytes(sent_at)),
        reply_requested: reply != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn xlog(start: u64, wal_end: u64, sent_at: i64, data: &[u8]) -> Vec<u8> {
        let header = [start.to_be_bytes(), wal_end.to_be_bytes(), sent_at.to_be_bytes()];
        [b"w", header.concat().as_slice(), data].concat()
    }

    proptest! {
        #[test]
        fn xlog_data_is_read_as_written(
            start: u64, wal_end: u64, sent_at: i64, data in vec(any::<u8>(), 0..40),
        ) {
            let bytes = xlog(start, wal_end, sent_at, &data);
            let (start, wal_end, sent_at) = (Lsn(start), Lsn(wal_end), PgTime(sent_at));
            let expected = ReplicationMessage::XLogData { start, wal_end, sent_at, data: &data };
            prop_assert_eq!(parse(&bytes), Ok(expected));
            for end in 0..25 {
                prop_assert!(parse(&bytes[..end]).is_err());
            }
        }

        #[test]
        fn a_keepalive_has_one_length(wal_end: u64, sent_at: i64, reply: u8, more: u8) {
            let numbers = [wal_end.to_be_bytes(), sent_at.to_be_bytes()].concat();
            let mut bytes = [b"k", numbers.as_slice(), &[reply]].concat();
            let expected = ReplicationMessage::Keepalive {
                wal_end: Lsn(wal_end),
                sent_at: PgTime(sent_at),
                reply_requested: reply != 0,
            };
            prop_assert_eq!(parse(&bytes), Ok(expected));
            for end in 0..bytes.len() {
                prop_assert!(parse(&bytes[..end]).is_err());
            }
            bytes.push(more);
            let expected = CopyError::BadLength { message: "keepalive", len: 19, expected: 18 };
            prop_assert_eq!(parse(&bytes), Err(expected));
        }

        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in vec(any::<u8>(), 0..60)) {
            let _ = parse(&bytes);
        }
    }

    #[test]
    fn what_is_unknown_is_named() {
        assert_eq!(parse(b""), Err(CopyError::Empty));
        let error = parse(b"s1234").unwrap_err();
        assert_eq!(error.to_string(), "unknown replication message 's' of 5 bytes");
    }
}
