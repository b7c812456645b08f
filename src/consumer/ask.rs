//! Waiting for what may pass, unless the consumer is told to stop.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::sync::watch;

/// Tells whether the consumer is to stop.
pub(super) type Stop = watch::Receiver<bool>;

/// Waits until it is to stop; for ever, if nobody can say so any more.
pub(super) async fn stopped(stop: &mut Stop) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits that grow.
pub(super) struct Pauses {
    backoff: ExponentialBackoff,
    longest: Duration,
}

impl Pauses {
    pub(super) fn new(first: Duration, longest: Duration) -> Pauses {
        let longest = longest.max(first);
        let backoff = ExponentialBuilder::new()
            .with_min_delay(first)
            .with_max_delay(longest)
            .without_max_times()
            .with_jitter()
            .build();
        Pauses { backoff, longest }
    }

    /// For a server that is away.
    pub(super) fn of_server() -> Pauses {
        Pauses::new(Duration::from_millis(100), Duration::from_secs(5))
    }

    /// How long the next one is.
    pub(super) fn next(&mut self) -> Duration {
        self.backoff.next().unwrap_or(self.longest).min(self.longest)
    }

    /// Waits; false: it is to stop.
    pub(super) async fn wait(&mut self, stop: &mut Stop) -> bool {
        let pause = self.next();
        // Nothing but time tells when it is worth another attempt.
        tokio::select! {
            () = tokio::time::sleep(pause) => true,
            () = stopped(stop) => false,
        }
    }
}
