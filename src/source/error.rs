//! What can go wrong between PostgreSQL and us, and what is to be done about it.

use std::io;
use std::time::Duration;

use crate::engine::StreamError;
use crate::lsn::Lsn;
use crate::net::tls::TlsError;
use crate::net::{Address, ConnectError};
use crate::pgoutput::DecodeError;
use crate::pgwire::ServerError;
use crate::pgwire::backend::BackendError;
use crate::pgwire::copy::CopyError;
use crate::pgwire::frame::FrameError;
use crate::pgwire::login::LoginError;

/// The replication connection could not be made, or ended.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No connection.
    #[error(
        "connecting to PostgreSQL: {0}; is PostgreSQL up there, and does postgres.url name the right \
         host and port?"
    )]
    Connect(#[source] ConnectError),
    /// There is no TLS where it has to be.
    #[error("connecting to PostgreSQL: {address}: {error}")]
    Tls {
        /// Where.
        address: Address,
        /// Why.
        error: TlsError,
    },
    /// The login did not come to an end.
    #[error("PostgreSQL did not finish the login within {0:?}")]
    LoginTimedOut(Duration),
    /// The login failed.
    #[error("login to PostgreSQL failed: {0}")]
    Login(#[from] LoginError),
    /// None of the hosts accepts writes.
    #[error("{0} is a standby and accepts no writes")]
    ReadOnly(String),
    /// Two connections were made, and lead to different servers.
    #[error(
        "the SQL connection leads to another server than the replication connection, which is at {0}: a \
         failover, or two servers of postgres.url that accept writes"
    )]
    OtherServer(String),
    /// PostgreSQL said no to a command, or ended the stream with an error.
    #[error("{context}: {error}")]
    Server {
        /// What was asked.
        context: &'static str,
        /// PostgreSQL's words.
        error: Box<ServerError>,
    },
    /// PostgreSQL closed the connection.
    #[error("PostgreSQL closed the replication connection")]
    Closed,
    /// The socket failed.
    #[error("replication connection lost: {0}")]
    Io(#[from] io::Error),
    /// Two requests for a sign of life stayed unanswered.
    #[error("PostgreSQL has been silent for {0:.0?}: the replication connection is dead")]
    Silent(Duration),
    /// PostgreSQL wants to shut down, and would wait until everything it has sent is confirmed.
    #[error("PostgreSQL is shutting down")]
    ShuttingDown,
    /// PostgreSQL ended the stream in good order.
    #[error("PostgreSQL ended the stream, as it does when it shuts down")]
    Ended,
    /// Bytes that are not PostgreSQL's protocol.
    #[error("unreadable data on the replication connection: {0}")]
    Frame(#[from] FrameError),
    /// A message that is not PostgreSQL's protocol.
    #[error("unreadable message on the replication connection: {0}")]
    Backend(#[from] BackendError),
    /// A copy-both message that is not PostgreSQL's.
    #[error("unreadable replication message: {0}")]
    Copy(#[from] CopyError),
    /// A message that does not belong there.
    #[error("PostgreSQL sent an unexpected message ({0})")]
    Unexpected(String),
    /// A pgoutput message that can't be understood; it is never skipped.
    #[error("unreadable pgoutput message at {lsn}: {error}")]
    Decode {
        /// Of its XLogData.
        lsn: Lsn,
        /// Why.
        error: DecodeError,
    },
    /// Messages in an order that no PostgreSQL sends.
    #[error("impossible stream at {lsn}: {error}")]
    Stream {
        /// Of its XLogData.
        lsn: Lsn,
        /// Why.
        error: StreamError,
    },
    /// A row that does not go with the description of its relation.
    #[error("impossible row at {lsn}: {error}")]
    Row {
        /// Of its XLogData.
        lsn: Lsn,
        /// Why.
        error: String,
    },
    /// The SQL connection, which is asked for the slot's position, is not there.
    #[error("the slot is ours, but its confirmed position can't be read: {0}")]
    Confirmed(String),
    /// Rows that are published out of the table can't be read, or their position not kept.
    #[error("the rows that wait can't be published: {0}")]
    Recovery(String),
    /// The session is given up by ourselves.
    #[error("a new session begins: {0}")]
    Reopen(&'static str),
}

impl From<ConnectError> for SourceError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Tls { address, error } => SourceError::Tls { address, error },
            error => SourceError::Connect(error),
        }
    }
}

/// What is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Connect again.
    Retry,
    /// PostgreSQL is shutting down or starting: come back a little later.
    ComeBack,
    /// The login was refused: a few more attempts, then an operator must act.
    Login,
    /// A certificate was refused, here or there: the same; what to mend is said.
    Tls,
    /// An operator must act; this is what to type.
    Operator(&'static str),
}

impl SourceError {
    /// What is to be done: by SQLSTATE, never by the text.
    #[must_use]
    pub fn remedy(&self) -> Remedy {
        match self {
            SourceError::Login(LoginError::Server(error)) => by_sqlstate(error, Remedy::Login),
            SourceError::Login(_) => Remedy::Login,
            SourceError::Tls { error, .. } if error.is_refusal() => Remedy::Tls,
            SourceError::ShuttingDown => Remedy::ComeBack,
            SourceError::Server { error, .. } => by_sqlstate(error, Remedy::Retry),
            SourceError::Decode { .. } | SourceError::Stream { .. } | SourceError::Row { .. } => {
                Remedy::Operator(
                    "report this with the PostgreSQL version; nothing was confirmed, nothing is lost",
                )
            }
            SourceError::Connect(_)
            | SourceError::Tls { .. }
            | SourceError::LoginTimedOut(_)
            | SourceError::ReadOnly(_)
            | SourceError::OtherServer(_)
            | SourceError::Closed
            | SourceError::Io(_)
            | SourceError::Silent(_)
            | SourceError::Ended
            | SourceError::Frame(_)
            | SourceError::Backend(_)
            | SourceError::Copy(_)
            | SourceError::Unexpected(_)
            | SourceError::Confirmed(_)
            | SourceError::Recovery(_)
            | SourceError::Reopen(_) => Remedy::Retry,
        }
    }
}

fn by_sqlstate(error: &ServerError, otherwise: Remedy) -> Remedy {
    match error.code.as_str() {
        // Shut down by an administrator, crashed, not accepting connections yet.
        "57P01" | "57P02" | "57P03" => Remedy::ComeBack,
        // Too many connections or walsenders: somebody may go.
        "53300" | "53400" => Remedy::Retry,
        "28000" | "28P01" => Remedy::Login,
        "42501" => Remedy::Operator(
            "have a superuser grant what is missing: 'walpost init --dry-run' prints the lines",
        ),
        "3D000" => Remedy::Operator("correct the database in postgres.url"),
        // The slot or the publication does not exist: whoever opens the next session finds out which.
        "42704" => otherwise,
        // The slot can't be used: another plugin, another database, or WAL that is gone.
        "55000" => Remedy::Operator(
            "the slot can't be used any more (docs/operations.md, 'The slot is lost')",
        ),
        "0A000" | "42601" | "22023" => Remedy::Operator("check the server's version and settings"),
        _ => otherwise,
    }
}
