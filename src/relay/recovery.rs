//! Recovery: rows that the stream does not bring are published out of the table, before the stream is
//! read. First start, lost slot, failover and an operator's `--recover` are all this.
//!
//! A task reads the rows in chunks; the pump sends them. Only when every row of a chunk has its receipt
//! is the position kept and the next chunk read, so that a kill repeats one chunk at most. See
//! `docs/design.md`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::warn;

use super::scan::{self, Scan};
use crate::pgoutput;
use crate::source::Origin;
use crate::store::{
    ConnectSettings, Cursor, OutboxTable, Reader, Server, Store, StoreError, WaitingColumn,
    WaitingRow,
};

/// How often it is looked whether everything is visible, and when it is said that it is not.
const LOOK_EACH: Duration = Duration::from_millis(100);
const SAY_AFTER: Duration = Duration::from_secs(2);
/// Rows that are handed over together, and their bytes.
const BATCH: usize = 100;
const BATCH_BYTES: usize = 256 * 1024;

/// What a recovery needs to know.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) sql: ConnectSettings,
    /// Of the session that holds the slot: rows are those of the same server.
    pub(super) origin: Origin,
    pub(super) slot: String,
    /// Of the session that holds the slot.
    pub(super) epoch: i64,
    /// In this order, one after the other.
    pub(super) tables: Arc<[OutboxTable]>,
    /// A longer row is not read whole.
    pub(super) max_row: usize,
}

/// What the task hands over.
#[derive(Debug)]
pub(super) enum Step {
    /// What the rows that come next look like.
    Table(Described),
    /// Rows to be sent.
    Rows(Vec<WaitingRow>),
    /// A chunk ends: goes on when told that every row before has its receipt.
    ChunkEnds,
    /// The position after that chunk is kept.
    Kept,
    /// Everything that waited was published.
    Done,
    /// It can't go on.
    Failed(RecoveryError),
}

/// A table, as a Relation message would describe it.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) oid: u32,
    schema: String,
    name: String,
    pub(super) columns: Vec<WaitingColumn>,
}

impl fmt::Display for Described {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

impl Described {
    pub(super) fn new(table: &OutboxTable, reader: &Reader) -> Self {
        Described {
            oid: reader.oid,
            schema: table.table.schema.clone(),
            name: table.table.name.clone(),
            columns: reader.columns.clone(),
        }
    }

    pub(super) fn relation(&self) -> pgoutput::Relation<'_> {
        let columns = self.columns.iter().map(|column| pgoutput::Column {
            key: false,
            name: &column.name,
            type_oid: column.type_oid,
            type_modifier: column.type_modifier,
        });
        pgoutput::Relation {
            oid: self.oid,
            namespace: &self.schema,
            name: &self.name,
            replica_identity: b'd',
            columns: columns.collect(),
        }
    }
}

/// Why a recovery can't go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecoveryError {
    /// PostgreSQL could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The row's epoch is another one's.
    #[error("another walpost has taken the slot")]
    Superseded,
    /// Several hosts of the url accept writes.
    #[error(
        "the host of postgres.url that accepts writes first is not the server whose slot is held"
    )]
    OtherServer,
}

impl Job {
    /// Each connection looks for the host that accepts writes by itself, and a former primary may do so
    /// again: its rows are not those that wait.
    pub(super) async fn connect(&self) -> Result<Store, RecoveryError> {
        let store = Store::connect(&self.sql).await?;
        let Server { system_identifier, timeline, .. } = store.server().await?;
        if self.origin != (Origin { system_identifier, timeline }) {
            return Err(RecoveryError::OtherServer);
        }
        Ok(store)
    }
}

/// The task's two ends.
pub(super) struct Recovery {
    pub(super) steps: mpsc::Receiver<Step>,
    receipted: mpsc::Sender<()>,
    task: AbortHandle,
}

impl Drop for Recovery {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Recovery {
    /// Begins, or goes on from the position that was kept.
    pub(super) fn start(job: Job) -> Self {
        let (hand, steps) = mpsc::channel(1);
        let (receipted, mut goes_on) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            let mut reading = Reading { job, hand, goes_on: &mut goes_on };
            let last = match reading.run().await {
                Ok(true) => Step::Done,
                // The pump has gone.
                Ok(false) => return,
                Err(error) => Step::Failed(error),
            };
            let _ = reading.hand.send(last).await;
        });
        Recovery { steps, receipted, task: task.abort_handle() }
    }

    /// Every row up to the end of the chunk has its receipt.
    pub(super) fn chunk_receipted(&self) {
        // One is asked for at a time, so that there is room.
        let _ = self.receipted.try_send(());
    }
}

