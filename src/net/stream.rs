//! One connection to a peer.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use super::tls::{self, Tls, TlsError, Words};

/// A peer that leaves written bytes unacknowledged for so long is gone.
const UNACKNOWLEDGED: Duration = Duration::from_secs(60);
/// The kernel asks an idle peer whether it is there after this time, then each [`KEEPALIVE_EACH`].
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
const KEEPALIVE_EACH: Duration = Duration::from_secs(10);
/// How often a connection that can't be written to is read from for the peer's reason.
const LAST_WORDS: usize = 16;

/// Where a peer listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A host name or IP address, and a port.
    Tcp(String, u16),
    /// A Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp(host, port) => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Address {
    /// Whether what is sent there stays on this machine, as far as the address tells.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Address::Unix(_) => true,
            Address::Tcp(host, _) => {
                let address: Option<IpAddr> = host.parse().ok();
                address.map_or(host.eq_ignore_ascii_case("localhost"), |ip| ip.is_loopback())
            }
        }
    }
}

/// No connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nothing answered in time.
    #[error("{address} did not answer within {timeout:?}")]
    TimedOut {
        /// Where.
        address: Address,
        /// How long was waited.
        timeout: Duration,
    },
    /// The address was not found, refused or unreachable.
    #[error("{address}: {error}")]
    Io {
        /// Where.
        address: Address,
        /// The system's reason.
        error: io::Error,
    },
    /// There is no TLS where it has to be.
    #[error("{address}: {error}")]
    Tls {
        /// Where.
        address: Address,
        /// Why.
        error: TlsError,
    },
}

/// A connection, encrypted or not.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// TLS on TCP.
    Tls(Box<TlsStream<TcpStream>>, Box<Words>),
}

impl Stream {
    /// Version and cipher of TLS, for the log; none: what is sent can be read on the way.
    #[must_use]
    pub fn cipher(&self) -> Option<String> {
        match self {
            Stream::Tls(stream, _) => Some(tls::cipher(stream)),
            Stream::Tcp(_) | Stream::Unix(_) => None,
        }
    }

    /// `tls-server-end-point` of RFC 5929, to which a login can be bound.
    #[must_use]
    pub fn end_point(&self) -> Option<Vec<u8>> {
        match self {
            Stream::Tls(stream, _) => tls::end_point(stream),
            Stream::Tcp(_) | Stream::Unix(_) => None,
        }
    }

    /// What names the errors of TLS that this connection ends with.
    #[must_use]
    pub fn words(&self) -> Option<&Words> {
        match self {
            Stream::Tls(_, words) => Some(words),
            Stream::Tcp(_) | Stream::Unix(_) => None,
        }
    }
}

/// Connects, trying each address that the name stands for, and speaks TLS where `tls` says how.
///
/// # Errors
/// [`ConnectError`]: nothing there, no answer within `timeout`, or no TLS where it has to be.
pub async fn connect(
    address: &Address,
    tls: Option<&Tls>,
    timeout: Duration,
) -> Result<Stream, ConnectError> {
    in_time(address, timeout, async {
        match (open(address).await?, address, tls) {
            (Stream::Tcp(tcp), Address::Tcp(host, _), Some(tls)) => {
                encrypt(tcp, host, address, tls).await
            }
            (stream, _, _) => Ok(stream),
        }
    })
    .await
}

pub(super) async fn in_time(
    address: &Address,
    timeout: Duration,
    connecting: impl Future<Output = Result<Stream, ConnectError>>,
) -> Result<Stream, ConnectError> {
    let late = |_| ConnectError::TimedOut { address: address.clone(), timeout };
    tokio::time::timeout(timeout, connecting).await.map_err(late)?
}

pub(super) async fn open(address: &Address) -> Result<Stream, ConnectError> {
    let opened = async {
        match address {
            Address::Unix(path) => Ok(Stream::Unix(UnixStream::connect(path).await?)),
            Address::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                let socket = SockRef::from(&stream);
                let keepalive =
                    TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EACH);
                socket.set_tcp_keepalive(&keepalive)?;
                #[cfg(target_os = "linux")]
                socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
                Ok(Stream::Tcp(stream))
            }
        }
    };
    opened.await.map_err(|error| ConnectError::Io { address: address.clone(), error })
}

/// TLS on a connection over which nothing else was sent.
pub(super) async fn encrypt(
    tcp: TcpStream,
    host: &str,
    address: &Address,
    tls: &Tls,
) -> Result<Stream, ConnectError> {
    match tls.handshake(tcp, host).await {
        Ok(stream) => Ok(Stream::Tls(stream, Box::new(tls.words(host)))),
        Err(error) => Err(ConnectError::Tls { address: address.clone(), error }),
    }
}

/// Reads what a peer said before it closed: a refusal that TLS put into words.
fn last_word(
    stream: &mut TlsStream<TcpStream>,
    cx: &mut Context<'_>,
    error: io::Error,
) -> io::Error {
    let mut bytes = [0; 1024];
    for _ in 0..LAST_WORDS {
        let mut buffer = ReadBuf::new(&mut bytes);
        match Pin::new(&mut *stream).poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
            Poll::Ready(Err(word)) if word.kind() == io::ErrorKind::InvalidData => return word,
            _ => break,
        }
    }
    error
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream, _) => match Pin::new(stream).poll_read(cx, buf) {
                // The end without TLS's own goodbye: a server that was killed. Both protocols know
                // themselves where a message ends.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    Poll::Ready(Ok(()))
                }
                read => read,
            },
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream, _) => match Pin::new(&mut *stream).poll_write(cx, buf) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(last_word(stream, cx, error))),
                wrote => wrote,
            },
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream, _) => match Pin::new(&mut *stream).poll_flush(cx) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(last_word(stream, cx, error))),
                flushed => flushed,
            },
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream, _) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
