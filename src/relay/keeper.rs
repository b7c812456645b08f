//! The keeper: what a running relay keeps of itself in `walpost.relay`, on a SQL connection of its own.
//!
//! Beside the pump, and never in its way: the certified snapshot, how far a large transaction is, and the
//! guard that looks whether the publication and the tables are what they were. See `docs/design.md`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::first_start::FirstStart;
use super::guarding::{self, Guarded};
use super::progress::{Holding, Progress};
use super::pump::Request;
use super::retention::Retention;
use crate::engine::{Certifier, Connections};
use crate::store::keeping::{LastReceipted, Mark};
use crate::store::{Store, StoreError};
use crate::telemetry::clock;
use crate::telemetry::throttle::Throttle;

/// How often the guard looks.
const GUARD_EACH: Duration = Duration::from_secs(5);
/// How often a snapshot is certified, where messages moved: our own writes are WAL, too.
const CERTIFY_EACH: Duration = Duration::from_secs(10);
/// How often the watermark is compared where nothing tells of it.
const LOOK_EACH: Duration = Duration::from_millis(500);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Keeps until it is aborted; comes back when its connection is lost.
pub(super) async fn run(
    wanted: Arc<FirstStart>,
    retention: Option<Retention>,
    mut progress: watch::Receiver<Progress>,
    tell: mpsc::Sender<Request>,
) {
    let mut keeper = Keeper {
        wanted,
        retention,
        tell,
        connections: 0,
        certifier: Certifier::default(),
        known: None,
        last: None,
        throttle: Throttle::new(Duration::from_secs(60)),
        guard_at: Instant::now(),
        certify_at: Instant::now(),
        compare_at: Instant::now(),
        certified_receipts: None,
    };
    let mut throttle = Throttle::new(Duration::from_secs(60));
    let mut store = None;
    loop {
        // Either there is news, or it is time to look.
        let _ = tokio::time::timeout(LOOK_EACH, progress.changed()).await;
        if progress.has_changed().is_err() {
            return;
        }
        let now = *progress.borrow_and_update();
        let Some(holding) = now.session else {
            keeper.known = None;
            continue;
        };
        let kept = keeper.turn(&mut store, holding, now);
        let kept = tokio::time::timeout(PATIENCE, kept).await;
        if let Ok(Err(error)) = &kept
            && let Some(more) = throttle.allow("keeper", clock::unix_now())
        {
            warn!("the relay's row can't be kept: {error}{more}");
        }
        if !matches!(kept, Ok(Ok(()))) {
            store = None;
        }
    }
}

struct Keeper {
    wanted: Arc<FirstStart>,
    retention: Option<Retention>,
    tell: mpsc::Sender<Request>,
    /// How many there were.
    connections: u64,
    certifier: Certifier<(Mark, u64)>,
    /// What the guard goes by, and of which session.
    known: Option<(Holding, Guarded)>,
    /// What was kept last of a large transaction.
    last: Option<LastReceipted>,
    throttle: Throttle,
    guard_at: Instant,
    certify_at: Instant,
    compare_at: Instant,
    /// Receipts when the last snapshot was taken that is certified; none: none is yet.
    certified_receipts: Option<u64>,
}

impl Keeper {
    async fn turn(
        &mut self,
        connected: &mut Option<Store>,
        holding: Holding,
        now: Progress,
    ) -> Result<(), StoreError> {
        let store = match connected {
            Some(store) => store,
            None => {
                self.connections += 1;
                connected.insert(Store::connect(&self.wanted.sql).await?)
            }
        };
        self.keep_large(store, holding, now).await?;
        if self.known.as_ref().is_none_or(|(of, _)| *of != holding) {
            let slot = &self.wanted.source.slot;
            let Some(guarded) = guarding::known(store, slot, holding.epoch).await? else {
                return self.superseded().await;
            };
            self.known = Some((holding, guarded));
        }
        if Instant::now() >= self.guard_at && !self.guard(store).await? {
            return Ok(());
        }
        self.certify(store, holding, now).await?;
        if let Some(retention) = &mut self.retention {
            retention.turn(store, &self.wanted).await?;
        }
        Ok(())
    }

