//! The marker: rows whose messages have their receipt get their mark, on a SQL connection of its own
//! (rule 8). One batch at a time; how much is owed at once is bounded by the window.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::first_start::{FirstStart, GRANT_REMEDY, PrepareError};
use super::progress::Holding;
use super::pump::Request;
use crate::engine::Receipt;
use crate::outbox::TableId;
use crate::store::marking::{Holder, MarkedRow, MarkedTable, Target};
use crate::store::name::ident;
use crate::store::setup::Event;
use crate::store::{Store, StoreError};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// So often in a batch a lock is waited for in vain before the rest is left for later.
const LOCKS: u32 = 12;

/// Rows to be marked.
pub(super) struct Batch {
    /// The session that they are marked for.
    pub(super) holding: Holding,
    /// The message's number, its table, the row.
    pub(super) rows: Vec<(Receipt, TableId, MarkedRow)>,
}

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// For each row the message's number, and whether it is done.
    pub(super) rows: Vec<(Receipt, bool)>,
    /// Why one was refused.
    pub(super) refused: Option<String>,
}

impl Outcome {
    fn refused(&mut self, error: &StoreError) {
        let remedy = match error.code() {
            Some("42501") => format!("; {GRANT_REMEDY}"),
            _ => String::new(),
        };
        self.refused.get_or_insert(format!("{error}{remedy}"));
    }
}

/// Whether the rows can and may be marked at all; says where that is slow.
///
/// # Errors
/// [`PrepareError`]: `MayNotMark`, `NotMarkable`, `OtherReader`.
pub(super) async fn check(
    store: &Store,
    wanted: &FirstStart,
    on_event: &mut impl FnMut(Event<'_>),
) -> Result<(), PrepareError> {
    for table in &wanted.setup.marks {
        if let Some(grant) = store.missing_grant(table).await? {
            return Err(PrepareError::MayNotMark { table: table.table.to_string(), grant });
        }
        let slot = &wanted.source.slot;
        if wanted.setup.sharding.is_none()
            && let Some(other) = store.other_reader(slot, &table.table).await?
        {
            return Err(PrepareError::OtherReader { table: table.table.to_string(), other });
        }
        match store.check_marks(table).await {
            Err(error @ StoreError::Server { .. }) => {
                return Err(PrepareError::NotMarkable { table: table.table.to_string(), error });
            }
            checked => checked?,
        }
        if !store.has_index(table).await? {
            let (name, id) = (table.table.quoted(), ident(&table.id));
            on_event(Event::Note(format!(
                "no index of {} begins with {id}: to mark what is published the whole table is read again and \
                 again; CREATE INDEX CONCURRENTLY ON {name} ({id})",
                table.table
            )));
        }
    }
    Ok(())
}

/// Marks until it is aborted; comes back when its connection is lost.
pub(super) async fn run(
    wanted: Arc<FirstStart>,
    mut batches: mpsc::Receiver<Batch>,
    tell: mpsc::Sender<Request>,
) {
    let mut marker = Marker { wanted, connected: None, targets: HashMap::new() };
    while let Some(batch) = batches.recv().await {
        let outcome = marker.take(&batch).await;
        if tell.send(Request::Marked(outcome)).await.is_err() {
            return;
        }
    }
}

struct Marker {
    wanted: Arc<FirstStart>,
    connected: Option<Store>,
    /// What is known of the tables; forgotten when something is not done, since a table may have
    /// another name, and its ids another type.
    targets: HashMap<TableId, Option<Target>>,
}

impl Marker {
    async fn take(&mut self, batch: &Batch) -> Outcome {
        let mut outcome = Outcome::default();
        let marked = tokio::time::timeout(PATIENCE, self.mark(batch, &mut outcome)).await;
        let failed = match marked {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error),
            Err(_) => Some(StoreError::Timeout {
                what: "marking what is published",
                server: "PostgreSQL".to_owned(),
                after: PATIENCE,
            }),
        };
        if let Some(error) = failed {
            // Whether they are marked is not known: once more.
            self.connected = None;
            outcome.refused(&error);
        }
        let known: HashSet<Receipt> = outcome.rows.iter().map(|(receipt, _)| *receipt).collect();
        let others = batch.rows.iter().filter(|(receipt, ..)| !known.contains(receipt));
        outcome.rows.extend(others.map(|(receipt, ..)| (*receipt, false)));
        if !outcome.rows.iter().all(|(_, done)| *done) {
            self.targets.clear();
        }
        outcome
    }

    /// Marks the rows of one table after the other. What the server refuses holds up neither the other
    /// tables nor, where it is a matter of single rows, those beside it.
    async fn mark(&mut self, batch: &Batch, outcome: &mut Outcome) -> Result<(), StoreError> {
        let store = match &mut self.connected {
            Some(store) => store,
            None => {
                let store = Store::connect(&self.wanted.sql).await?;
                store.prepare_to_mark().await?;
                self.connected.insert(store)
            }
        };
        let slot = &self.wanted.source.slot;
        let Holding { epoch, walsender, .. } = batch.holding;
        let holder = Holder { slot, epoch, walsender };
        let mut by_table: BTreeMap<_, (Vec<Receipt>, Vec<MarkedRow>)> = BTreeMap::new();
        for (receipt, of, row) in &batch.rows {
            let (receipts, rows) = by_table.entry((of.place, of.oid)).or_default();
            receipts.push(*receipt);
            rows.push(row.clone());
        }
        for ((place, oid), (receipts, rows)) in by_table {
            let Some(table) = self.wanted.setup.marks.get(usize::from(place)) else { continue };
            let marking = Marking { store, table, oid, holder };
            let known = self.targets.entry(TableId { place, oid });
            match marking.all(known, &receipts, &rows, outcome).await {
                Ok(()) => {}
                Err(error @ (StoreError::Server { .. } | StoreError::Answer { .. })) => {
                    outcome.refused(&error);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The rows of one table in a batch.
struct Marking<'a> {
    store: &'a Store,
    table: &'a MarkedTable,
    oid: u32,
    holder: Holder<'a>,
}

impl Marking<'_> {
    /// Marks them; where one is refused, the others without it.
    async fn all(
        &self,
        known: Entry<'_, TableId, Option<Target>>,
        receipts: &[Receipt],
        rows: &[MarkedRow],
        outcome: &mut Outcome,
    ) -> Result<(), StoreError> {
        let Marking { store, table, oid, holder } = *self;
        let target = match known {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(store.target(table, oid).await?),
        };
        let (mut parts, mut waits) = (vec![(0, rows.len())], LOCKS);
        while let Some((from, to)) = parts.pop() {
            let target = (target.as_ref(), oid);
            match store.mark_published(table, target, &rows[from..to], holder).await {
                Ok(done) => outcome.rows.extend(receipts[from..to].iter().copied().zip(done)),
                Err(error) if error.is_locked() && (to - from == 1 || waits == 0) => {
                    outcome.rows.extend(receipts[from..to].iter().map(|receipt| (*receipt, false)));
                }
                Err(error) if !error.is_of_a_row() && !error.is_locked() => return Err(error),
                Err(error) if to - from == 1 => outcome.refused(&error),
                Err(error) => {
                    waits -= u32::from(error.is_locked());
                    let middle = from.midpoint(to);
                    parts.extend([(from, middle), (middle, to)]);
                }
            }
        }
        Ok(())
    }
}
