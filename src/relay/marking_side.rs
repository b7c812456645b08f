//! The pump's half towards the marker: what is receipted goes to it, what is marked comes back.

use std::time::Duration;

use super::marking::{Batch, Outcome};
use super::pump::Pump;
use crate::engine::Owed;
use crate::store::marking::MarkedRow;

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
    pub(super) fn marks_done(&mut self, outcomes: &[Outcome]) {
        for (receipt, done) in outcomes {
            if *done {
                self.engine.marked(*receipt);
            } else {
                self.engine.not_marked(*receipt, self.clock.now);
            }
        }
    }
}
