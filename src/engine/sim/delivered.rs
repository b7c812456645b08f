//! The judge's eye on what is known of the past: the certified snapshot, the recovery, large transactions.

use std::rc::Rc;
use std::time::Duration;

use crate::engine::{ChangeId, TxId};
use crate::lsn::Lsn;
use crate::pgoutput::PgTime;

use super::Payload;
use super::judge::Judge;
use super::message::Message;
use super::postgres::{Postgres, Transaction};
use super::relay_row::{Snapshot, State};
use super::rule::{Rule, Verdict, Violation};
use super::table::Standing;

/// The changes of a transaction that are sent, as the stream's reader numbers them.
fn numbered(tx: &Transaction) -> Vec<(usize, ChangeId)> {
    let mut numbered: Vec<(usize, ChangeId)> = Vec::new();
    for (index, change) in tx.changes.iter().enumerate().filter(|(_, change)| !change.hidden) {
        let place = match numbered.last() {
            Some((_, before)) if before.lsn == change.lsn => before.place + 1,
            _ => 0,
        };
        numbered.push((index, ChangeId { lsn: change.lsn, place }));
    }
    numbered
}

impl Judge {
    fn is_receipted(&self, row: usize) -> bool {
        self.ever_receipted.get(row).copied().unwrap_or(false)
    }

    /// Whether a row has its receipt and its mark, or was deleted before that.
    fn is_delivered(&self, pg: &Postgres, row: usize) -> bool {
        match pg.standing(row) {
            Standing::DeletedByUser => true,
            _ if pg.is_kept(row) => true,
            Standing::Waiting if self.marking => false,
            _ => self.is_receipted(row),
        }
    }

    /// The row has changed, or the timeline with it: all that its certified snapshot sees is delivered.
    pub(super) fn row_written(&mut self, pg: &Postgres) -> Verdict {
        let Some(row) = pg.relay.as_ref().filter(|_| self.strict) else { return Ok(()) };
        let state = (pg.forks, Rc::clone(&row.certified));
        if self.seen_certified.as_ref() == Some(&state) {
            return Ok(());
        }
        self.seen_certified = Some(state);
        for tx in pg.wal.iter().filter(|tx| row.certified.sees(tx.xid)) {
            let missing = tx
                .changes
                .iter()
                .filter_map(|change| change.row)
                .find(|&row| !self.is_delivered(pg, row));
            self.hold(Rule::Certified, missing.is_none(), || {
                format!("row {missing:?} of {:?} is certified without a receipt or a mark", tx.id)
            })?;
        }
        Ok(())
    }

    /// Another machine: its transactions have the ids that others had.
    pub(super) fn failed_over(&mut self) {
        self.exported = None;
    }

    /// A slot was made: its row was there before it, and what it exports leaves no seam.
    pub(super) fn slot_made(&mut self, pg: &Postgres, exported: &Snapshot) -> Verdict {
        let creating = pg.relay.as_ref().is_some_and(|row| row.state == State::Creating);
        self.hold(Rule::Recovery, creating, || "a slot without a row".to_owned())?;
        self.exported = pg.slot.as_ref().map(|slot| (slot.uid, exported.clone()));
        let seam = pg.wal.iter().find(|tx| !exported.sees(tx.xid));
        self.hold(Rule::Recovery, seam.is_none(), || format!("{seam:?} is not exported"))
    }

    /// The upper snapshot of a recovery is stored: where the slot was made for it, it is what it exported.
    pub(super) fn upper_stored(&self, pg: &Postgres, creating: bool) -> Verdict {
        let slot = pg.slot.as_ref().map(|slot| slot.uid);
        let upper = pg.relay.as_ref().and_then(|row| row.upper.as_deref());
        let exported = self.exported.as_ref();
        let same = exported.is_some_and(|(uid, is)| Some(*uid) == slot && Some(is) == upper);
        self.hold(Rule::Recovery, same || !creating, || {
            format!("{slot:?} with {upper:?} is not what was exported: {exported:?}")
        })
    }

