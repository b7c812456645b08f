//! ErrorResponse and NoticeResponse.

use std::fmt;

/// An error or a notice from the server.
///
/// Classify by [`ServerError::code`]: the texts follow the server's language. It prints as one line,
/// without detail and hint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerError {
    /// `ERROR`, `FATAL`, `PANIC`, or a notice's `WARNING`, `NOTICE`, `LOG`, …; not translated.
    pub severity: String,
    /// The SQLSTATE, five characters (PostgreSQL documentation, appendix "PostgreSQL Error Codes").
    pub code: String,
    /// What happened.
    pub message: String,
    /// More of it.
    pub detail: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Where in the command, in characters from 1.
    pub position: Option<u32>,
}

impl ServerError {
    /// Reads the fields of an ErrorResponse or a NoticeResponse.
    ///
    /// Never fails: what is missing stays empty, and before the session has an encoding a text may
    /// not be UTF-8. A half-readable reason is worth more than a protocol error in its place.
    pub(super) fn parse(body: &[u8]) -> Self {
        let mut error = ServerError::default();
        for field in body.split(|byte| *byte == 0) {
            let Some((&kind, text)) = field.split_first() else { continue };
            let text = String::from_utf8_lossy(text).into_owned();
            match kind {
                b'V' => error.severity = text,
                // Translated, and only a stand-in where there is no V (before PostgreSQL 9.6).
                b'S' if error.severity.is_empty() => error.severity = text,
                b'C' => error.code = text,
                b'M' => error.message = text,
                b'D' => error.detail = Some(text),
                b'H' => error.hint = Some(text),
                b'P' => error.position = text.parse().ok(),
                _ => {}
            }
        }
        error
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One line, whatever the server puts in it.
        let line = |text: &str| text.replace(|c: char| c.is_control(), " ");
        write!(
            f,
            "{}: {} (SQLSTATE {})",
            line(&self.severity),
            line(&self.message),
            line(&self.code)
        )
    }
}

impl std::error::Error for ServerError {}
