//! One message of the stream: what it means for the outbox and the engine.

use tracing::warn;

use super::clock::Clock;
use super::stop::Stop;
use crate::engine::{Addressed, Change, Engine, Outgoing, StreamError, TxId};
use crate::lsn::Lsn;
use crate::outbox::{Context, Message, Outbox, Row, RowError, SkipReason, Unfit, UnfitReason};
use crate::pgoutput::{self, Begin, Truncated, Tuple};
use crate::source::{Incoming, SourceError};
use crate::store::WaitingRow;
use crate::store::name::{literal, one_line};
use crate::telemetry::Metrics;

/// What the stream is read into.
pub(super) struct Intake {
    pub(super) outbox: Outbox,
    slot: String,
    /// The Begin of the transaction being read.
    begin: Option<Begin>,
    /// A message that the window has no room for yet. Nothing more is read meanwhile.
    pending: Option<Message>,
    /// Whether rows are marked after the receipt.
    marks: bool,
}

/// Why the stream can't be read on.
pub(super) enum Halt {
    /// The session is broken: perhaps another one is not.
    Source(SourceError),
    /// An operator must act.
    Stop(Stop),
}

impl Addressed for Message {
    fn destination(&self) -> &str {
        Message::destination(self)
    }
}

impl Intake {
    pub(super) fn new(outbox: Outbox, slot: String, marks: bool) -> Self {
        Intake { outbox, slot, begin: None, pending: None, marks }
    }

    /// A new session: relations are described again, and the transaction begins again.
    pub(super) fn clear(&mut self) {
        self.outbox.clear();
        self.begin = None;
        self.pending = None;
    }

    /// Whether the window has no room for what was read last.
    pub(super) fn is_held(&self) -> bool {
        self.pending.is_some()
    }

    /// Tries again what the window had no room for.
    pub(super) fn retry(&mut self, engine: &mut Engine<Message>) -> Result<(), Halt> {
        match self.pending.take() {
            Some(message) => self.enter(engine, message),
            None => Ok(()),
        }
    }

    /// Takes one message of the stream.
    pub(super) fn take(
        &mut self,
        engine: &mut Engine<Message>,
        metrics: &Metrics,
        incoming: Incoming<'_>,
        clock: &Clock,
    ) -> Result<(), Halt> {
        match incoming {
            Incoming::Keepalive(wal_end) => engine.keepalive(wal_end),
            Incoming::Nothing => {}
            Incoming::TooLong(lsn, beginning) => {
                return self.too_long(engine, metrics, lsn, beginning);
            }
            Incoming::Message(lsn, message) => {
                return self.message(engine, metrics, lsn, message, clock);
            }
        }
        Ok(())
    }

    fn message(
        &mut self,
        engine: &mut Engine<Message>,
        metrics: &Metrics,
        lsn: Lsn,
        message: pgoutput::Message<'_>,
        clock: &Clock,
    ) -> Result<(), Halt> {
        let impossible = |error: StreamError| Halt::Source(SourceError::Stream { lsn, error });
        match message {
            pgoutput::Message::Begin(begin) => {
                let Begin { commit_lsn, xid, commit_time } = begin;
                self.begin = Some(begin);
                engine.begin(TxId { commit_lsn, xid, commit_time }).map_err(impossible)?;
            }
            pgoutput::Message::Commit(commit) => {
                self.begin = None;
                engine.commit(commit.commit_lsn, commit.end_lsn).map_err(impossible)?;
            }
            pgoutput::Message::Relation(relation) => {
                self.describe(&relation).map_err(|halt| self.unreadable(halt))?;
            }
            pgoutput::Message::Insert(insert) => {
                if engine.change(lsn).map_err(impossible)? == Change::Known {
                    metrics.skipped.known.inc();
                    return Ok(());
                }
                let row = self.outbox.row(&insert, &self.context(lsn, clock)?);
                let row = row.map_err(|error| bad_row(&error, lsn))?;
                return self.row(engine, metrics, row, lsn);
            }
            pgoutput::Message::Logical(logical) if logical.transactional => {
                if engine.change(lsn).map_err(impossible)? == Change::Known {
                    metrics.skipped.known.inc();
                    return Ok(());
                }
                let context = self.context(lsn, clock)?;
                let row = self.outbox.logical(&logical, &context);
                return self.row(engine, metrics, row, lsn);
            }
            pgoutput::Message::Logical(_) => metrics.skipped.non_transactional.inc(),
            pgoutput::Message::Update(_)
            | pgoutput::Message::Delete(_)
            | pgoutput::Message::Truncate(_) => metrics.skipped.operation.inc(),
            pgoutput::Message::Origin(_) | pgoutput::Message::Type(_) => {}
        }
        Ok(())
    }

