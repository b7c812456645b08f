//! The pump's half towards the broker: connecting, sending, receipts, refusals.

use std::task::{Context, Poll};
use std::time::Duration;

use tracing::{debug, error, info, warn};

use super::clock::rounded;
use super::pump::Pump;
use super::stop::Stop;
use crate::broker::lane::Attempt;
use crate::broker::{LaneError, LaneEvent};
use crate::engine::{Action, CloseReason, Halt, LaneDown, Notice, Receipt};
use crate::stomp::ErrorFrame;

/// After so many receipts the keeper is told, for the sake of a large transaction.
const TELL_EACH: u64 = 2_000;

impl Pump {
    /// Gives each lane its turn. `true`: something moved, so the window may have room.
    ///
    /// Clocks are looked at after what the sockets hold (a process that was stopped for a while
    /// must not blame the broker) and before writing (what is due then goes out at once).
    pub(super) fn poll_lanes(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        for lane in 0..self.lanes.len() {
            if self.engine.needs_lane(lane, self.clock.now) {
                moved |= self.poll_connect(lane, cx);
            }
            moved |= self.poll_receipts(lane, cx);
        }
        self.tick_lanes();
        for lane in 0..self.lanes.len() {
            moved |= self.poll_send(lane, cx);
        }
        moved
    }

    fn poll_connect(&mut self, lane: usize, cx: &mut Context<'_>) -> bool {
        let Poll::Ready(attempt) = self.lanes[lane].poll_connect(cx) else { return false };
        match attempt {
            Attempt::Connected => self.lane_connected(lane),
            Attempt::Failed { error, next_in } => {
                self.engine.lane_down(lane, LaneDown::ConnectFailed, self.clock.now);
                let (key, address) = (error.address.to_string(), error.address.to_string());
                if let Some(more) = self.throttle.allow(&key, self.clock.now) {
                    warn!(lane, again_in = %rounded(next_in), "no connection to the broker at {error}{more}");
                    self.tell_connected = true;
                }
                self.lane_status(lane, Some(address), false, Some(error.kind.to_string()));
                if lane == self.engine.trial_lane() {
                    // Others hold the connections that the broker allows, perhaps: they tell.
                } else if !error.kind.needs_an_operator() {
                    self.logins.other();
                } else if self.logins.refused(self.clock.now) {
                    let stop = Stop::for_good(
                        format!("the broker at {error}"),
                        "then start walpost again",
                    );
                    self.drain(Some(stop), Duration::ZERO);
                }
            }
        }
        true
    }

    fn lane_connected(&mut self, lane: usize) {
        self.logins.accepted();
        self.engine.lane_up(lane, self.clock.now);
        self.telemetry.metrics.connects.broker.inc();
        let Some(connection) = self.lanes[lane].connection() else { return };
        if !connection.heartbeats_expected() {
            self.engine.no_heartbeats(lane);
        }
        let (host, kind) = (connection.address.to_string(), connection.kind);
        let tls = connection.cipher();
        let server = connection.server.clone();
        if std::mem::take(&mut self.tell_connected) {
            info!(
                lane, %host, %kind, server = server.as_deref(), tls = tls.as_deref(),
                "connected to the broker"
            );
        }
        self.telemetry.update(|status, _| {
            status.broker.kind = Some(kind.name().to_owned());
            status.broker.version = server;
        });
        self.lane_status(lane, Some(host), true, None);
    }

    fn poll_receipts(&mut self, lane: usize, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while let Some(connection) = self.lanes[lane].connection() {
            let Poll::Ready(event) = connection.poll_event(cx, self.clock.now) else { break };
            if !moved {
                // Whoever scrapes never sees more receipts than messages.
                self.count_sent();
                moved = true;
            }
            match event {
                Ok(LaneEvent::Receipt(receipt)) => self.receipted(lane, receipt),
                Ok(LaneEvent::ProbeAnswered) => self.engine.probe_answered(lane, self.clock.now),
                Ok(LaneEvent::Goodbye) => {}
                Ok(LaneEvent::Error(error)) => self.lane_refused(lane, &error),
                Err(error) => self.lane_lost(lane, &error),
            }
        }
        if moved && self.telemetry.metrics.receipts.get() >= self.told_receipts + TELL_EACH {
            self.tell_keeper();
        }
        moved
    }

