//! A lane: one STOMP connection that comes back by itself, host after host.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::{Instant, Sleep};

use super::connect::{self, HostError};
use super::connection::Connection;
use super::settings::Settings;

/// A connection that lived so long ends a series of failures even if it delivered nothing.
const SETTLED: Duration = Duration::from_secs(30);

type Connecting = Pin<Box<dyn Future<Output = Result<Connection, HostError>>>>;

/// Where a lane stands.
enum State {
    Waiting(Pin<Box<Sleep>>),
    Connecting(Connecting),
    Up(Box<Connection>, Instant),
    /// No further attempts.
    Closed,
}

/// What became of an attempt to connect.
#[derive(Debug)]
pub enum Attempt {
    /// The broker has accepted us; [`Lane::connection`] is there.
    Connected,
    /// It has not; the lane tries again after a while.
    Failed {
        /// Which host, and why.
        error: HostError,
        /// When the next attempt comes.
        next_in: Duration,
    },
}

/// One STOMP connection, and the way back to it.
pub struct Lane {
    settings: Arc<Settings>,
    epoch: Instant,
    state: State,
    /// Which host is next.
    host: usize,
    backoff: ExponentialBackoff,
    /// Whether the present connection has delivered something.
    progress: bool,
}

impl Lane {
    /// A lane that connects at once. `epoch` is the relay's zero of time.
    #[must_use]
    pub fn new(settings: Arc<Settings>, epoch: Instant) -> Self {
        let mut lane = Lane {
            backoff: backoff(&settings),
            settings,
            epoch,
            state: State::Closed,
            host: 0,
            progress: false,
        };
        lane.try_next_host();
        lane
    }

    /// The connection, while there is one.
    pub fn connection(&mut self) -> Option<&mut Connection> {
        match &mut self.state {
            State::Up(connection, _) => Some(connection),
            _ => None,
        }
    }

    /// The connection delivered a message: the next loss is a first failure again.
    pub fn progressed(&mut self) {
        self.progress = true;
    }

    /// Works on getting connected; `Pending` while connected or closed.
    pub fn poll_connect(&mut self, cx: &mut Context<'_>) -> Poll<Attempt> {
        loop {
            match &mut self.state {
                State::Waiting(sleep) => {
                    ready!(sleep.as_mut().poll(cx));
                    self.try_next_host();
                }
                State::Connecting(attempt) => match ready!(Pin::new(attempt).poll(cx)) {
                    Ok(connection) => {
                        self.progress = false;
                        self.state = State::Up(Box::new(connection), Instant::now());
                        return Poll::Ready(Attempt::Connected);
                    }
                    Err(error) => {
                        let next_in = self.wait();
                        return Poll::Ready(Attempt::Failed { error, next_in });
                    }
                },
                State::Up(..) | State::Closed => return Poll::Pending,
            }
        }
    }

    /// Drops the connection and comes back after a wait. Returns the wait.
    pub fn reconnect(&mut self) -> Duration {
        if let State::Up(_, since) = &self.state
            && (self.progress || since.elapsed() >= SETTLED)
        {
            self.backoff = backoff(&self.settings);
        }
        self.wait()
    }

    /// Drops the connection for good.
    pub fn close(&mut self) {
        self.state = State::Closed;
    }

    /// Comes back after a while, which is returned.
    fn wait(&mut self) -> Duration {
        let longest = self.settings.reconnect_max;
        let wait = self.backoff.next().unwrap_or(longest).min(longest);
        // A reconnect waits for time alone: there is no condition to await.
        self.state = State::Waiting(Box::pin(tokio::time::sleep(wait)));
        wait
    }

    fn try_next_host(&mut self) {
        let (settings, epoch) = (Arc::clone(&self.settings), self.epoch);
        let host = self.host % settings.hosts.len().max(1);
        self.host = host + 1;
        self.state = State::Connecting(Box::pin(async move {
            let address = &settings.hosts[host];
            connect::connect(&settings, address, epoch).await
        }));
    }
}

fn backoff(settings: &Settings) -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(settings.reconnect_initial)
        .with_max_delay(settings.reconnect_max)
        .without_max_times()
        .with_jitter()
        .build()
}
