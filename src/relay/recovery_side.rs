//! The pump's half towards the rows that are published out of the table: while there are any, nothing is
//! read from the slot.

use std::task::{Context, Poll};
use std::time::Duration;

use tracing::{debug, info};

use super::first_start::GRANT_REMEDY;
use super::intake::Halt;
use super::pump::Pump;
use super::recovery::{Described, Job, Recovery, RecoveryError, Step};
use super::stop::Stop;
use crate::outbox::Message;
use crate::pgoutput::PgTime;
use crate::source::SourceError;
use crate::store::{Class, WaitingRow};
use crate::telemetry::clock;
use crate::telemetry::status::{self, Phase};

/// How often it is said how far it is.
const SAY_EACH: Duration = Duration::from_secs(10);

/// A recovery under way.
pub(super) struct Feeding {
    recovery: Recovery,
    /// The table that is read: its oid, and how many columns its rows have.
    table: Option<(u32, u16)>,
    table_name: Option<String>,
    rows: std::vec::IntoIter<WaitingRow>,
    /// A message that the window has no room for yet.
    pending: Option<(PgTime, Message)>,
    /// The chunk is read; its receipts are waited for.
    chunk_ended: bool,
    /// Something of a chunk was sent whose position is not kept yet.
    busy: bool,
    published: u64,
    /// When the last row that became a message was made.
    up_to: Option<PgTime>,
    said: Duration,
}

impl Pump {
    /// Begins to publish what the stream does not bring.
    pub(super) fn recover(&mut self, job: Job) {
        let tables: Vec<_> = job.tables.iter().map(|table| table.table.to_string()).collect();
        info!("publishing the rows that wait in {}, then the slot is read", tables.join(", "));
        self.feeding = Some(Feeding {
            recovery: Recovery::start(job),
            table: None,
            table_name: None,
            rows: Vec::new().into_iter(),
            pending: None,
            chunk_ended: false,
            busy: false,
            published: 0,
            up_to: None,
            said: self.clock.now,
        });
        self.telemetry.update(|status, _| {
            status.phase = Phase::Recovering;
            status.recovery = Some(status::Recovery::default());
        });
    }

    /// How far it is, for the status.
    pub(super) fn recovery_status(&self) -> Option<status::Recovery> {
        let feeding = self.feeding.as_ref()?;
        Some(status::Recovery {
            table: feeding.table_name.clone(),
            published: feeding.published,
            up_to: feeding.up_to.map(|at| clock::rfc3339(at.since_unix())),
        })
    }

    /// Whether rows out of the table are on their way, so that a kill would repeat them.
    pub(super) fn is_recovering_busily(&self) -> bool {
        self.feeding.as_ref().is_some_and(|feeding| feeding.busy)
    }

    /// Takes what the task hands over, as far as the window has room. `true`: something moved.
    pub(super) fn poll_recovery(&mut self, cx: &mut Context<'_>) -> Result<bool, Halt> {
        let Some(mut feeding) = self.feeding.take() else { return Ok(false) };
        let fed = self.feed(&mut feeding, cx);
        if !matches!(fed, Ok(Fed::Done) | Err(_)) {
            self.feeding = Some(feeding);
        }
        Ok(matches!(fed?, Fed::Moved | Fed::Done))
    }

    fn feed(&mut self, feeding: &mut Feeding, cx: &mut Context<'_>) -> Result<Fed, Halt> {
        let mut fed = Fed::Nothing;
        loop {
            while let Some((made_at, message)) = self.next_recovered(feeding)? {
                if !self.engine.fits(message.size()) {
                    feeding.pending = Some((made_at, message));
                    return Ok(fed);
                }
                let outgoing = self.intake.outgoing(message);
                self.engine
                    .recover(made_at, outgoing)
                    .map_err(|error| Halt::Source(SourceError::Recovery(error.to_string())))?;
                feeding.busy = true;
                feeding.published += 1;
                fed = Fed::Moved;
            }
            if feeding.chunk_ended {
                if !self.engine.is_drained() {
                    return Ok(fed);
                }
                feeding.chunk_ended = false;
                feeding.recovery.chunk_receipted();
            }
            if self.draining.is_some() && !feeding.busy {
                return Ok(fed);
            }
            let Poll::Ready(step) = feeding.recovery.steps.poll_recv(cx) else { return Ok(fed) };
            match step {
                Some(Step::Table(table)) => self.described(feeding, &table)?,
                Some(Step::Rows(rows)) => feeding.rows = rows.into_iter(),
                Some(Step::ChunkEnds) => feeding.chunk_ended = true,
                Some(Step::Kept) => self.kept(feeding),
                Some(Step::Done) => return Ok(self.recovered(feeding)),
                Some(Step::Failed(error)) => return Err(failed(&error)),
                None => {
                    let text = "its task has ended".to_owned();
                    return Err(Halt::Source(SourceError::Recovery(text)));
                }
            }
            fed = Fed::Moved;
        }
    }

    fn next_recovered(&mut self, feeding: &mut Feeding) -> Result<Option<(PgTime, Message)>, Halt> {
        if let Some(pending) = feeding.pending.take() {
            return Ok(Some(pending));
        }
        let Some((oid, columns)) = feeding.table else { return Ok(None) };
        for row in feeding.rows.by_ref() {
            let metrics = &self.telemetry.metrics;
            let message = self.intake.recovered(metrics, oid, columns, &row, &self.clock)?;
            if let Some(message) = message {
                feeding.up_to = row.made_at;
                return Ok(Some((row.made_at.unwrap_or(self.clock.wall), message)));
            }
        }
        Ok(None)
    }

    fn described(&mut self, feeding: &mut Feeding, table: &Described) -> Result<(), Halt> {
        self.intake.describe(&table.relation())?;
        // PostgreSQL has no table with more than 1 600 columns.
        feeding.table = Some((table.oid, u16::try_from(table.columns.len()).unwrap_or(u16::MAX)));
        feeding.table_name = Some(table.to_string());
        Ok(())
    }

    fn kept(&mut self, feeding: &mut Feeding) {
        feeding.busy = false;
        self.link.progressed();
        if self.clock.now >= feeding.said + SAY_EACH {
            feeding.said = self.clock.now;
            info!(published = feeding.published, "publishing the rows that wait");
        }
    }

    fn recovered(&mut self, feeding: &Feeding) -> Fed {
        let published = feeding.published;
        info!(published, "the rows that waited are published; the slot is read from now on");
        // The stream describes its relations itself.
        self.intake.clear();
        let draining = self.draining.is_some();
        self.telemetry.update(|status, _| {
            status.recovery = None;
            if !draining {
                status.phase = Phase::Streaming;
            }
        });
        Fed::Done
    }
}

/// What became of a turn.
enum Fed {
    Nothing,
    Moved,
    Done,
}

fn failed(error: &RecoveryError) -> Halt {
    match error {
        RecoveryError::Store(store) if store.class() == Class::Operator => {
            let remedy = match store.code() {
                Some("42501") => GRANT_REMEDY,
                // The rows are sorted; in memory for as long as they fit.
                Some("53400") => {
                    "raise temp_file_limit for walpost's role: ALTER ROLE … SET temp_file_limit"
                }
                _ => "correct outbox.tables, outbox.columns or the table",
            };
            Halt::Stop(Stop::for_good(
                format_args!("the rows that wait can't be published: {store}"),
                remedy,
            ))
        }
        _ => {
            debug!("the recovery ends: {error}");
            Halt::Source(SourceError::Recovery(error.to_string()))
        }
    }
}
