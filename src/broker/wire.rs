//! A STOMP connection of a consumer: frames out, events in, heart-beats both ways.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::time::Instant;
use tokio_util::io::poll_read_buf;

use super::connect::{self, HostError};
use super::connection::LaneError;
use super::output::Output;
use super::profile::Kind;
use super::settings::Settings;
use crate::net::{Address, Stream};
use crate::stomp::Version;
use crate::stomp::decode::Limits;
use crate::stomp::session::{Event, Session};

/// How much is read from the socket at a time.
const READ: usize = 16 * 1024;

/// A STOMP connection that the broker has accepted.
pub struct Wire {
    /// Where it leads.
    pub address: Address,
    /// Which broker answered.
    pub kind: Kind,
    /// The `server` header of CONNECTED, if there was one.
    pub server: Option<String>,
    stream: Stream,
    session: Session,
    input: BytesMut,
    output: Output,
    epoch: Instant,
}

impl Wire {
    /// Connects to one host and waits for CONNECTED. `limits` caps what the broker sends, and a durable
    /// subscription is known again by `client_id`.
    ///
    /// # Errors
    /// [`HostError`].
    pub async fn open(
        settings: &Settings,
        address: &Address,
        limits: Limits,
        client_id: Option<&str>,
    ) -> Result<Wire, HostError> {
        let epoch = Instant::now();
        let opened = connect::open(settings, address, epoch, limits, client_id).await?;
        Ok(Wire {
            address: address.clone(),
            kind: opened.kind,
            server: opened.connected.server,
            stream: opened.stream,
            session: opened.session,
            input: opened.input,
            output: Output::default(),
            epoch,
        })
    }

    /// Version and cipher of TLS, for the log; none: there is no TLS.
    #[must_use]
    pub fn cipher(&self) -> Option<String> {
        self.stream.cipher()
    }

    /// The agreed version of STOMP.
    #[must_use]
    pub fn version(&self) -> Version {
        self.session.version()
    }

    /// Where frames are written; they leave with the next [`Wire::turn`].
    pub fn buffer(&mut self) -> &mut BytesMut {
        self.output.buffer()
    }

    /// Writes what is queued, and waits for the next event, unless `reading` is false: then nothing is
    /// taken off the socket, and it only ends with an error. It can be given up and called again at
    /// any time.
    ///
    /// # Errors
    /// [`LaneError`]: the connection ended.
    pub async fn turn(&mut self, reading: bool) -> Result<Event, LaneError> {
        loop {
            let deadline = self.session.deadline().map(|at| self.epoch + at);
            let event = poll_fn(|cx| self.poll(cx, reading));
            let event = match deadline {
                None => Some(event.await),
                Some(deadline) => tokio::time::timeout_at(deadline, event).await.ok(),
            };
            match event {
                Some(event) => return event,
                None => self.tick(reading)?,
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<Result<Event, LaneError>> {
        if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
            return Poll::Ready(Err(error));
        }
        if !reading {
            return Poll::Pending;
        }
        loop {
            if let Some(event) = self.session.receive(&mut self.input, self.epoch.elapsed())? {
                return Poll::Ready(Ok(event));
            }
            self.input.reserve(READ);
            match poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.input) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(LaneError::Closed)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LaneError>> {
        if self.output.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let mut wrote = false;
        let flushed = self.output.poll_write(&mut self.stream, cx, &mut wrote);
        if wrote {
            self.session.wrote(self.epoch.elapsed());
        }
        flushed.map_err(LaneError::from)
    }

    /// Time passed: a heart-beat is due, or the broker's own stayed out.
    fn tick(&mut self, reading: bool) -> Result<(), LaneError> {
        let now = self.epoch.elapsed();
        if !reading {
            // Nobody listens: its silence says nothing.
            self.session.excuse(now);
        }
        // A heart-beat behind bytes that the broker does not read would be one more of them.
        let mut spare = BytesMut::new();
        let out = if self.output.is_empty() { self.output.buffer() } else { &mut spare };
        Ok(self.session.tick(now, out)?)
    }
}
