//! The pump's half towards PostgreSQL: sessions, reading, status updates.

use std::task::{Context, Poll};

use tracing::{debug, info};

use super::intake::Halt;
use super::link::Opened;
use super::progress::Holding;
use super::pump::Pump;
use super::stop::Stop;
use crate::source::SourceError;
use crate::telemetry::status::Phase;
use tokio::time::Instant;

/// How often in a row a session is doubted.
const DOUBTS: u32 = 3;

impl Pump {
    /// Opens a session or reads from it. `true`: something was read, lanes may have to send.
    pub(super) fn poll_source(&mut self, cx: &mut Context<'_>) -> Result<bool, Stop> {
        if self.session.is_none() {
            if self.draining.is_some() {
                return Ok(false);
            }
            return match self.link.poll_open(cx, self.clock.now)? {
                Poll::Ready(opened) => {
                    self.session_opened(opened);
                    Ok(true)
                }
                Poll::Pending => Ok(false),
            };
        }
        if !self.table_known {
            return Ok(false);
        }
        let read = if self.feeding.is_some() { self.poll_recovery(cx) } else { self.poll_read(cx) };
        match read {
            Ok(read) => Ok(read),
            Err(Halt::Stop(stop)) => {
                self.drain(Some(stop), self.shutdown_timeout);
                Ok(true)
            }
            Err(Halt::Source(error)) => self.session_ended(&error).map(|()| true),
        }
    }

    fn session_opened(&mut self, opened: Opened) {
        let Opened { session, oids, confirmed, epoch, last_receipted, recovery, turn } = opened;
        self.sessions += 1;
        self.holding =
            Some(Holding { epoch, walsender: session.process_id, session: self.sessions });
        self.unsure_since = None;
        self.table_known = false;
        self.doubts = 0;
        self.intake.outbox.know(oids);
        // What this process knows itself is newer.
        if let Some((last, end_of_wal)) = last_receipted.filter(|_| self.sessions == 1) {
            self.engine.resume(last.transaction(), last.change(), end_of_wal);
        }
        if let Some(turn) = turn {
            self.turned(&turn);
        }
        self.engine.session_started(confirmed);
        self.intake.clear();
        self.started_at = confirmed;
        let tls = session.cipher();
        info!(
            host = %session.address, %confirmed, tls = tls.as_deref(),
            "streaming from slot {}", self.slot
        );
        let host = session.address.to_string();
        self.telemetry.update(|status, _| {
            status.phase = Phase::Streaming;
            status.source.connected = true;
            status.source.host = Some(host);
            status.source.confirmed_lsn = Some(confirmed);
            status.source.server_lsn = None;
            status.source.last_error = None;
        });
        self.session = Some(session);
        if let Some(job) = recovery {
            self.recover(job);
        }
    }

    /// Leaves a server that shuts down, with the last position as its last word.
    pub(super) fn release(&mut self, cx: &mut Context<'_>) -> Result<(), Stop> {
        let watermark = self.engine.watermark();
        let Some(session) = self.session.as_mut() else {
            return self.link.give_up_opening(self.clock.now);
        };
        let said = session.report_now(cx, watermark, self.clock.now, self.clock.wall);
        self.link.reported(watermark);
        self.session_ended(&said.err().unwrap_or(SourceError::ShuttingDown))
    }

    fn session_ended(&mut self, error: &SourceError) -> Result<(), Stop> {
        self.session = None;
        self.holding = None;
        self.feeding = None;
        self.engine.session_lost();
        self.intake.clear();
        self.link.lost(error, self.clock.now)
    }

    /// Begins a new session.
    pub(super) fn reopen(&mut self, why: &'static str) -> Result<(), Stop> {
        if self.session.is_none() {
            return Ok(());
        }
        self.session_ended(&SourceError::Reopen(why))
    }

    /// Nothing more may be confirmed: the session goes without a last word.
    pub(super) fn halt(&mut self, stop: Stop) -> Result<(), Stop> {
        if self.session.is_some() {
            let _ = self.session_ended(&SourceError::Reopen("an operator must act"));
        }
        Err(stop)
    }

    /// The slot is held by `holder`, or nobody can tell. While the window is full nothing is read,
    /// and the end of the connection may stand behind megabytes: then writing is what meets it.
    pub(super) fn slot_seen(&mut self, holder: Option<i32>, asked: Instant) {
        let Some(session) = &mut self.session else { return };
        if holder.and_then(|pid| u32::try_from(pid).ok()) != Some(session.process_id) {
            // A few times: each puts off the update that asks for an answer.
            self.doubts = self.doubts.saturating_add(1);
            if self.doubts <= DOUBTS {
                session.doubt();
            }
            return;
        }
        self.doubts = 0;
        if self.unsure_since.is_some_and(|since| asked >= since) {
            self.unsure_since = None;
        }
    }

    /// Reads until the socket has no more, the window is full, or one buffer is done: then lanes
    /// get their turn.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<bool, Halt> {
        let mut read = false;
        self.intake.retry(&mut self.engine)?;
        if !self.is_reading() {
            return Ok(false);
        }
        let Some(session) = self.session.as_mut() else { return Ok(false) };
        for turn in 0.. {
            while let Some(incoming) = session.next_incoming().map_err(Halt::Source)? {
                self.intake.take(
                    &mut self.engine,
                    &self.telemetry.metrics,
                    incoming,
                    &self.clock,
                )?;
                read = true;
                let ends = self.draining.is_some() && !self.engine.in_transaction();
                if self.intake.is_held() || ends {
                    return Ok(read);
                }
            }
            if turn > 0 {
                break;
            }
            match session.poll_fill(cx, self.clock.now) {
                Poll::Pending => break,
                Poll::Ready(filled) => filled.map_err(Halt::Source)?,
            }
            read = true;
        }
        Ok(read)
    }

    /// Whether the pump takes more from the slot: not while the window is full, and while
    /// draining only to the end of a transaction that was begun.
    pub(super) fn is_reading(&self) -> bool {
        let held = self.intake.is_held() || self.feeding.is_some();
        match &self.draining {
            Some(drain) => {
                !held && self.clock.now < drain.read_until && self.engine.in_transaction()
            }
            None => !held,
        }
    }

    /// Sends the status update that is due. It has its own clock: nothing that the broker does
    /// delays it.
    pub(super) fn poll_feedback(&mut self, cx: &mut Context<'_>) -> Result<(), Stop> {
        let (reading, watermark) = (self.is_reading(), self.engine.watermark());
        let Some(session) = self.session.as_mut() else { return Ok(()) };
        let before = session.reported();
        let sent = session.poll_feedback(cx, watermark, reading, self.clock.now, self.clock.wall);
        let confirmed = session.reported();
        if confirmed != before {
            self.link.progressed();
            self.link.reported(confirmed);
            if let Some(more) = self.updates.allow("confirmed", self.clock.now) {
                debug!(%confirmed, "told PostgreSQL what is done{more}");
            }
        }
        match sent {
            Ok(()) => Ok(()),
            Err(error) => self.session_ended(&error),
        }
    }
}
