//! Messages to the server, appended to a buffer that the caller writes to the socket.

use bytes::{BufMut, BytesMut};
use postgres_protocol::message::frontend;

use crate::lsn::Lsn;
use crate::pgtime::PgTime;

/// A text with a NUL in it, which the protocol has no way to send. The text is not told: it may be
/// a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} contains a NUL character (or is too long), which PostgreSQL's protocol cannot carry")]
pub struct EncodeError(
    /// What the text was for.
    pub &'static str,
);

/// StartupMessage for logical replication (`replication=database`), with `parameters` as the session's
/// settings.
///
/// # Errors
/// A NUL in one of the texts.
pub fn startup(
    out: &mut BytesMut,
    user: &str,
    database: &str,
    parameters: &[(String, String)],
) -> Result<(), EncodeError> {
    let fixed = [("user", user), ("database", database), ("replication", "database")];
    let settings = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    frontend::startup_message(fixed.into_iter().chain(settings), out)
        .map_err(|_| EncodeError("the user, the database or a session setting"))
}

/// SSLRequest: the first bytes of a connection that is to be encrypted. The server answers with
/// one byte, `S` or `N`.
pub fn ssl_request(out: &mut BytesMut) {
    frontend::ssl_request(out);
}

/// PasswordMessage: a password in clear, or the MD5 hash that was asked for.
///
/// # Errors
/// A NUL in it.
pub fn password(out: &mut BytesMut, password: &[u8]) -> Result<(), EncodeError> {
    frontend::password_message(password, out).map_err(|_| EncodeError("the password"))
}

/// SASLInitialResponse.
///
/// # Errors
/// A NUL in the mechanism's name.
pub fn sasl_initial(out: &mut BytesMut, mechanism: &str, data: &[u8]) -> Result<(), EncodeError> {
    frontend::sasl_initial_response(mechanism, data, out)
        .map_err(|_| EncodeError("the SASL mechanism"))
}

/// SASLResponse.
///
/// # Errors
/// Data longer than a message can be.
pub fn sasl_response(out: &mut BytesMut, data: &[u8]) -> Result<(), EncodeError> {
    frontend::sasl_response(data, out).map_err(|_| EncodeError("the SASL response"))
}

/// Query: a replication command or SQL.
///
/// # Errors
/// A NUL in it.
pub fn query(out: &mut BytesMut, query: &str) -> Result<(), EncodeError> {
    frontend::query(query, out).map_err(|_| EncodeError("a command"))
}

/// Standby status update in a CopyData: up to where the server's data was written, flushed and
/// applied here. The server keeps no WAL before `flush`; `0/0` confirms nothing.
pub fn status_update(
    out: &mut BytesMut,
    write: Lsn,
    flush: Lsn,
    apply: Lsn,
    now: PgTime,
    reply_requested: bool,
) {
    const LEN: i32 = 4 + 1 + 4 * 8 + 1;
    out.put_u8(b'd');
    out.put_i32(LEN);
    out.put_u8(b'r');
    out.put_u64(write.0);
    out.put_u64(flush.0);
    out.put_u64(apply.0);
    out.put_i64(now.0);
    out.put_u8(u8::from(reply_requested));
}

/// CopyDone: no more status updates; the server ends the stream with a CopyDone of its own.
pub fn copy_done(out: &mut BytesMut) {
    frontend::copy_done(out);
}

/// Terminate: the connection is closed on purpose.
pub fn terminate(out: &mut BytesMut) {
    frontend::terminate(out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
        let mut out = BytesMut::new();
        write(&mut out);
        out.to_vec()
    }

    #[test]
    fn each_message_is_as_the_documentation_draws_it() {
        let settings = [("datestyle".to_owned(), "ISO".to_owned())];
        let startup = written(|out| startup(out, "u", "d", &settings).unwrap());
        let body = b"\0\x03\0\0user\0u\0database\0d\0replication\0database\0datestyle\0ISO\0\0";
        assert_eq!(startup[..4], (body.len() as u32 + 4).to_be_bytes());
        assert_eq!(&startup[4..], body);
        assert_eq!(written(|out| query(out, "SELECT").unwrap()), b"Q\0\0\0\x0bSELECT\0");
        assert_eq!(written(|out| password(out, b"pw").unwrap()), b"p\0\0\0\x07pw\0");
        assert_eq!(written(copy_done), b"c\0\0\0\x04");
        assert_eq!(written(terminate), b"X\0\0\0\x04");
        assert_eq!(written(ssl_request), b"\0\0\0\x08\x04\xd2\x16\x2f");
    }

    #[test]
    fn a_status_update_holds_its_three_positions_in_order() {
        let update = written(|out| {
            status_update(out, Lsn(0x0102), Lsn(0x0304), Lsn(0x0506), PgTime(-2), true);
        });
        let expected = [
            &b"d\0\0\0\x26r"[..],
            &0x0102_u64.to_be_bytes(),
            &0x0304_u64.to_be_bytes(),
            &0x0506_u64.to_be_bytes(),
            &(-2_i64).to_be_bytes(),
            &[1],
        ];
        assert_eq!(update, expected.concat());
        assert_eq!(update.len(), 1 + 0x26);
    }

    #[test]
    fn a_nul_is_refused_without_telling_the_text() {
        let error = password(&mut BytesMut::new(), b"se\0cret").unwrap_err();
        assert!(!error.to_string().contains("se"), "{error}");
        assert!(query(&mut BytesMut::new(), "a\0b").is_err());
        assert!(startup(&mut BytesMut::new(), "u\0", "d", &[]).is_err());
    }
}
