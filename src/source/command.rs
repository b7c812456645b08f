//! Commands on the replication connection, before it streams.

use std::future::poll_fn;
use std::pin::Pin;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio_util::io::poll_read_buf;

use super::error::SourceError;
use crate::net::{Address, Stream};
use crate::pgwire::ServerError;
use crate::pgwire::backend::Backend;
use crate::pgwire::frame::Frames;
use crate::pgwire::frontend;

/// A replication connection that is logged in and idle.
pub struct Replication {
    /// Where it leads.
    pub address: Address,
    /// The process that serves it: the walsender's pid.
    pub process_id: u32,
    /// Which server it is, and which turn its history has taken.
    pub origin: Origin,
    pub(super) stream: Stream,
    pub(super) frames: Frames,
}

/// A cluster's life up to a promotion or a restore: positions are those of one origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Of the cluster, since initdb; a standby has its primary's.
    pub system_identifier: u64,
    /// The timeline that is written on.
    pub timeline: u32,
}

/// What a command answers.
pub(super) enum Answer {
    /// Its rows; columns are text or NULL.
    Rows(Vec<Vec<Option<String>>>),
    /// The connection has gone over to copy-both.
    CopyBoth,
}

impl Replication {
    /// Version and cipher of TLS; none: there is no TLS.
    #[must_use]
    pub fn cipher(&self) -> Option<String> {
        self.stream.cipher()
    }

    /// Sends one command and reads its answer. A server error is `Ok(Err(_))`: the connection
    /// can be used on.
    pub(super) async fn command(
        &mut self,
        text: &str,
    ) -> Result<Result<Answer, Box<ServerError>>, SourceError> {
        let mut out = BytesMut::new();
        frontend::query(&mut out, text)
            .map_err(|error| SourceError::Unexpected(error.to_string()))?;
        self.stream.write_all(&out).await?;
        self.stream.flush().await?;
        let (mut rows, mut failure) = (Vec::new(), None);
        loop {
            if let Some(frame) = self.frames.next()? {
                match Backend::parse(frame.tag, frame.body)? {
                    Backend::DataRow(row) => {
                        rows.push(row.into_iter().map(|value| value.map(str::to_owned)).collect());
                    }
                    Backend::CopyBothResponse => return Ok(Ok(Answer::CopyBoth)),
                    Backend::ErrorResponse(error) => failure = Some(error),
                    Backend::ReadyForQuery { .. } => {
                        return Ok(match failure {
                            Some(error) => Err(error),
                            None => Ok(Answer::Rows(rows)),
                        });
                    }
                    _ => {}
                }
                continue;
            }
            fill(&mut self.stream, &mut self.frames).await?;
        }
    }

    /// The first column of the first row.
    pub(super) async fn value(
        &mut self,
        context: &'static str,
        text: &str,
    ) -> Result<Option<String>, SourceError> {
        match self.command(text).await? {
            Ok(Answer::Rows(rows)) => {
                Ok(rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten())
            }
            Ok(Answer::CopyBoth) => Err(SourceError::Unexpected("CopyBothResponse".to_owned())),
            Err(error) => Err(SourceError::Server { context, error }),
        }
    }
}

/// Reads once from the socket.
pub(super) async fn fill(stream: &mut Stream, frames: &mut Frames) -> Result<(), SourceError> {
    let read = poll_fn(|cx| poll_read_buf(Pin::new(&mut *stream), cx, frames.buffer_mut())).await?;
    if read == 0 { Err(SourceError::Closed) } else { Ok(()) }
}

/// An identifier in a replication command.
pub(super) fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// A string in a replication command.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