    /// Takes in what a table looks like.
    pub(super) fn describe(&mut self, relation: &pgoutput::Relation<'_>) -> Result<(), Halt> {
        let taken = self.outbox.relation(relation);
        taken.map_err(|error| Halt::Stop(Stop::for_good(error, LAYOUT_REMEDY)))
    }

    /// A table that did not fit for a while: what was written then can't be read from the slot.
    fn unreadable(&self, halt: Halt) -> Halt {
        let Halt::Stop(Stop::ForGood { what, remedy }) = halt else { return halt };
        let slot = one_line(&literal(&self.slot));
        Halt::Stop(Stop::for_good(
            what,
            format_args!(
                "{remedy}. If it fits again, and this comes all the same: the log has rows of the time when it \
                 did not; SELECT pg_drop_replication_slot({slot}), then 'walpost run --recover' publishes them \
                 out of the table (docs/operations.md, 'A table that does not fit')"
            ),
        ))
    }

    fn context(&self, lsn: Lsn, clock: &Clock) -> Result<Context, Halt> {
        let error = StreamError::Outside("change", lsn);
        let begin = self.begin.ok_or(Halt::Source(SourceError::Stream { lsn, error }))?;
        Ok(Context {
            commit_lsn: begin.commit_lsn,
            xid: begin.xid,
            commit_time: begin.commit_time,
            now: clock.wall,
        })
    }

    /// Where a change stands in the log, for an operator.
    fn place(&self, lsn: Lsn) -> String {
        match self.begin {
            Some(begin) => format!("(at LSN {lsn}, committed at LSN {})", begin.commit_lsn),
            None => format!("(at LSN {lsn})"),
        }
    }

    fn row(
        &mut self,
        engine: &mut Engine<Message>,
        metrics: &Metrics,
        row: Row,
        lsn: Lsn,
    ) -> Result<(), Halt> {
        match row {
            Row::Message(message, dropped) => {
                metrics.headers_dropped.inc_by(dropped.0 as u64);
                self.enter(engine, message)
            }
            Row::Skipped(reason) => {
                match reason {
                    SkipReason::OtherTable => metrics.skipped.other_table.inc(),
                    SkipReason::Status => metrics.skipped.status.inc(),
                    SkipReason::OtherPrefix => metrics.skipped.other_prefix.inc(),
                    SkipReason::NonTransactional => metrics.skipped.non_transactional.inc(),
                    SkipReason::OtherShard => metrics.skipped.other_shard.inc(),
                }
                Ok(())
            }
            Row::Unfit(unfit) => {
                let message = self.unfit(&unfit, &self.place(lsn));
                self.enter(engine, message)
            }
        }
    }

    /// A row out of the table: the message that it becomes, if it is one.
    pub(super) fn recovered(
        &mut self,
        metrics: &Metrics,
        relation: u32,
        columns: u16,
        row: &WaitingRow,
        clock: &Clock,
    ) -> Result<Option<Message>, Halt> {
        let tuple = Tuple::from_checked(columns, &row.values);
        let mapped = if row.too_long {
            self.outbox.truncated(relation, &tuple.values().collect::<Vec<_>>())
        } else {
            let commit_time = row.made_at.unwrap_or(clock.wall);
            let nowhere = Lsn::INVALID;
            let context = Context { commit_lsn: nowhere, xid: 0, commit_time, now: clock.wall };
            self.outbox.row(&pgoutput::Insert { relation, new: tuple }, &context)
        };
        match mapped.map_err(|error| bad_row(&error, Lsn::INVALID))? {
            Row::Message(message, dropped) => {
                metrics.headers_dropped.inc_by(dropped.0 as u64);
                Ok(Some(message))
            }
            Row::Skipped(_) => {
                metrics.skipped.status.inc();
                Ok(None)
            }
            Row::Unfit(unfit) => Ok(Some(self.unfit(&unfit, "(a row that waits in the table)"))),
        }
    }