    fn receipted(&mut self, lane: usize, receipt: Receipt) {
        let of = self.engine.message(receipt).cloned().zip(self.engine.transaction(receipt));
        let Some(done) = self.engine.receipt(lane, receipt, self.clock.now) else { return };
        // A row out of the table has no position.
        if let Some((message, tx)) = of.filter(|(_, tx)| tx.commit_lsn.is_valid()) {
            self.published.push(tx.commit_lsn, message.id());
        }
        let since_send = self.clock.now.saturating_sub(done.last_sent);
        self.telemetry.metrics.receipted(self.clock.since(done.commit_time), since_send);
        self.lanes[lane].progressed();
    }

    fn poll_send(&mut self, lane: usize, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        if self.unsure_since.is_some() {
            return false;
        }
        while let Some(connection) = self.lanes[lane].connection() {
            let mut unsendable = None;
            while connection.has_room()
                && let Some((receipt, message)) = self.engine.next_send(lane, self.clock.now)
            {
                moved = true;
                if let Err(error) = connection.send(receipt, message) {
                    unsendable = Some(error);
                    break;
                }
            }
            if let Some(error) = unsendable {
                self.drain(Some(Stop::for_good(error, UNSENDABLE_REMEDY)), Duration::ZERO);
                break;
            }
            match connection.poll_flush(cx, self.clock.now) {
                Poll::Ready(Ok(())) if self.engine.has_unsent(lane) => {}
                Poll::Ready(Ok(())) | Poll::Pending => break,
                Poll::Ready(Err(error)) => {
                    self.lane_lost(lane, &error);
                    return true;
                }
            }
        }
        moved
    }

    /// The broker sent an ERROR: whatever it closes or keeps open, this connection is done.
    fn lane_refused(&mut self, lane: usize, error: &ErrorFrame) {
        self.telemetry.metrics.rejections.error.inc();
        let receipt = error.receipt_id.as_deref().and_then(|id| id.parse().ok()).map(Receipt);
        let words = error.to_string();
        match receipt {
            Some(receipt) => debug!(lane, "the broker refuses {}", self.name_of(receipt)),
            None => debug!(lane, "the broker refuses something and does not say which message"),
        }
        self.engine.lane_down(lane, LaneDown::Refused { receipt, words: &words }, self.clock.now);
        self.lane_gone(lane, &format!("the broker refuses: {words}"));
    }

    fn lane_lost(&mut self, lane: usize, error: &LaneError) {
        let closed = matches!(error, LaneError::Closed | LaneError::Io(_));
        if closed && self.engine.has_unreceipted(lane) {
            self.telemetry.metrics.rejections.closed.inc();
        }
        self.engine.lane_down(lane, LaneDown::Lost, self.clock.now);
        self.lane_gone(lane, &error.to_string());
    }

    fn lane_gone(&mut self, lane: usize, why: &str) {
        let host = self.lanes[lane].connection().map(|connection| connection.address.to_string());
        if lane == self.engine.trial_lane() {
            // It is made to be refused on: when it is needed again is the engine's to say.
            self.lanes[lane].progressed();
            self.lanes[lane].reconnect();
            return;
        }
        let again_in = self.lanes[lane].reconnect();
        if let Some(more) = self.throttle.allow("lane", self.clock.now) {
            let unreceipted = self.engine.in_flight().messages - self.engine.owed();
            let again_in = rounded(again_in);
            warn!(lane, host, unreceipted, %again_in, "{why}{more}");
            self.tell_connected = true;
        }
        self.lane_status(lane, host, false, Some(why.to_owned()));
    }

    /// The process was stopped: how long the brokers were silent is unknown.
    pub(super) fn excuse_lanes(&mut self) {
        for lane in &mut self.lanes {
            if let Some(connection) = lane.connection() {
                connection.excuse(self.clock.now);
            }
        }
    }

