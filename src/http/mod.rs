//! The HTTP listener: probes, metrics, the status as JSON and as a page. Read-only, nothing secret.
//!
//! A client can hold little and not for long: a few connections at a time, one request
//! each, small headers, no body read, seconds from accept to close ([`Limits`]). Further clients
//! wait in the kernel's queue. The relay itself never waits for any of them.

mod page;
mod routes;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::telemetry::Telemetry;

/// Most bytes of a request's line and headers.
const HEADER_BYTES: usize = 16 * 1024;

/// Most headers of a request.
const HEADERS: usize = 64;

/// What a client may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections served at the same time.
    pub connections: usize,
    /// Time for the request's line and headers to arrive.
    pub headers: Duration,
    /// Time from accept to close, a slow reader included.
    pub connection: Duration,
}

/// The listener cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error(
    "http.listen: cannot listen on {listen}: {source}; choose another address, or \"\" for none"
)]
pub struct BindError {
    /// The address as configured.
    pub listen: String,
    /// The operating system's word.
    pub source: io::Error,
}

/// An open listener, not yet served.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    router: Router,
    limits: Limits,
}

impl Default for Limits {
    fn default() -> Self {
        let (headers, connection) = (Duration::from_secs(5), Duration::from_secs(10));
        Limits { connections: 32, headers, connection }
    }
}

impl Server {
    /// Opens the listener on `listen`, `host:port`.
    ///
    /// # Errors
    /// The address is in use, not of this machine, or no address.
    pub async fn bind(listen: &str, telemetry: Arc<Telemetry>) -> Result<Self, BindError> {
        match TcpListener::bind(listen).await {
            Ok(listener) => Ok(Server {
                listener,
                router: routes::router(telemetry),
                limits: Limits::default(),
            }),
            Err(source) => Err(BindError { listen: listen.to_owned(), source }),
        }
    }

    /// The address that is listened on; tells the port where `:0` was asked for.
    ///
    /// # Errors
    /// The operating system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// With other limits than the default ones.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Serves until `shutdown` is ready, then closes the listener and every connection.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = &mut shutdown => return,
                Some(_) = connections.join_next() => {}
                accepted = self.listener.accept(), if connections.len() < self.limits.connections => {
                    match accepted {
                        Ok((stream, _)) => {
                            connections.spawn(serve_one(stream, self.router.clone(), self.limits));
                        }
                        // Out of file descriptors, most likely: give it time, do not spin.
                        Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                    }
                }
            }
        }
    }
}

/// [`Server::bind`], then [`Server::run`].
///
/// # Errors
/// As [`Server::bind`].
pub async fn serve(
    listen: &str,
    telemetry: Arc<Telemetry>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), BindError> {
    Server::bind(listen, telemetry).await?.run(shutdown).await;
    Ok(())
}

/// One connection, one request. How it ends is the client's business, nobody else's.
async fn serve_one(stream: TcpStream, router: Router, limits: Limits) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.headers)
        .keep_alive(false)
        .max_buf_size(HEADER_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let _ = tokio::time::timeout(limits.connection, connection).await;
}