    /// A row that can't be a message goes to the dead letters, with what there is of it.
    fn unfit(&mut self, unfit: &Unfit, place: &str) -> Message {
        let remedy = remedy(&unfit.reason);
        warn!(
            "{unfit} {place}; {remedy}it is kept as a dead letter (walpost undelivered list; docs/operations.md, \
             'A row that cannot be a message')"
        );
        let id = unfit.id.as_deref().unwrap_or_default();
        let message = self.outbox.salvaged().unwrap_or_else(|| Message::nothing_but(id, None));
        message.as_unfit(unfit.to_string())
    }

    fn enter(&mut self, engine: &mut Engine<Message>, message: Message) -> Result<(), Halt> {
        if !engine.fits(message.size()) {
            self.pending = Some(message);
            return Ok(());
        }
        engine.accept(self.outgoing(message)).map_err(|error| {
            let lsn = self.begin.map_or(Lsn::INVALID, |begin| begin.commit_lsn);
            Halt::Source(SourceError::Stream { lsn, error })
        })
    }

    /// The message, ready for the window.
    pub(super) fn outgoing(&self, message: Message) -> Outgoing<Message> {
        Outgoing {
            key_hash: message.key_hash(),
            size: message.size(),
            marks: self.marks && message.table().is_some(),
            unfit: message.unfit().is_some(),
            payload: message,
        }
    }

    fn too_long(
        &mut self,
        engine: &mut Engine<Message>,
        metrics: &Metrics,
        lsn: Lsn,
        beginning: &[u8],
    ) -> Result<(), Halt> {
        let impossible = |error: StreamError| Halt::Source(SourceError::Stream { lsn, error });
        match pgoutput::decode_truncated(beginning) {
            Some(Truncated::Insert { relation, values }) => {
                if engine.change(lsn).map_err(impossible)? == Change::Known {
                    metrics.skipped.known.inc();
                    return Ok(());
                }
                let row = self.outbox.truncated(relation, &values);
                return self.row(engine, metrics, row.map_err(|error| bad_row(&error, lsn))?, lsn);
            }
            // None of ours, whatever their size.
            Some(Truncated::Operation) => metrics.skipped.operation.inc(),
            Some(Truncated::Logical { transactional: false, .. }) => {
                metrics.skipped.non_transactional.inc();
            }
            Some(Truncated::Logical { transactional: true, content }) => {
                if engine.change(lsn).map_err(impossible)? == Change::Known {
                    metrics.skipped.known.inc();
                    return Ok(());
                }
                let row = match content {
                    Some((prefix, beginning)) => self.outbox.truncated_logical(prefix, beginning),
                    // So long a prefix is not ours.
                    None => Row::Skipped(SkipReason::OtherPrefix),
                };
                return self.row(engine, metrics, row, lsn);
            }
            None => {
                let tag = beginning.first().copied().unwrap_or_default().escape_ascii();
                let what = format!("a message '{tag}' of impossible length at {lsn}");
                return Err(Halt::Source(SourceError::Unexpected(what)));
            }
        }
        Ok(())
    }
}

const LAYOUT_REMEDY: &str = "correct outbox.layout, outbox.tables or outbox.columns, the table, or the publication's column list; nothing past it is confirmed";

fn bad_row(error: &RowError, lsn: Lsn) -> Halt {
    Halt::Source(SourceError::Row { lsn, error: error.to_string() })
}

/// Where a setting mends it.
fn remedy(reason: &UnfitReason) -> &'static str {
    match reason {
        UnfitReason::TooLarge { .. } => {
            "raise broker.max_frame_size here and the limit of the broker; "
        }
        UnfitReason::TooLong => {
            "raise broker.max_frame_size here (the broker's own limit must hold the message only); "
        }
        UnfitReason::NoDestination => "give outbox.destination a template that always names one; ",
        _ => "",
    }
}
