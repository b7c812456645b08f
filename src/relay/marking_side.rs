//! The pump's half towards the marker: what is receipted goes to it, what is marked comes back.

use std::time::Duration;

use tracing::warn;

use super::marking::{Batch, Outcome};
use super::pump::Pump;
use crate::engine::Owed;
use crate::store::marking::MarkedRow;

/// Rows that are owed their marks for longer are worth a line.
const STUCK: Duration = Duration::from_secs(5);
const LOCKED: &str = "another session has locked them, or their commits wait for a synchronous standby; nothing past \
    them is confirmed (SELECT pid, wait_event, xact_start, query FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND \
    application_name <> 'walpost' ORDER BY xact_start; and pg_prepared_xacts)";

impl Pump {
    /// When the next batch is due; none: there is none, or the slot is not ours for certain.
    pub(super) fn marks_due(&self) -> Option<Duration> {
        if self.session.is_none() || self.unsure_since.is_some() {
            return None;
        }
        self.engine.marks_deadline()
    }

    /// Hands the next batch to the marker, if it is due.
    pub(super) fn poll_marks(&mut self) {
        let now = self.clock.now;
        let due = self.marks_due().is_some_and(|at| at <= now);
        let (true, Some(holding), Some(marker)) = (due, self.holding, &self.marker) else { return };
        // One batch at a time: there is room.
        let Ok(place) = marker.try_reserve() else { return };
        let owed = self.engine.next_marks(now);
        let mut rows = Vec::with_capacity(owed.len());
        for Owed { receipt, transaction } in owed {
            let message = self.engine.message(receipt);
            let Some((table, message)) = message.and_then(|m| Some((m.table()?, m))) else {
                // Only what has a table is marked: this does not happen.
                self.engine.not_marked(receipt, now);
                continue;
            };
            let xid = transaction.map(|transaction| transaction.xid);
            rows.push((receipt, table, MarkedRow { id: message.id().to_owned(), xid }));
        }
        place.send(Batch { holding, rows });
    }

    /// The marker has done what it could.
    pub(super) fn marks_done(&mut self, outcome: Outcome) {
        for (receipt, done) in &outcome.rows {
            if *done {
                self.engine.marked(*receipt);
            } else {
                self.engine.not_marked(*receipt, self.clock.now);
            }
        }
        if outcome.rows.iter().any(|(_, done)| !done) {
            self.marks_refused = outcome.refused;
        }
    }

    /// What holds up rows that are published, once it has for a while.
    pub(super) fn marks_problem(&mut self) -> Option<String> {
        let stuck = self.engine.owed_longer_than(STUCK, self.clock.now);
        if stuck == 0 {
            return None;
        }
        let why = match &self.marks_refused {
            Some(refused) => refused.clone(),
            None => LOCKED.to_owned(),
        };
        let what = format!("published rows can't be marked ({stuck}): {why}");
        if let Some(more) = self.throttle.allow("marking", self.clock.now) {
            warn!("{what}{more}");
        }
        Some(what)
    }
}
