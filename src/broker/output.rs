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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Read;
    use std::net::TcpListener;
    use std::sync::mpsc;
    use std::time::Duration;

    use walpost_testkit::{Authority, TlsDoor};

    use super::*;
    use crate::net::tls::{MinVersion, Settings, Tls, Verify};
    use crate::net::{self, Address};

    const CHUNK: usize = 16 * 1024;
    const LONG: Duration = Duration::from_secs(60);

    /// TLS holds what the socket does not take: "written" means that nothing is left in it.
    #[tokio::test]
    async fn what_is_written_over_tls_leaves() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (read, may_read) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let (sent, mut count) = (may_read.recv().unwrap(), 0);
            let mut bytes = vec![0; 64 * 1024];
            while count < sent {
                count += client.read(&mut bytes).unwrap();
            }
            tell.send(count).unwrap();
        });
        let identity = Authority::new("tests").server(&["localhost"]);
        let door = TlsDoor::of(&identity).open(port);
        let tls = Tls::new(Settings {
            section: "broker.tls",
            hosts: "broker.hosts",
            verify: Verify::Nothing,
            ca_file: None,
            client: None,
            server_name: None,
            min_version: MinVersion::V1_2,
        });
        let address = Address::Tcp("127.0.0.1".to_owned(), door.port());
        let mut stream = net::connect(&address, Some(&tls), LONG).await.unwrap();
        let mut output = Output::default();
        let (mut wrote, mut sent) = (false, 0);
        // Until the socket takes no more, since nobody reads.
        loop {
            output.buffer().resize(CHUNK, b'x');
            sent += CHUNK;
            let once = poll_fn(|cx| Poll::Ready(output.poll_write(&mut stream, cx, &mut wrote)));
            let Poll::Ready(written) = once.await else { break };
            written.unwrap();
            let Stream::Tls(inner, _) = &stream else { panic!("no TLS") };
            assert!(!inner.get_ref().1.wants_write(), "TLS holds some of {sent} bytes");
            tokio::task::yield_now().await;
        }
        read.send(sent).unwrap();
        let written = poll_fn(|cx| output.poll_write(&mut stream, cx, &mut wrote));
        tokio::time::timeout(LONG, written).await.unwrap().unwrap();
        // Nobody touches the stream any more.
        assert_eq!(told.recv_timeout(LONG), Ok(sent));
    }
}