    /// A row out of the table becomes a message; gives its index.
    pub(super) fn recovered(
        &mut self,
        pg: &Postgres,
        serial: usize,
        lane: usize,
        created: PgTime,
    ) -> Result<usize, Violation> {
        let its =
            |tx: &&Rc<Transaction>| tx.changes.iter().any(|change| change.row == Some(serial));
        let xid = pg.wal.iter().find(its).map(|tx| tx.xid);
        let due = pg.relay.as_ref().zip(xid).is_some_and(|(row, xid)| {
            row.state == State::Recovering
                && !row.certified.sees(xid)
                && row.upper.as_ref().is_some_and(|upper| upper.sees(xid))
                && row.cursor.is_none_or(|cursor| cursor < pg.order(serial))
        });
        self.hold(Rule::Recovery, due, || format!("row {serial} is not to be recovered"))?;
        let row = &pg.rows[serial];
        let message = self.messages.len();
        self.messages.push(Message {
            serial,
            destination: row.destination,
            uid: None,
            commit_lsn: Lsn::INVALID,
            size: row.size,
            commit_time: created,
            number: None,
            last_sent: Duration::ZERO,
            receipted: false,
            marks: self.marking,
            streamed: false,
            kept: None,
            fence: None,
            unfit: row.unfit,
            settled: false,
        });
        self.hold_place(message, lane);
        self.recovered_beside.resize(pg.rows.len(), None);
        let upper = pg.relay.as_ref().and_then(|row| row.upper.as_deref());
        let exported = self.exported.as_ref().filter(|(_, snapshot)| upper == Some(snapshot));
        self.recovered_beside[serial] = exported.map(|(slot, _)| *slot);
        Ok(message)
    }

    /// Whether a message is said to come by the stream.
    pub(super) fn origin(&self, streamed: bool, payload: Payload) -> Verdict {
        let right = self.messages[payload.message].streamed == streamed;
        self.hold(Rule::Recovery, right, || format!("{payload:?} by the stream: {streamed}"))
    }

    /// A row comes by the stream: then it was not recovered when this slot was made.
    pub(super) fn no_seam(&self, pg: &Postgres, serial: usize, tx: &Transaction) -> Verdict {
        let slot = pg.slot.as_ref().map(|slot| slot.uid);
        // What is recovered beside a slot that stays comes by its stream, too.
        let before = self.recovered_beside.get(serial).copied().flatten();
        let seam = before.is_some() && before == slot;
        self.hold(Rule::Recovery, !seam, || {
            format!("row {serial} of {:?} was recovered, and comes by the stream", tx.id)
        })
    }

    /// How far a large transaction is done, by the engine's word.
    pub(super) fn large(&self, pg: &Postgres, id: TxId, up_to: ChangeId) -> Verdict {
        let Some(tx) = pg.transaction(id) else { return Ok(()) };
        for (index, _) in numbered(tx).into_iter().filter(|(_, change)| *change <= up_to) {
            let done =
                tx.changes[index].row.is_none_or(|row| self.is_receipted(row) || pg.is_kept(row));
            let marked =
                tx.changes[index].row.map(|row| self.holds_mark(pg, row, || "skipped".into()));
            marked.unwrap_or(Ok(()))?;
            self.hold(Rule::Identity, done, || {
                format!("change {index} of {id:?} has no receipt, and is called done")
            })?;
        }
        Ok(())
    }

    /// A new walpost was told how far a transaction was delivered.
    pub(super) fn resumed(&mut self, pg: &Postgres, id: TxId, up_to: ChangeId) {
        let Some(tx) = pg.transaction(id) else { return };
        (self.fences, self.resumed) = (pg.end(), pg.end());
        let last = numbered(tx).into_iter().rfind(|(_, change)| *change <= up_to);
        if let Some((index, _)) = last {
            self.memory.resume(tx.uid, index);
        }
    }
}
