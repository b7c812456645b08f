//! Messages from the server, outside of the replicated stream itself.

use super::server_error::ServerError;

/// One message, borrowed from the frame where it is not an error.
#[derive(Clone, Debug, PartialEq)]
pub enum Backend<'a> {
    /// `R`: a step of the login. Read further by [`super::login`].
    Authentication {
        /// Which one.
        kind: u32,
        /// What comes with it.
        data: &'a [u8],
    },
    /// `S`: the value of a session setting.
    ParameterStatus {
        /// The setting.
        name: &'a str,
        /// Its value.
        value: &'a str,
    },
    /// `K`: the server process. The secret that comes with it is dropped.
    BackendKeyData {
        /// The server's process id.
        process_id: u32,
    },
    /// `Z`: ready for the next command.
    ReadyForQuery {
        /// `I` idle, `T` in a transaction, `E` in a failed one.
        status: u8,
    },
    /// `T`: the names of the columns of the rows that follow.
    RowDescription(Vec<&'a str>),
    /// `D`: one row, its values in text format.
    DataRow(Vec<Option<&'a str>>),
    /// `C`: a command is done; its tag.
    CommandComplete(&'a str),
    /// `I`: the command was empty.
    EmptyQueryResponse,
    /// `W`: the replication stream begins, in both directions.
    CopyBothResponse,
    /// `d`: what [`super::copy::parse`] reads.
    CopyData(&'a [u8]),
    /// `c`: the server ends the stream.
    CopyDone,
    /// `E`: an error. `FATAL` and `PANIC` end the connection.
    ErrorResponse(Box<ServerError>),
    /// `N`: a notice or a warning.
    NoticeResponse(Box<ServerError>),
}

/// A frame that is no message that a server sends to a replication connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// A message that has no place in this protocol.
    #[error("unknown PostgreSQL message '{}' of {len} bytes", tag.escape_ascii())]
    UnknownTag {
        /// Its type byte.
        tag: u8,
        /// The length of its body in bytes.
        len: usize,
    },
    /// The content is not what the message must have.
    #[error(
        "malformed PostgreSQL message {message}: {field} is cut off, not UTF-8 or followed by more"
    )]
    Malformed {
        /// The message's name in the PostgreSQL documentation.
        message: &'static str,
        /// The field.
        field: &'static str,
    },
}

impl<'a> Backend<'a> {
    /// Reads the body of a frame.
    ///
    /// # Errors
    /// [`BackendError`]: what no PostgreSQL sends here.
    pub fn parse(tag: u8, body: &'a [u8]) -> Result<Self, BackendError> {
        match tag {
            b'd' => Ok(Backend::CopyData(body)),
            b'R' => authentication(Fields::new("Authentication", body)),
            b'S' => parameter_status(Fields::new("ParameterStatus", body)),
            b'K' => key_data(Fields::new("BackendKeyData", body)),
            b'Z' => ready(Fields::new("ReadyForQuery", body)),
            b'T' => row_description(Fields::new("RowDescription", body)),
            b'D' => data_row(Fields::new("DataRow", body)),
            b'C' => command_complete(Fields::new("CommandComplete", body)),
            b'I' => Fields::new("EmptyQueryResponse", body).end(Backend::EmptyQueryResponse),
            b'W' => copy_both(Fields::new("CopyBothResponse", body)),
            b'c' => Fields::new("CopyDone", body).end(Backend::CopyDone),
            b'E' => Ok(Backend::ErrorResponse(Box::new(ServerError::parse(body)))),
            b'N' => Ok(Backend::NoticeResponse(Box::new(ServerError::parse(body)))),
            tag => Err(BackendError::UnknownTag { tag, len: body.len() }),
        }
    }
}