    /// Time passed: heart-beats, probes, missing receipts.
    fn tick_lanes(&mut self) {
        for lane in 0..self.lanes.len() {
            let now = self.clock.now;
            if let Some(connection) = self.lanes[lane].connection()
                && connection.deadline().is_some_and(|at| at <= now)
                && let Err(error) = connection.tick(now)
            {
                self.lane_lost(lane, &error);
            }
        }
        if self.engine.deadline().is_some_and(|at| at <= self.clock.now) {
            self.engine.tick(self.clock.now);
        }
        while let Some(action) = self.engine.next_action() {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Probe { lane } => {
                let Some(connection) = self.lanes[lane].connection() else { return };
                if let Err(error) = connection.probe() {
                    self.lane_lost(lane, &error);
                }
            }
            Action::Close { lane, why } => {
                let why = match why {
                    CloseReason::Missing(receipt) => {
                        self.telemetry.metrics.rejections.missing.inc();
                        let name = self.name_of(receipt);
                        debug!(lane, "missing: {name}");
                        format!("no receipt for {name}")
                    }
                    CloseReason::Silent => "the broker answers nothing".to_owned(),
                    CloseReason::Held => {
                        "the broker holds what is tried; others have their turn".to_owned()
                    }
                };
                self.engine.lane_down(lane, LaneDown::Lost, self.clock.now);
                self.lane_gone(lane, &why);
            }
            Action::Halt(halt) => {
                let stop = Self::refusal_stop(&halt);
                self.drain(Some(stop), Duration::ZERO);
            }
            Action::Notice(notice) => self.tell(&notice),
        }
    }

    /// What becomes of destinations that are refused.
    fn tell(&mut self, notice: &Notice) {
        let now = self.clock.now;
        match notice {
            Notice::Suspected { destinations, words } => {
                if let Some(more) = self.throttle.allow("suspected", now) {
                    warn!(
                        destinations,
                        "the broker refuses something and does not say what; each destination is tried by \
                         itself: {words}{more}"
                    );
                }
            }
            Notice::Refused { destination, attempts, words } => {
                if let Some(more) = self.throttle.allow(destination, now) {
                    warn!(
                        destination,
                        attempts, "the broker refuses what goes to {destination}: {words}{more}"
                    );
                }
            }
            Notice::Parked { destination, attempts, words } => warn!(
                destination,
                attempts,
                "{destination} is parked: its messages are kept in walpost.undelivered and sent once the broker \
                 takes them: {words}"
            ),
            Notice::Condemned { destination, attempts, words } => error!(
                destination,
                attempts,
                "{destination} is given up: its messages are dead letters (walpost undelivered list); the newest is \
                 tried now and then: {words}"
            ),
            Notice::Full => error!(
                "retry.max_parked messages are kept: nothing more is read until some are delivered or discarded \
                 (walpost undelivered list)"
            ),
            Notice::Opened { destination } => info!("{destination} takes messages again"),
        }
    }

    fn name_of(&self, receipt: Receipt) -> String {
        match (self.engine.message(receipt), self.engine.transaction(receipt)) {
            (Some(message), Some(tx)) => format!(
                "message {} to {} (committed at LSN {})",
                message.id(),
                message.destination(),
                tx.commit_lsn
            ),
            _ => "a message".to_owned(),
        }
    }

    fn refusal_stop(halt: &Halt) -> Stop {
        let Halt { destination, times, words } = halt;
        let what = format!("the broker refused what goes to {destination} {times} times: {words}");
        Stop::for_good(what, REFUSAL_REMEDY)
    }

    fn lane_status(
        &self,
        lane: usize,
        host: Option<String>,
        connected: bool,
        error: Option<String>,
    ) {
        if lane == self.engine.trial_lane() {
            return;
        }
        self.telemetry.update(|status, _| {
            let lanes = &mut status.broker.lanes;
            if lanes.len() <= lane {
                lanes.resize_with(lane + 1, Default::default);
            }
            lanes[lane].connected = connected;
            lanes[lane].blocked = false;
            lanes[lane].host = host.or(lanes[lane].host.take());
            lanes[lane].last_error = error;
        });
    }
}

const UNSENDABLE_REMEDY: &str = "use a broker that speaks STOMP 1.2, or correct the row (docs/operations.md, 'A header that STOMP 1.0 cannot carry'); nothing past it is confirmed";
const REFUSAL_REMEDY: &str = "mend the destination (exchange, queue, permission) and start walpost again; nothing is lost (docs/operations.md, 'A refused message')";