/// Waits until what is visible in the snapshot can be read: a commit that waits for a synchronous standby
/// would be passed over, and the slot does not bring it either.
async fn until_seen(store: &Store, exported: &str) -> Result<(), StoreError> {
    let mut waited = Duration::ZERO;
    while !store.sees_all_of(exported).await? {
        if waited == SAY_AFTER {
            warn!(
                "waiting for transactions that are committed and not visible yet: is a synchronous \
                 standby missing (synchronous_standby_names)?"
            );
        }
        tokio::time::sleep(LOOK_EACH).await;
        waited += LOOK_EACH;
    }
    Ok(())
}

struct Reading<'a> {
    job: Job,
    hand: mpsc::Sender<Step>,
    goes_on: &'a mut mpsc::Receiver<()>,
}

impl Reading<'_> {
    /// `false`: the pump has gone.
    async fn run(&mut self) -> Result<bool, RecoveryError> {
        let keeper = self.job.connect().await?;
        let Job { slot, epoch, .. } = &self.job;
        let state = keeper.recovery_state(slot, *epoch).await?;
        let state = state.ok_or(RecoveryError::Superseded)?;
        if let Some(exported) = &state.between.exported {
            until_seen(&keeper, exported).await?;
        }
        // By name: the position holds whatever the order of the settings.
        let mut tables = self.job.tables.to_vec();
        tables.sort_by(|one, other| one.table.cmp(&other.table));
        // A table that is no longer among them: from the beginning.
        let first = state.cursor.as_ref().and_then(|cursor| {
            tables.iter().position(|table| table.table.to_string() == cursor.table)
        });
        let mut after = state.cursor.and_then(|cursor| cursor.at);
        for table in &tables[first.unwrap_or(0)..] {
            let mut between = state.between.clone();
            if state.fresh.contains(&format!("{}.{}", table.table.schema, table.table.name)) {
                // The snapshot was certified by a relay that passed over this table.
                between.certified = None;
            }
            let after = after.take().filter(|_| first.is_some());
            let scan = Scan::new(&self.job, &keeper, table, between, after);
            if !self.table(scan).await? {
                return Ok(false);
            }
        }
        let Job { slot, epoch, .. } = &self.job;
        if !keeper.recovered(slot, *epoch).await? {
            return Err(RecoveryError::Superseded);
        }
        Ok(true)
    }

    async fn table(&mut self, mut scan: Scan<'_>) -> Result<bool, RecoveryError> {
        let (mut batch, mut bytes) = (Vec::with_capacity(BATCH), 0);
        loop {
            if let Some(described) = scan.open().await?
                && !self.hand(&mut scan, Step::Table(described)).await?
            {
                return Ok(false);
            }
            let read = scan.next().await?;
            if let Some(row) = read.row {
                bytes += row.values.len();
                batch.push(row);
            }
            if !read.ends_chunk && batch.len() < BATCH && bytes < BATCH_BYTES {
                continue;
            }
            bytes = 0;
            let rows = std::mem::replace(&mut batch, Vec::with_capacity(BATCH));
            if !self.hand(&mut scan, Step::Rows(rows)).await? {
                return Ok(false);
            }
            if read.ends_chunk && !self.chunk(&mut scan).await? {
                return Ok(false);
            }
            if read.ends_table {
                return Ok(true);
            }
        }
    }

    /// Waits for the receipts of a chunk, and keeps its position.
    async fn chunk(&mut self, scan: &mut Scan<'_>) -> Result<bool, RecoveryError> {
        if !self.hand(scan, Step::ChunkEnds).await? {
            return Ok(false);
        }
        loop {
            match tokio::time::timeout(scan::WAY_EACH, self.goes_on.recv()).await {
                Ok(Some(())) => break,
                Ok(None) => return Ok(false),
                Err(_) => scan.make_way().await?,
            }
        }
        scan.make_way_in_time().await?;
        if let Some(at) = scan.end_chunk() {
            let cursor = Cursor { table: scan.table.table.to_string(), at: Some(at) };
            let Job { slot, epoch, .. } = &self.job;
            if !scan.keeper.keep_cursor(slot, *epoch, &cursor).await? {
                return Err(RecoveryError::Superseded);
            }
        }
        self.hand(scan, Step::Kept).await
    }

    /// `false`: the pump has gone. While it has no room, the table is not held against anybody.
    async fn hand(&self, scan: &mut Scan<'_>, step: Step) -> Result<bool, RecoveryError> {
        loop {
            match tokio::time::timeout(scan::WAY_EACH, self.hand.reserve()).await {
                Ok(Ok(room)) => {
                    room.send(step);
                    return Ok(true);
                }
                Ok(Err(_)) => return Ok(false),
                Err(_) => scan.make_way().await?,
            }
        }
    }
}
