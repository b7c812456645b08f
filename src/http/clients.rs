//! Who is connected, and who has to go when there are too many.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinSet};

use super::Limits;

/// Most bytes of a request's line and headers.
const HEADER_BYTES: usize = 16 * 1024;

/// Most headers of a request.
const HEADERS: usize = 64;

/// The connections that are being served. The last place is for the next client: it is taken from
/// the oldest one that has not asked anything yet. So whoever holds connections open and says
/// nothing keeps no probe out.
pub(super) struct Clients {
    tasks: JoinSet<()>,
    /// In the order of their arrival.
    silent: VecDeque<Silent>,
    router: Router,
    limits: Limits,
}

/// A connection from which no request has come yet.
struct Silent {
    asked: Arc<AtomicBool>,
    task: AbortHandle,
}

impl Clients {
    pub(super) fn new(router: Router, limits: Limits) -> Self {
        Clients { tasks: JoinSet::new(), silent: VecDeque::new(), router, limits }
    }

    /// Whether one more can be served.
    pub(super) fn has_room(&self) -> bool {
        self.tasks.len() < self.limits.connections
    }

    /// Waits until one has gone; `None`: there is none.
    pub(super) async fn gone(&mut self) -> Option<()> {
        self.tasks.join_next().await.map(|_| ())
    }

    /// Serves one more.
    pub(super) async fn serve(&mut self, stream: TcpStream) {
        let asked = Arc::new(AtomicBool::new(false));
        let serving = serve_one(stream, self.router.clone(), self.limits, Arc::clone(&asked));
        let task = self.tasks.spawn(serving);
        if !self.has_room() {
            // Whose request has come already is no silent client: let it be read.
            tokio::task::yield_now().await;
            self.drop_the_oldest();
        }
        self.silent.push_back(Silent { asked, task });
    }

    fn drop_the_oldest(&mut self) {
        self.silent.retain(|one| !one.asked.load(Ordering::Relaxed) && !one.task.is_finished());
        if let Some(oldest) = self.silent.pop_front() {
            oldest.task.abort();
        }
    }
}

/// One connection, one request. How it ends is the client's business, nobody else's.
async fn serve_one(stream: TcpStream, router: Router, limits: Limits, asked: Arc<AtomicBool>) {
    let routes = TowerToHyperService::new(router);
    let service = service_fn(move |request| {
        asked.store(true, Ordering::Relaxed);
        routes.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.headers)
        .keep_alive(false)
        .max_buf_size(HEADER_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    let _ = tokio::time::timeout(limits.connection, connection).await;
}
