//! The marker: rows whose messages have their receipt get their mark, on a SQL connection of its own
//! (rule 8). One batch at a time; how much is owed at once is bounded by the window.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::warn;

use super::first_start::{FirstStart, GRANT_REMEDY, PrepareError};
use super::progress::Holding;
use super::pump::Request;
use crate::engine::Receipt;
use crate::store::marking::{Holder, IdType, MarkedRow};
use crate::store::{Store, StoreError};
use crate::telemetry::throttle::Throttle;
use crate::telemetry::{Telemetry, clock};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Rows that are owed their marks for longer are worth a line.
const STUCK: Duration = Duration::from_secs(5);

/// Rows to be marked.
pub(super) struct Batch {
    /// The session that they are marked for.
    pub(super) holding: Holding,
    /// The message's number, the place of its table among the outbox tables, the row.
    pub(super) rows: Vec<(Receipt, u16, MarkedRow)>,
}

/// What became of a row: the message's number, and whether it is done.
pub(super) type Outcome = (Receipt, bool);

/// Whether the rows may be marked at all.
///
/// # Errors
/// [`PrepareError::MayNotMark`].
pub(super) async fn check(store: &Store, wanted: &FirstStart) -> Result<(), PrepareError> {
    for table in &wanted.setup.marks {
        if let Some(grant) = store.missing_grant(table).await? {
            return Err(PrepareError::MayNotMark { table: table.table.to_string(), grant });
        }
    }
    Ok(())
}

/// Marks until it is aborted; comes back when its connection is lost.
pub(super) async fn run(
    wanted: Arc<FirstStart>,
    mut batches: mpsc::Receiver<Batch>,
    tell: mpsc::Sender<Request>,
    telemetry: Arc<Telemetry>,
) {
    let mut marker =
        Marker { wanted, connected: None, stuck: None, throttle: Throttle::new(STUCK) };
    while let Some(batch) = batches.recv().await {
        let outcomes = marker.take(&batch).await;
        let problem = marker.problem(&outcomes);
        telemetry.update(|status, _| status.marking.last_error = problem);
        if tell.send(Request::Marked(outcomes)).await.is_err() {
            return;
        }
    }
}

struct Marker {
    wanted: Arc<FirstStart>,
    /// The connection, and the types of the ids by the place of their table.
    connected: Option<(Store, HashMap<u16, IdType>)>,
    /// Since when no batch was done as a whole, and why the last one was not.
    stuck: Option<(Instant, Option<StoreError>)>,
    throttle: Throttle,
}

impl Marker {
    async fn take(&mut self, batch: &Batch) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(batch.rows.len());
        let marked = tokio::time::timeout(PATIENCE, self.mark(batch, &mut outcomes)).await;
        let failed = match marked {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error),
            Err(_) => Some(StoreError::Timeout {
                what: "marking what is published",
                server: "PostgreSQL".to_owned(),
                after: PATIENCE,
            }),
        };
        if let Some(error) = &failed {
            // Whether they are marked is not known: once more.
            if !matches!(error, StoreError::Server { .. }) {
                self.connected = None;
            }
            for (receipt, ..) in &batch.rows {
                if !outcomes.iter().any(|(known, _)| known == receipt) {
                    outcomes.push((*receipt, false));
                }
            }
        }
        if outcomes.iter().all(|(_, done)| *done) {
            self.stuck = None;
        } else {
            let since = self.stuck.take().map_or_else(Instant::now, |(since, _)| since);
            self.stuck = Some((since, failed));
        }
        outcomes
    }

    /// Marks the rows of one table after the other.
    async fn mark(&mut self, batch: &Batch, outcomes: &mut Vec<Outcome>) -> Result<(), StoreError> {
        let (store, types) = match &mut self.connected {
            Some(connected) => connected,
            None => {
                let store = Store::connect(&self.wanted.sql).await?;
                store.prepare_to_mark().await?;
                self.connected.insert((store, HashMap::new()))
            }
        };
        let slot = &self.wanted.source.slot;
        let Holding { epoch, walsender, .. } = batch.holding;
        for (place, table) in (0..).zip(&self.wanted.setup.marks) {
            let of_it = batch.rows.iter().filter(|(_, of, _)| *of == place);
            let (receipts, rows): (Vec<_>, Vec<_>) =
                of_it.map(|(receipt, _, row)| (*receipt, row.clone())).unzip();
            if rows.is_empty() {
                continue;
            }
            let of = match types.entry(place) {
                std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
                std::collections::hash_map::Entry::Vacant(unknown) => {
                    unknown.insert(store.id_type(table).await?)
                }
            };
            let holder = Holder { slot, epoch, walsender };
            // A row that cannot be marked is not to hold up those beside it.
            let (mut parts, mut refused) = (vec![(0, rows.len())], None);
            while let Some((from, to)) = parts.pop() {
                match store.mark_published(table, of, &rows[from..to], holder).await {
                    Ok(done) => outcomes.extend(receipts[from..to].iter().copied().zip(done)),
                    Err(error) if !error.is_of_a_row() => return Err(error),
                    Err(error) if to - from == 1 => refused = Some(error),
                    Err(_) => {
                        let middle = from.midpoint(to);
                        parts.extend([(from, middle), (middle, to)]);
                    }
                }
            }
            if let Some(error) = refused {
                return Err(error);
            }
        }
        Ok(())
    }

    /// What is wrong, for the status; said once in a while.
    fn problem(&mut self, outcomes: &[Outcome]) -> Option<String> {
        let (since, failed) = self.stuck.as_ref()?;
        let what = match failed {
            Some(error) => {
                let remedy = match error.code() {
                    Some("42501") => format!("; {GRANT_REMEDY}"),
                    _ => String::new(),
                };
                format!("published rows can't be marked: {error}{remedy}")
            }
            None if since.elapsed() < STUCK => return None,
            None => {
                let rows = outcomes.iter().filter(|(_, done)| !done).count();
                format!(
                    "{rows} published rows can't be marked: another session has locked them, or their commits \
                     wait for a synchronous standby; nothing past them is confirmed (SELECT pid, wait_event, \
                     query FROM pg_stat_activity WHERE state <> 'idle' ORDER BY xact_start)"
                )
            }
        };
        if let Some(more) = self.throttle.allow("marking", clock::unix_now()) {
            warn!("{what}{more}");
        }
        Some(what)
    }
}
