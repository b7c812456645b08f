//! The HTTP listener: probes, metrics, the status as JSON and as a page. Read-only, nothing secret.
//!
//! A client can hold little and not for long: a few connections at a time, one request
//! each, small headers, no body read, seconds from accept to close ([`Limits`]). Where there are too
//! many, those that ask nothing go first; else further clients wait in the kernel's queue. The relay
//! itself never waits for any of them.

mod clients;
mod page;
mod routes;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;

use clients::Clients;

use crate::telemetry::Telemetry;

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
        let (headers, connection) = (Duration::from_secs(1), Duration::from_secs(10));
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
        let mut clients = Clients::new(self.router, self.limits);
        loop {
            tokio::select! {
                () = &mut shutdown => return,
                Some(()) = clients.gone() => {}
                accepted = self.listener.accept(), if clients.has_room() => {
                    match accepted {
                        Ok((stream, _)) => clients.serve(stream).await,
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
