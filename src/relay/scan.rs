//! One table that is read in a recovery, and how far. Its lock on the table makes `ALTER TABLE` and `VACUUM
//! FULL` wait, and whatever queues behind them: where somebody waits, the reading ends, and begins anew
//! where it was.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::recovery::{Described, Job, RecoveryError};
use crate::store::reading::CHUNK;
use crate::store::waiting::Between;
use crate::store::{Next, OutboxTable, Position, Reader, Store, StoreError, WaitingRow};

/// How often it is looked whether somebody waits for the table.
pub(super) const WAY_EACH: Duration = Duration::from_millis(500);

/// A table under way.
pub(super) struct Scan<'a> {
    pub(super) table: &'a OutboxTable,
    pub(super) keeper: &'a Store,
    job: Job,
    between: Between,
    /// None: it is to be opened, for the first time or again.
    reader: Option<Reader>,
    /// A row is handed over when the next one was read: only then it is known whether its position
    /// is its own. Of rows that share one, some may be in the next chunk.
    held: Option<WaitingRow>,
    /// The position of the last row that is to be handed over, and the one before it that differs.
    latest: Option<Position>,
    passed: Option<Position>,
    /// Rows of the chunk that were handed over.
    in_chunk: usize,
    looked: Instant,
}

/// What was read.
pub(super) struct Read {
    /// What is to be handed over.
    pub(super) row: Option<WaitingRow>,
    pub(super) ends_chunk: bool,
    pub(super) ends_table: bool,
}

impl<'a> Scan<'a> {
    /// Begins after a position.
    pub(super) fn new(
        job: &Job,
        keeper: &'a Store,
        table: &'a OutboxTable,
        between: Between,
        after: Option<Position>,
    ) -> Self {
        Scan {
            table,
            keeper,
            job: job.clone(),
            between,
            reader: None,
            held: None,
            latest: after,
            passed: None,
            in_chunk: 0,
            looked: Instant::now(),
        }
    }

    /// Opens the table where it is not open; answers what it looks like.
    pub(super) async fn open(&mut self) -> Result<Option<Described>, RecoveryError> {
        while self.reader.is_none() {
            let store = self.job.connect().await?;
            let (after, max_row) = (self.latest.as_ref(), self.job.max_row);
            let first = CHUNK - self.in_chunk.min(CHUNK - 1);
            let reader = Reader::open(store, self.table, &self.between, after, max_row, first);
            match reader.await {
                Ok(reader) => {
                    let described = Described::new(self.table, &reader);
                    self.reader = Some(reader);
                    return Ok(Some(described));
                }
                Err(error) if error.code() == Some("55P03") => {
                    let table = &self.table.table;
                    warn!(
                        "the rows that wait in {table} are read once nobody has locked it: {error}"
                    );
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// The next row, if there is one to be handed over yet.
    pub(super) async fn next(&mut self) -> Result<Read, StoreError> {
        let next = match &mut self.reader {
            Some(reader) => reader.next().await?,
            None => Next::End,
        };
        let (row, ends_chunk, ends_table) = match next {
            Next::Row(row) => (self.held.replace(row), false, false),
            Next::ChunkEnd => (None, true, false),
            Next::End => (self.held.take(), true, true),
        };
        if let Some(row) = &row {
            self.in_chunk += 1;
            if row.position != self.latest {
                self.passed = std::mem::replace(&mut self.latest, row.position.clone());
            }
        }
        Ok(Read { row, ends_chunk, ends_table })
    }

    /// The chunk is delivered. Answers the position up to which everything is.
    pub(super) fn end_chunk(&mut self) -> Option<Position> {
        self.in_chunk = 0;
        if self.is_shared() { self.passed.clone() } else { self.latest.clone() }
    }

    /// Whether the next row has the position of the last one.
    fn is_shared(&self) -> bool {
        self.held.as_ref().is_some_and(|next| next.position == self.latest)
    }

    /// As [`Scan::make_way`], where it is time to look.
    pub(super) async fn make_way_in_time(&mut self) -> Result<(), RecoveryError> {
        if self.looked.elapsed() < WAY_EACH { Ok(()) } else { self.make_way().await }
    }

    /// Closes the table if somebody waits for it, and if it can be gone on with: everything that was read
    /// was handed over, but for the row that is held.
    pub(super) async fn make_way(&mut self) -> Result<(), RecoveryError> {
        self.looked = Instant::now();
        let Some(reader) = &self.reader else { return Ok(()) };
        if reader.is_ordered() && !self.is_shared() && reader.is_in_the_way(self.keeper).await? {
            info!("the reading of {} makes way for somebody who waits for it", self.table.table);
            (self.reader, self.held) = (None, None);
        }
        Ok(())
    }
}
