//! The slot's stream: XLogData and keepalives in, standby status updates out.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio_util::io::poll_read_buf;

use super::command::{Origin, Replication, fill};
use super::error::SourceError;
use super::feedback::Feedback;
use crate::lsn::Lsn;
use crate::net::{Address, Stream};
use crate::pgoutput::{self, PgTime};
use crate::pgwire::backend::Backend;
use crate::pgwire::copy::{self, ReplicationMessage};
use crate::pgwire::frame::Frames;
use crate::pgwire::frontend;

/// Message tags of PostgreSQL's protocol that matter while streaming.
const COPY_DATA: u8 = b'd';
const COPY_DONE: u8 = b'c';
const COMMAND_COMPLETE: u8 = b'C';
const NOTICE: u8 = b'N';
const PARAMETER_STATUS: u8 = b'S';

/// The time in which the slot is ours.
pub struct Session {
    /// Where the server is.
    pub address: Address,
    /// The server's process, as it said at the login.
    pub process_id: u32,
    /// Which server it is, and its timeline.
    pub origin: Origin,
    stream: Stream,
    frames: Frames,
    out: BytesMut,
    interval: Duration,
    patience: u32,
    feedback: Option<Feedback>,
    /// The furthest position the server has told of.
    server_lsn: Lsn,
}

