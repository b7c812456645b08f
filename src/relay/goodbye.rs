//! The end of the pump: what is done is confirmed, and the peers are told goodbye.

use std::time::Duration;

use tokio::sync::mpsc;
use tracing::{info, warn};

use super::pump::{Pump, Request};
use super::stop::Stop;
use crate::lsn::Lsn;
use crate::pgoutput::PgTime;
use crate::source::Session;
use crate::telemetry::status::Phase;

/// For the goodbyes at the end, to each peer.
const GOODBYE: Duration = Duration::from_secs(3);
/// For both, once told to stop a second time.
const LAST_WORD: Duration = Duration::from_millis(200);

impl Pump {
    /// Confirms what is done and says goodbye.
    pub(super) async fn finish(mut self) -> Result<(), Stop> {
        self.clock.read();
        self.say_undone();
        let watermark = self.engine.watermark();
        let wall = self.clock.wall;
        let session = self.session.take();
        let goodbyes = async {
            confirm_and_leave(session, watermark, wall).await;
            let lanes = async {
                for lane in &mut self.lanes {
                    if let Some(connection) = lane.connection() {
                        connection.leave().await;
                    }
                }
            };
            let _ = tokio::time::timeout(GOODBYE, lanes).await;
        };
        let hurry = self.draining.as_ref().is_some_and(|drain| drain.at_once);
        tokio::select! {
            () = goodbyes => {}
            () = told_to_stop(&mut self.requests, hurry) => warn!("stopped at once: told again"),
        }
        self.report();
        self.telemetry.update(|status, _| status.phase = Phase::Stopped);
        match self.draining.and_then(|drain| drain.stop) {
            Some(stop) => Err(stop),
            None => Ok(()),
        }
    }
}

/// Reports the last position; PostgreSQL's answer shows that it has taken it.
async fn confirm_and_leave(session: Option<Box<Session>>, watermark: Lsn, clock: PgTime) {
    let Some(session) = session else {
        info!("stopped; it was not streaming");
        return;
    };
    match tokio::time::timeout(GOODBYE, session.finish(watermark, clock)).await {
        Ok(Ok(())) if watermark == Lsn::INVALID => info!("stopped; nothing new was confirmed"),
        Ok(Ok(())) => info!(confirmed = %watermark, "stopped"),
        Ok(Err(error)) => warn!("the last position may not be confirmed: {error}"),
        Err(_) => warn!("the last position may not be confirmed: PostgreSQL is busy"),
    }
}

/// Waits for the next request to stop, or, where it came already, for as long as a goodbye takes
/// that is not delayed.
async fn told_to_stop(requests: &mut mpsc::Receiver<Request>, already: bool) {
    if already {
        return tokio::time::sleep(LAST_WORD).await;
    }
    while let Some(request) = requests.recv().await {
        if request == Request::Stop {
            return;
        }
    }
    std::future::pending().await
}
