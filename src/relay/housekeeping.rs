//! The SQL connection that is always open: what the slot costs the server, for the gauges, who holds
//! it, and whether the server wants to shut down.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::pump::Request;
use super::slot_watch::SlotWatch;
use crate::store::{Class, ConnectSettings, Store, StoreError};
use crate::telemetry::status::Settled;
use crate::telemetry::throttle::Throttle;
use crate::telemetry::{Telemetry, clock};

/// How often the slot is looked at.
const EACH: Duration = Duration::from_secs(1);
/// How long its answer may take, connection and login included.
const PATIENCE: Duration = Duration::from_secs(20);

/// Looks at the slot until it is aborted; comes back when the connection is lost. Where the server
/// takes no new one since it shuts down, the pump is told: the server waits for its session to end.
/// The pump is also told who holds the slot.
pub(super) async fn run(
    sql: ConnectSettings,
    slot: String,
    telemetry: Arc<Telemetry>,
    tell: mpsc::Sender<Request>,
    ask: Arc<Notify>,
) {
    let mut throttle = Throttle::new(Duration::from_secs(60));
    let (mut store, mut polled) = (None, None);
    let mut watch = SlotWatch::new();
    loop {
        let asked = Instant::now();
        let looked = look(&sql, &slot, &telemetry, store.take(), &mut polled, &mut watch);
        let looked = tokio::time::timeout(PATIENCE, looked).await;
        match looked.unwrap_or_else(|_| Err(silent())) {
            Ok((connected, holder)) => {
                store = Some(connected);
                // A full channel: the pump has more urgent things to hear.
                let _ = tell.try_send(Request::Holder(holder, asked));
            }
            Err(error) => {
                polled = None;
                watch.unknown(&telemetry);
                // Said again in a second, should the channel be full.
                let _ = tell.try_send(match error.class() {
                    Class::ShuttingDown => Request::Release,
                    _ => Request::Holder(None, asked),
                });
                let what = format!("the slot's state can't be read: {error}");
                if let Some(more) = throttle.allow("sql", clock::unix_now()) {
                    warn!("{what}{more}");
                }
                telemetry.update(|status, _| {
                    status.source.settled = None;
                    status.source.last_error.get_or_insert(what);
                });
            }
        }
        tokio::select! {
            class = ended(store.as_ref()) => if class == Class::ShuttingDown {
                let _ = tell.try_send(Request::Release);
            },
            _ = tokio::time::timeout(EACH, ask.notified()) => {}
        }
    }
}

/// The end of a connection that is idle until the next look. A server that shuts down ends those first:
/// that is heard at once, and without a new connection, since the server waits for the walsender.
async fn ended(store: Option<&Store>) -> Class {
    match store {
        Some(store) => store.ended().await.class,
        None => std::future::pending().await,
    }
}

fn silent() -> StoreError {
    let (what, server) = ("reading the slot's lag", "PostgreSQL".to_owned());
    StoreError::Timeout { what, server, after: PATIENCE }
}

async fn look(
    sql: &ConnectSettings,
    slot: &str,
    telemetry: &Telemetry,
    store: Option<Store>,
    polled: &mut Option<Settled>,
    watch: &mut SlotWatch,
) -> Result<(Store, Option<i32>), StoreError> {
    let store = match store {
        Some(store) => store,
        None => Store::connect(sql).await?,
    };
    let at = clock::unix_now();
    let Some(lag) = store.lag(slot).await? else {
        debug!("the slot is not there");
        watch.gone(telemetry);
        return Ok((store, None));
    };
    telemetry.update(|status, _| {
        // Not the highest: after a failover the new server's WAL may end earlier.
        status.source.settled = polled.replace(Settled { lsn: lag.flush_lsn, at });
        status.source.server_lsn = Some(lag.flush_lsn);
        if status.source.connected {
            status.source.last_error = None;
        } else {
            status.source.confirmed_lsn = lag.confirmed_flush_lsn;
        }
    });
    watch.seen(&store, slot, &lag, telemetry).await?;
    Ok((store, lag.active_pid))
}
