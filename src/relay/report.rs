//! What the pump tells the metrics and the status, some times a second.

use std::time::Duration;

use tracing::{info, warn};

use super::progress::Progress;
use super::pump::Pump;
use crate::engine::Troubled;
use crate::lsn::Lsn;
use crate::pgoutput::PgTime;
use crate::telemetry::clock;
use crate::telemetry::status::{self, Settled};

/// How often.
pub(super) const EACH: Duration = Duration::from_millis(200);
/// An answer of the server's that is older says nothing of now.
const FRESH: Duration = Duration::from_secs(5);

impl Pump {
    /// Shows where the relay stands.
    pub(super) fn report(&mut self) {
        self.telemetry.beat.touch();
        self.count_sent();
        let in_flight = self.engine.in_flight();
        self.look_for_blocked_lanes();
        self.tell_keeper();
        let unreceipted = (0..self.lanes.len()).map(|lane| self.engine.in_flight_on(lane));
        let lanes: Vec<_> = self.blocked.iter().copied().zip(unreceipted).collect();
        let server = self.session.as_ref().map(|session| session.server_lsn());
        let reported = self.session.as_ref().map_or(Lsn::INVALID, |session| session.reported());
        let idle = self.engine.is_idle() && !self.intake.is_held();
        let watermark = self.engine.watermark();
        let oldest = self.engine.oldest_commit_time().map(PgTime::since_unix);
        let confirmed = reported.max(self.started_at);
        let (connected, now) = (self.session.is_some(), clock::unix_now());
        let recovery = self.recovery_status();
        let now_here = self.clock.now;
        let refused = self.engine.troubled().take(status::REFUSED);
        let refused: Vec<_> = refused.map(|of| refused_status(of, now_here)).collect();
        let undelivered = status::Undelivered {
            parked: self.engine.troubled().filter(|of| of.rows.is_some()).count(),
            retrying: self.undelivered.0,
            dead: self.undelivered.1,
            full: self.engine.is_parking_full(),
            last_error: self.parking_problem(),
        };
        let (owed, unmarked) = (self.engine.owed(), self.marks_problem());
        self.telemetry.update(|status, lag| {
            status.in_flight.messages = in_flight.messages;
            status.in_flight.bytes = in_flight.bytes;
            status.recovery = recovery;
            status.broker.refused = refused;
            status.undelivered = undelivered;
            status.marking = status::Marking { owed, last_error: unmarked };
            for (lane, (blocked, unreceipted)) in status.broker.lanes.iter_mut().zip(lanes) {
                lane.blocked = blocked && lane.connected;
                lane.in_flight = unreceipted;
            }
            if let Some(server) = server {
                status.source.server_lsn = status.source.server_lsn.max(Some(server));
            }
            // What a session confirmed stays known when it is gone.
            if connected && confirmed.is_valid() {
                status.source.confirmed_lsn = Some(confirmed);
            }
            match (connected, oldest) {
                (false, _) => lag.disconnected(),
                (true, Some(oldest)) => lag.oldest(oldest),
                // All that was read is done; but has the server looked through all that it has, and
                // does it still answer?
                (true, None) => match status.source.settled {
                    Some(Settled { lsn, at }) if idle && lsn <= watermark && now < at + FRESH => {
                        lag.caught_up(at);
                    }
                    _ => lag.behind(),
                },
            }
        });
    }

    /// The keeper learns where the relay stands.
    pub(super) fn tell_keeper(&mut self) {
        let progress = Progress {
            session: self.holding.filter(|_| self.feeding.is_none()),
            watermark: self.engine.watermark(),
            receipts: self.telemetry.metrics.receipts.get(),
            large: self.engine.large_transaction(),
        };
        self.told_receipts = progress.receipts;
        self.progress.send_if_modified(|known| {
            let news = *known != progress;
            *known = progress;
            news
        });
    }

    /// Says when the broker begins to hold a lane, and when it lets go.
    fn look_for_blocked_lanes(&mut self) {
        for lane in 0..self.lanes.len() {
            let blocked = self.engine.blocked(lane);
            if blocked == self.blocked[lane] {
                continue;
            }
            self.blocked[lane] = blocked;
            let unreceipted = self.engine.in_flight_on(lane);
            if blocked {
                warn!(
                    lane,
                    unreceipted, "the broker is connected but takes nothing: memory or disk alarm?"
                );
            } else if self.lanes[lane].connection().is_some() {
                info!(lane, unreceipted, "the broker no longer holds the lane");
            }
        }
    }

    /// What is not done at the end.
    pub(super) fn say_undone(&self) {
        let unmarked = self.engine.owed();
        let unreceipted = self.engine.in_flight().messages - unmarked;
        if unreceipted > 0 {
            warn!(unreceipted, "stopping with messages without a receipt: they will be sent again");
        }
        if unmarked > 0 {
            warn!(
                unmarked,
                "stopping with published rows that are not marked: they will be sent again"
            );
        }
    }

    /// The engine counts first sendings and repeats; the counters follow.
    pub(super) fn count_sent(&self) {
        let metrics = &self.telemetry.metrics;
        let (sent, resent) = (self.engine.sent(), self.engine.resent());
        metrics.sent.inc_by(sent.saturating_sub(metrics.sent.get()));
        metrics.resent.inc_by(resent.saturating_sub(metrics.resent.get()));
    }
}

fn refused_status(of: Troubled<'_>, now: Duration) -> status::Refused {
    status::Refused {
        destination: of.destination.to_owned(),
        attempts: of.attempts,
        waiting: of.waiting,
        kept: of.rows,
        condemned: of.condemned,
        next_in_seconds: (of.next > now).then(|| (of.next - now).as_secs()),
        last_error: of.words.to_owned(),
    }
}
