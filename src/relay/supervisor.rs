//! The relay's life: first start, the pump, housekeeping beside it, signals.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};
use tracing::{info, warn};

use super::clock::rounded;
use super::first_start::{self, FirstStart, PrepareError};
use super::housekeeping;
use super::keeper;
use super::marking;
use super::parking;
use super::progress::Progress;
use super::pump::{Outside, Pump, Request};
use super::retention::Retention;
use super::settings::Settings;
use super::stop::Stop;
use crate::net::LOGINS;
use crate::store::setup::Event;
use crate::telemetry::throttle::Throttle;
use crate::telemetry::{Telemetry, clock};

/// What the supervisor is told.
pub struct Plan {
    /// The pump's.
    pub settings: Settings,
    /// What must be there.
    pub first_start: FirstStart,
    /// Delivered rows older than this are deleted; none: they are kept.
    pub retention: Option<Duration>,
}

/// Relays until SIGTERM or SIGINT, or until an operator must act.
///
/// # Errors
/// [`Stop`]: why it ended, unless it was told to.
pub async fn run(plan: Plan, telemetry: Arc<Telemetry>) -> Result<(), Stop> {
    let requests = signals().map_err(|error| Stop::Failed(format!("signals: {error}")))?;
    let (tell, stop_requests, mut pump_requests) = requests;
    let prepared = tokio::select! {
        prepared = prepare(&plan, &telemetry) => prepared,
        () = beat(&telemetry) => return Ok(()),
        _ = pump_requests.recv() => {
            info!("stopped; it was not streaming");
            return Ok(());
        }
    };
    prepared?;
    let first_start = Arc::new(plan.first_start);
    let ask = Arc::new(Notify::new());
    let housekeeper = tokio::spawn(housekeeping::run(
        first_start.sql.clone(),
        plan.settings.source.slot.clone(),
        Arc::clone(&telemetry),
        tell.clone(),
        Arc::clone(&ask),
    ));
    let (marker, batches) = mpsc::channel(1);
    let marking = tokio::spawn(marking::run(Arc::clone(&first_start), batches, tell.clone()));
    let (parker, work) = mpsc::channel(1);
    let (answer, answers) = mpsc::channel(1);
    let max_frame_size = plan.settings.max_frame_size;
    let parking = parking::run(Arc::clone(&first_start), max_frame_size, work, answer);
    let parking = tokio::spawn(parking);
    let (progress, watched) = watch::channel(Progress::default());
    let retention = plan.retention.map(Retention::new);
    let keeper = tokio::spawn(keeper::run(Arc::clone(&first_start), retention, watched, tell));
    let outside = Outside { requests: pump_requests, progress, ask, marker, parker, answers };
    let pump = Pump::new(&plan.settings, first_start, telemetry, outside)
        .map_err(|error| Stop::for_good(error, "correct the configuration"))?;
    let ended = pump.run().await;
    keeper.abort();
    marking.abort();
    parking.abort();
    housekeeper.abort();
    stop_requests.abort();
    ended
}

/// Signs of life while the slot waits, for however long, or a host that answers nothing is tried.
/// Never ends.
async fn beat(telemetry: &Telemetry) {
    loop {
        telemetry.beat.touch();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Makes or checks what must be there, as often as it takes PostgreSQL to be reachable.
async fn prepare(plan: &Plan, telemetry: &Telemetry) -> Result<(), Stop> {
    let mut backoff = ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(5))
        .without_max_times()
        .with_jitter()
        .build();
    let mut throttle = Throttle::default();
    let mut logins = 0;
    loop {
        let mut say = |event: Event<'_>| say(&event, telemetry);
        let attempt: Result<(), PrepareError> =
            first_start::prepare_for_run(&plan.first_start, &mut say).await;
        let Err(error) = attempt else { return Ok(()) };
        logins = if error.is_login() { logins + 1 } else { 0 };
        if let Some(remedy) = error.remedy()
            && (!error.is_login() || logins >= LOGINS)
        {
            return Err(Stop::for_good(error, remedy));
        }
        let wait = backoff.next().unwrap_or(Duration::from_secs(5));
        if let Some(more) = throttle.allow("prepare", clock::unix_now()) {
            warn!(again_in = %rounded(wait), "{error}{}{more}", error.hint());
        }
        telemetry.update(|status, lag| {
            status.source.last_error = Some(error.to_string());
            lag.disconnected();
        });
        tokio::time::sleep(wait).await;
    }
}

/// What is made is said, and what it waits for is shown.
pub(super) fn say(event: &Event<'_>, telemetry: &Telemetry) {
    match event {
        Event::Waiting(_) => {
            warn!("{event}");
            let text = event.to_string();
            telemetry.update(|status, _| status.source.last_error = Some(text));
        }
        Event::Note(_) => warn!("{event}"),
        _ => info!("{event}"),
    }
}

type Requests = (mpsc::Sender<Request>, tokio::task::JoinHandle<()>, mpsc::Receiver<Request>);

/// SIGTERM and SIGINT become requests to stop.
fn signals() -> std::io::Result<Requests> {
    let (tell, requests) = mpsc::channel(8);
    let teller = tell.clone();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let task = tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if tell.send(Request::Stop).await.is_err() {
                return;
            }
        }
    });
    Ok((teller, task, requests))
}