fn authentication(mut fields: Fields<'_>) -> Result<Backend<'_>, BackendError> {
    let kind = u32::from_be_bytes(fields.array("kind")?);
    Ok(Backend::Authentication { kind, data: fields.rest })
}

fn parameter_status(mut fields: Fields<'_>) -> Result<Backend<'_>, BackendError> {
    let (name, value) = (fields.text("name")?, fields.text("value")?);
    fields.end(Backend::ParameterStatus { name, value })
}

fn key_data(mut fields: Fields<'_>) -> Result<Backend<'_>, BackendError> {
    Ok(Backend::BackendKeyData { process_id: u32::from_be_bytes(fields.array("process id")?) })
}

fn ready(mut fields: Fields<'_>) -> Result<Backend<'_>, BackendError> {
    let [status] = fields.array("status")?;
    fields.end(Backend::ReadyForQuery { status })
}

fn row_description(mut fields: Fields<'_>) -> Result<Backend<'_>, BackendError> {
    let count = fields.count()?;
    let mut names = Vec::new();
    for _ in 0..count {
        names.push(fields.text("column name")?);
        // Table, column, type, its length, its modifier, format.
        fields.array::<18>("column")?;
    }
    fields.end(Backend::RowDescription(names))
}

fn data_row(mut fields: Fields<'_>) -> Result<Backend<'_>, BackendError> {
    let count = fields.count()?;
    let mut values = Vec::new();
    for _ in 0..count {
        values.push(match u32::from_be_bytes(fields.array("length of a value")?) {
            u32::MAX => None,
            len => Some(fields.utf8("value", len as usize)?),
        });
    }
    fields.end(Backend::DataRow(values))
}

fn command_complete(mut fields: Fields<'_>) -> Result<Backend<'_>, BackendError> {
    let tag = fields.text("command tag")?;
    fields.end(Backend::CommandComplete(tag))
}

fn copy_both(mut fields: Fields<'_>) -> Result<Backend<'_>, BackendError> {
    fields.array::<1>("format")?;
    let count = fields.count()?;
    for _ in 0..count {
        fields.array::<2>("format of a column")?;
    }
    fields.end(Backend::CopyBothResponse)
}

/// The fields of one message that are still to be read.
struct Fields<'a> {
    message: &'static str,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn new(message: &'static str, rest: &'a [u8]) -> Self {
        Fields { message, rest }
    }

    fn malformed(&self, field: &'static str) -> BackendError {
        BackendError::Malformed { message: self.message, field }
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], BackendError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or_else(|| self.malformed(field))?;
        self.rest = rest;
        Ok(*array)
    }

    fn count(&mut self) -> Result<u16, BackendError> {
        self.array("number of columns").map(u16::from_be_bytes)
    }

    fn utf8(&mut self, field: &'static str, len: usize) -> Result<&'a str, BackendError> {
        let (text, rest) = self.rest.split_at_checked(len).ok_or_else(|| self.malformed(field))?;
        self.rest = rest;
        std::str::from_utf8(text).map_err(|_| self.malformed(field))
    }

    fn text(&mut self, field: &'static str) -> Result<&'a str, BackendError> {
        let len = memchr::memchr(0, self.rest).ok_or_else(|| self.malformed(field))?;
        let text = self.utf8(field, len)?;
        self.rest = &self.rest[1..];
        Ok(text)
    }

    fn end(self, message: Backend<'a>) -> Result<Backend<'a>, BackendError> {
        if self.rest.is_empty() { Ok(message) } else { Err(self.malformed("the end")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// One sample of each message, as the documentation draws it.
    fn samples() -> Vec<(u8, Vec<u8>, Backend<'static>)> {
        let row = b"\0\x03\0\0\0\x02ab\xff\xff\xff\xff\0\0\0\0".to_vec();
        let mut columns = b"\0\x02".to_vec();
        for name in ["systemid", "timeline"] {
            columns.extend(name.bytes().chain([0; 19]));
        }
        vec![
            (b'R', b"\0\0\0\x05salt".to_vec(), Backend::Authentication { kind: 5, data: b"salt" }),
            (
                b'S',
                b"server_version\x0018.4\0".to_vec(),
                Backend::ParameterStatus { name: "server_version", value: "18.4" },
            ),
            (b'K', b"\0\0\x01\0keys".to_vec(), Backend::BackendKeyData { process_id: 256 }),
            (b'Z', b"I".to_vec(), Backend::ReadyForQuery { status: b'I' }),
            (b'T', columns, Backend::RowDescription(vec!["systemid", "timeline"])),
            (b'D', row, Backend::DataRow(vec![Some("ab"), None, Some("")])),
            (b'C', b"SELECT 1\0".to_vec(), Backend::CommandComplete("SELECT 1")),
            (b'I', vec![], Backend::EmptyQueryResponse),
            (b'W', b"\0\0\x01\0\0".to_vec(), Backend::CopyBothResponse),
            (b'd', b"wxyz".to_vec(), Backend::CopyData(b"wxyz")),
            (b'c', vec![], Backend::CopyDone),
        ]
    }

    #[test]
    fn each_message_is_read_and_none_is_longer_or_shorter() {
        for (tag, body, expected) in samples() {
            assert_eq!(Backend::parse(tag, &body), Ok(expected.clone()));
            // These end where the frame ends.
            if [b'R', b'K', b'd'].contains(&tag) {
                continue;
            }
            for end in 0..body.len() {
                let found = Backend::parse(tag, &body[..end]);
                assert!(found.is_err(), "{}: {found:?}", char::from(tag));
            }
            let longer = [body.as_slice(), b"x"].concat();
            assert!(Backend::parse(tag, &longer).is_err(), "{}", char::from(tag));
        }
    }

    #[test]
    fn an_error_has_its_fields_and_prints_as_one_line() {
        let body = b"SFATAL\0VFATAL\0C28P01\0Mpassword\nfailed\0Dmore\0Hdo\0P12\0Rauth_failed\0\0";
        let Ok(Backend::ErrorResponse(error)) = Backend::parse(b'E', body) else { panic!() };
        assert_eq!(error.code, "28P01");
        assert_eq!(error.detail.as_deref(), Some("more"));
        assert_eq!(error.hint.as_deref(), Some("do"));
        assert_eq!(error.position, Some(12));
        assert_eq!(error.to_string(), "FATAL: password failed (SQLSTATE 28P01)");
    }

    #[test]
    fn the_severity_is_the_untranslated_one() {
        for body in [&b"SFEHLER\0VERROR\0\0"[..], b"VERROR\0SFEHLER\0\0", b"SERROR\0\0"] {
            assert_eq!(ServerError::parse(body).severity, "ERROR");
        }
    }

    #[test]
    fn what_is_unknown_is_named() {
        let error = Backend::parse(b'v', b"1234").unwrap_err();
        assert_eq!(error.to_string(), "unknown PostgreSQL message 'v' of 4 bytes");
        let error = Backend::parse(b'Z', b"").unwrap_err();
        assert!(error.to_string().contains("ReadyForQuery: status"), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(tag: u8, body in vec(any::<u8>(), 0..80)) {
            let _ = Backend::parse(tag, &body);
            for (tag, _, _) in samples() {
                let _ = Backend::parse(tag, &body);
            }
        }
    }
}
