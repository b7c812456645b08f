//! Bytes on their way to the broker: small frames in one buffer, large bodies by reference.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;

use crate::net::Stream;
use crate::outbox::Message;

/// A lane takes more to send while less than this is waiting to be written.
const ROOM: usize = 64 * 1024;
/// A body from this size on is not copied.
const BY_REFERENCE: usize = 32 * 1024;

/// What a lane still has to write, in order.
#[derive(Default)]
pub(super) struct Output {
    /// Written first.
    ahead: VecDeque<Bytes>,
    ahead_len: usize,
    /// Written after `ahead`.
    buffer: BytesMut,
}

impl Output {
    pub(super) fn has_room(&self) -> bool {
        self.ahead_len + self.buffer.len() < ROOM
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ahead.is_empty() && self.buffer.is_empty()
    }

    /// Where frames are written.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Queues the body: a small one is copied, a large one shared.
    pub(super) fn push_body(&mut self, message: &Message) {
        let small = message.body_slice();
        if small.len() < BY_REFERENCE {
            self.buffer.extend_from_slice(small);
            return;
        }
        let body = message.body();
        let before = self.buffer.split().freeze();
        self.ahead_len += before.len() + body.len();
        self.ahead.extend([before, body]);
    }

    /// Writes until nothing is left or the socket takes no more; `wrote` is set when it took some.
    pub(super) fn poll_write(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
        wrote: &mut bool,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let chunk = self.ahead.front().map_or(&self.buffer[..], |chunk| &chunk[..]);
            if chunk.is_empty() {
                self.ahead.pop_front();
                continue;
            }
            let written = ready!(Pin::new(&mut *stream).poll_write(cx, chunk))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *wrote = true;
            match self.ahead.front_mut() {
                Some(chunk) => {
                    chunk.advance(written);
                    self.ahead_len -= written;
                    if chunk.is_empty() {
                        self.ahead.pop_front();
                    }
                }
                None => self.buffer.advance(written),
            }
        }
        // TLS takes what the socket does not, and holds it.
        Pin::new(&mut *stream).poll_flush(cx)
    }
}
