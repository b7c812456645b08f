//! What can go wrong on the SQL side.

use std::io;
use std::time::Duration;

use super::name::one_line;
use super::sqlstate::{self, Class};
use crate::net::Address;
use crate::net::tls::{TlsError, Words};

/// An error of the SQL side. Each text says what was being done, and holds no password.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// `postgres.url` is not a connection string. The text is not shown: it may hold a password.
    #[error(
        "postgres.url is not a connection string (expected postgresql://user@host:5432/database; \
         special characters of a password must be percent-encoded)"
    )]
    Url,
    /// There is no TLS where it has to be.
    #[error("connecting to PostgreSQL: {address}: {error}")]
    Tls {
        /// Where.
        address: Address,
        /// Why.
        error: TlsError,
    },
    /// No answer in time.
    #[error("{what}: no answer from {server} within {after:?}")]
    Timeout {
        /// What was being done.
        what: &'static str,
        /// The host and port.
        server: String,
        /// How long was waited.
        after: Duration,
    },
    /// The host answers, and accepts no writes.
    #[error("connecting to PostgreSQL: {server} accepts no writes (a standby, or read-only)")]
    ReadOnly {
        /// The host and port.
        server: String,
    },
    /// The server is older than PostgreSQL 14.
    #[error("PostgreSQL {}.{} is too old: walpost needs 14 or later", .0 / 10_000, .0 % 10_000)]
    TooOld(
        /// `server_version_num`.
        u32,
    ),
    /// The server answered with an error.
    #[error("{what}: PostgreSQL says: {message} (SQLSTATE {code})")]
    Server {
        /// What was being done.
        what: &'static str,
        /// SQLSTATE.
        code: String,
        /// Message and hint of the server, on one line.
        message: String,
    },
    /// The connection could not be made, broke, or was closed.
    #[error("{what}: {cause}")]
    Connection {
        /// What was being done.
        what: &'static str,
        /// Why, with the causes below it.
        cause: String,
    },
    /// A setting that the client refuses, or an answer that it does not understand.
    #[error("{what} failed: {cause}")]
    Answer {
        /// What was being done.
        what: &'static str,
        /// What does not fit.
        cause: String,
    },
}

impl StoreError {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            StoreError::Server { code, .. } => sqlstate::class(code),
            StoreError::Timeout { .. }
            | StoreError::ReadOnly { .. }
            | StoreError::Tls { .. }
            | StoreError::Connection { .. } => Class::Retry,
            StoreError::Url | StoreError::TooOld(_) | StoreError::Answer { .. } => Class::Operator,
        }
    }

    /// The server's SQLSTATE, where the server answered.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            StoreError::Server { code, .. } => Some(code),
            _ => None,
        }
    }

    /// Whether somebody holds a lock that was not waited for any longer.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.code() == Some("55P03")
    }

    /// Whether the values of a row are to blame, or what the database's own triggers and constraints make
    /// of them: other rows may do.
    #[must_use]
    pub fn is_of_a_row(&self) -> bool {
        // Data exceptions, integrity constraints, external routines, PL/pgSQL.
        self.code().is_some_and(|code| {
            ["22", "23", "2F", "38", "39", "P0"].iter().any(|class| code.starts_with(class))
        })
    }

    /// Whether the login was refused: see [`sqlstate::is_login`]; or a certificate, by one of the two.
    #[must_use]
    pub fn is_login(&self) -> bool {
        match self {
            StoreError::Tls { error, .. } => error.is_refusal(),
            error => error.code().is_some_and(sqlstate::is_login),
        }
    }

    /// The same, with the server's name before the cause of a broken connection.
    pub(super) fn at(self, server: &str) -> Self {
        match self {
            StoreError::Connection { what, cause } => {
                StoreError::Connection { what, cause: format!("{server}: {cause}") }
            }
            other => other,
        }
    }

    /// From the client's error, while `what` was being done.
    pub(super) fn from_client(what: &'static str, error: &tokio_postgres::Error) -> Self {
        if let Some(db) = error.as_db_error() {
            let message = match db.hint() {
                Some(hint) => format!("{}; hint: {hint}", db.message()),
                None => db.message().to_owned(),
            };
            return StoreError::Server {
                what,
                code: db.code().code().to_owned(),
                message: one_line(&message),
            };
        }
        // The client's own words for a broken socket say less than the system's.
        let cause = match std::error::Error::source(error) {
            Some(source) if io(error).is_some() => causes(source),
            _ => causes(error),
        };
        if error.is_closed() || io(error).is_some() {
            return StoreError::Connection { what, cause };
        }
        StoreError::Answer { what, cause }
    }
}

/// The I/O error below, if there is one.
fn io(error: &tokio_postgres::Error) -> Option<&io::Error> {
    std::error::Error::source(error)?.downcast_ref()
}

/// What an error means, if TLS has ended the connection.
pub(super) fn tls_refusal(error: &tokio_postgres::Error, words: &Words) -> Option<TlsError> {
    words.of(io(error)?)
}

/// An error and what is below it, on one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    one_line(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_follows_the_sqlstate() {
        let refused = |code: &str| StoreError::Server {
            what: "connecting",
            code: code.to_owned(),
            message: String::new(),
        };
        assert_eq!(refused("57P01").class(), Class::ShuttingDown);
        assert_eq!(refused("42501").class(), Class::Operator);
        assert!(refused("28P01").is_login());
        assert_eq!(StoreError::TooOld(130_022).class(), Class::Operator);
        assert_eq!(
            StoreError::TooOld(130_022).to_string(),
            "PostgreSQL 13.22 is too old: walpost needs 14 or later"
        );
    }
}