/// What the slot sends.
#[derive(Debug)]
pub enum Incoming<'a> {
    /// A pgoutput message and the LSN of its XLogData.
    Message(Lsn, pgoutput::Message<'a>),
    /// The end of the WAL that the server has looked through.
    Keepalive(Lsn),
    /// A notice or a changed parameter: nothing to do.
    Nothing,
    /// A row that is longer than any frame may be, read past: its first bytes.
    TooLong(Lsn, &'a [u8]),
}

impl Session {
    pub(super) fn new(connection: Replication, interval: Duration) -> Self {
        Session {
            address: connection.address,
            process_id: connection.process_id,
            origin: connection.origin,
            stream: connection.stream,
            frames: connection.frames,
            out: BytesMut::new(),
            interval,
            patience: 1,
            feedback: None,
            server_lsn: Lsn::INVALID,
        }
    }

    /// The server may be silent for so many times longer than usual. To be called before the first
    /// poll.
    pub fn be_patient(&mut self, times: u32) {
        self.patience = times;
    }

    /// Reads what the socket has. `Ready`: there is more to look at.
    ///
    /// # Errors
    /// [`SourceError`]: the connection ended.
    pub fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        now: Duration,
    ) -> Poll<Result<(), SourceError>> {
        match poll_read_buf(Pin::new(&mut self.stream), cx, self.frames.buffer_mut()) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(0)) => Poll::Ready(Err(SourceError::Closed)),
            Poll::Ready(Ok(_)) => {
                self.feedback(now).heard(now);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
        }
    }

    /// The next message of what was read; `None`: read more.
    ///
    /// # Errors
    /// [`SourceError`]: an error from the server, the end of the stream, or unreadable bytes.
    pub fn next_incoming(&mut self) -> Result<Option<Incoming<'_>>, SourceError> {
        let Some(frame) = self.frames.next()? else { return Ok(None) };
        match frame.tag {
            COPY_DATA => {}
            NOTICE | PARAMETER_STATUS => return Ok(Some(Incoming::Nothing)),
            COPY_DONE | COMMAND_COMPLETE => return Err(SourceError::Ended),
            tag => return Err(unexpected(tag, frame.body)),
        }
        match copy::parse(frame.body)? {
            ReplicationMessage::XLogData { start, wal_end, data, .. } => {
                self.server_lsn = self.server_lsn.max(wal_end);
                if frame.truncated {
                    return Ok(Some(Incoming::TooLong(start, data)));
                }
                let message = pgoutput::decode(data)
                    .map_err(|error| SourceError::Decode { lsn: start, error })?;
                Ok(Some(Incoming::Message(start, message)))
            }
            ReplicationMessage::Keepalive { wal_end, reply_requested, .. } => {
                self.server_lsn = self.server_lsn.max(wal_end);
                if reply_requested && let Some(feedback) = &mut self.feedback {
                    feedback.asked();
                }
                Ok(Some(Incoming::Keepalive(wal_end)))
            }
        }
    }

    /// Sends the standby status update that is due, if one is; see `Feedback`.
    ///
    /// # Errors
    /// [`SourceError`]: the connection ended, or the server is silent.
    pub fn poll_feedback(
        &mut self,
        cx: &mut Context<'_>,
        watermark: Lsn,
        reading: bool,
        now: Duration,
        clock: PgTime,
    ) -> Result<(), SourceError> {
        let due = self.feedback(now).update(watermark, reading, now);
        if let Some(update) = due.map_err(SourceError::Silent)? {
            let position = update.watermark;
            frontend::status_update(
                &mut self.out,
                position,
                position,
                position,
                clock,
                update.reply_requested,
            );
        }
        while !self.out.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.out) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Poll::Ready(Ok(written)) => self.out.advance(written),
                Poll::Ready(Err(error)) => return Err(error.into()),
            }
        }
        // TLS takes what the socket does not, and holds it.
        if let Poll::Ready(Err(error)) = Pin::new(&mut self.stream).poll_flush(cx) {
            return Err(error.into());
        }
        Ok(())
    }

    /// When [`poll_feedback`](Self::poll_feedback) wants to be called next.
    pub fn deadline(&mut self, watermark: Lsn, now: Duration) -> Duration {
        self.feedback(now).deadline(watermark)
    }

    /// Reports `watermark` at once, as far as the socket takes it: the last word before the
    /// connection is dropped.
    ///
    /// # Errors
    /// [`SourceError`]: the connection ended.
    pub fn report_now(
        &mut self,
        cx: &mut Context<'_>,
        watermark: Lsn,
        now: Duration,
        clock: PgTime,
    ) -> Result<(), SourceError> {
        self.feedback(now).asked();
        self.poll_feedback(cx, watermark, false, now, clock)
    }

    /// Sends a status update soon: a connection that has ended answers with that.
    pub fn doubt(&mut self) {
        if let Some(feedback) = &mut self.feedback {
            feedback.asked();
        }
    }

    /// Version and cipher of TLS, for the log; none: there is no TLS.
    #[must_use]
    pub fn cipher(&self) -> Option<String> {
        self.stream.cipher()
    }

    /// The last position that was reported as flushed.
    #[must_use]
    pub fn reported(&self) -> Lsn {
        self.feedback.as_ref().map_or(Lsn::INVALID, Feedback::reported)
    }

    /// The furthest position that the server has told of.
    #[must_use]
    pub fn server_lsn(&self) -> Lsn {
        self.server_lsn
    }

    /// Reports `watermark` a last time and ends the stream in good order: when this returns `Ok`,
    /// the server has taken the position.
    ///
    /// # Errors
    /// [`SourceError`]: the connection ended before.
    pub async fn finish(mut self, watermark: Lsn, clock: PgTime) -> Result<(), SourceError> {
        frontend::status_update(&mut self.out, watermark, watermark, watermark, clock, false);
        frontend::copy_done(&mut self.out);
        self.stream.write_all(&self.out).await?;
        self.stream.flush().await?;
        // What the slot still sends is read and dropped: it comes again in the next session.
        loop {
            match self.frames.next()? {
                Some(frame) if frame.tag == COPY_DONE => return Ok(()),
                Some(frame) if frame.tag == COPY_DATA => {}
                Some(frame) => match Backend::parse(frame.tag, frame.body)? {
                    Backend::CommandComplete(_) | Backend::ReadyForQuery { .. } => return Ok(()),
                    Backend::ErrorResponse(error) => {
                        let context = "the stream did not end in good order";
                        return Err(SourceError::Server { context, error });
                    }
                    _ => {}
                },
                None => fill(&mut self.stream, &mut self.frames).await?,
            }
        }
    }

    fn feedback(&mut self, now: Duration) -> &mut Feedback {
        let (interval, patience) = (self.interval, self.patience);
        self.feedback.get_or_insert_with(|| Feedback::new(interval, patience, now))
    }
}

fn unexpected(tag: u8, body: &[u8]) -> SourceError {
    match Backend::parse(tag, body) {
        Ok(Backend::ErrorResponse(error)) => {
            SourceError::Server { context: "PostgreSQL ended the stream", error }
        }
        Ok(_) => SourceError::Unexpected(format!("tag '{}'", char::from(tag))),
        Err(error) => error.into(),
    }
}