    async fn keep_large(
        &mut self,
        store: &Store,
        holding: Holding,
        now: Progress,
    ) -> Result<(), StoreError> {
        let Some((id, change)) = now.large else { return Ok(()) };
        let last = LastReceipted::new(id, change);
        if self.last == Some(last) {
            return Ok(());
        }
        self.last = Some(last);
        let slot = &self.wanted.source.slot;
        if store.keep_last_receipted(slot, holding.epoch, &last).await? {
            return Ok(());
        }
        self.superseded().await
    }

    /// Looks whether the publication and the tables are what they were. `false`: they are not, and the
    /// pump was told.
    async fn guard(&mut self, store: &Store) -> Result<bool, StoreError> {
        let Some((_, guarded)) = &self.known else { return Ok(false) };
        let finding = guarding::look(store, &self.wanted, Some(guarded)).await?;
        self.guard_at = Instant::now() + GUARD_EACH;
        if let Some(request) = finding.request {
            self.certifier = Certifier::default();
            let _ = self.tell.send(request).await;
            return Ok(false);
        }
        if let Some(next) = guarded.unsettled()
            && !finding.settled
            && let Some(more) = self.throttle.allow("unsettled", clock::unix_now())
        {
            warn!(
                "nothing is certified or cleaned up until the transactions have ended that are older \
                 than {next}: SELECT pid, state, xact_start FROM pg_stat_activity WHERE backend_xid IS NOT \
                 NULL ORDER BY xact_start; and pg_prepared_xacts{more}"
            );
        }
        if finding.settled {
            info!("the transactions have ended that were open when the publication changed");
            let _ = self.tell.send(Request::Recover).await;
            return Ok(false);
        }
        Ok(true)
    }

    async fn certify(
        &mut self,
        store: &Store,
        holding: Holding,
        now: Progress,
    ) -> Result<(), StoreError> {
        let Some((_, guarded)) = &self.known else { return Ok(()) };
        if guarded.is_unsettled() {
            return Ok(());
        }
        let on = Connections { session: holding.session, sql: self.connections };
        if self.certifier.is_passed(on, now.watermark) {
            let same = self.guard(store).await?;
            let checked = self.certifier.checked(on, same);
            let Some(((mark, receipts), position)) = checked else { return Ok(()) };
            let slot = &self.wanted.source.slot;
            if !store.keep_certified(slot, holding.epoch, holding.walsender, &mark).await? {
                return self.superseded().await;
            }
            self.certified_receipts = Some(receipts);
            debug!(%position, "everything committed before is certified to be delivered");
            return Ok(());
        }
        let moved = self.certified_receipts != Some(now.receipts);
        if self.certifier.is_pending() || Instant::now() < self.certify_at {
            return Ok(());
        }
        let waited_for = if moved { None } else { self.waited_for(store).await? };
        if !moved && waited_for.is_none() {
            return Ok(());
        }
        if self.guard(store).await? {
            let mut mark = store.mark().await?;
            // As late as the other one, so that neither waits for the other for ever.
            mark.at = waited_for.unwrap_or(mark.at);
            let position = mark.position;
            self.certifier.taken(on, (mark, now.receipts), position);
            self.certify_at = Instant::now() + CERTIFY_EACH;
        }
        Ok(())
    }

    /// Since when another relay's clean-up waits for this one, where nothing moves.
    async fn waited_for(&mut self, store: &Store) -> Result<Option<String>, StoreError> {
        if Instant::now() < self.compare_at {
            return Ok(None);
        }
        self.compare_at = Instant::now() + CERTIFY_EACH;
        store.waited_for(&self.wanted.source.slot).await
    }

    /// The row is another one's: whoever has the slot, it is not us.
    async fn superseded(&mut self) -> Result<(), StoreError> {
        warn!("another walpost has taken the slot; nothing more is written");
        self.known = None;
        let _ = self.tell.send(Request::Superseded).await;
        Ok(())
    }
}
