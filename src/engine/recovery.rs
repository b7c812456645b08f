//! Rows that the stream does not bring, and a large transaction that goes on after a restart.

use super::types::{Addressed, ChangeId, Outgoing, StreamError, TxId};
use super::window::Origin;
use super::{Engine, ledger};
use crate::lsn::Lsn;
use crate::pgtime::PgTime;

impl<M: Addressed> Engine<M> {
    /// A row out of the table becomes a message. It is sent like any other; no position of the stream
    /// waits for it, so that whoever reads the table keeps account of it: nothing of the stream may be
    /// read until [`is_drained`](Self::is_drained).
    ///
    /// # Errors
    /// [`StreamError`]: the slot is not held, or the message does not fit into the window.
    pub fn recover(
        &mut self,
        commit_time: PgTime,
        outgoing: Outgoing<M>,
    ) -> Result<(), StreamError> {
        self.session.ok_or(StreamError::NoSession)?;
        if !self.fits(outgoing.size) {
            return Err(StreamError::WindowFull);
        }
        let nobody = TxId { commit_lsn: Lsn::INVALID, xid: 0, commit_time: PgTime(0) };
        let key = *self.recovered.get_or_insert_with(|| self.ledger.open_aside(nobody));
        if fault!(self, RecoveredHoldsCandidates) && self.ledger.first() != Some(key) {
            self.ledger.append(key);
        }
        if let Some(record) = self.ledger.get_mut(key) {
            record.unreceipted += 1;
        }
        let home = self.lane_of(outgoing.key_hash);
        let of = Origin { tx: key, commit_time, change: None, after: None, kept: None, home };
        let key = self.window.insert(of, outgoing);
        self.enqueue(key);
        Ok(())
    }

    /// How far a transaction that is larger than the window is done: its identity, and the last of its
    /// changes up to which every message has its receipt and its mark. None: there is no such transaction, or
    /// nothing of it is done. What [`resume`](Self::resume) is to be told after a restart.
    #[must_use]
    pub fn large_transaction(&self) -> Option<(TxId, ChangeId)> {
        let key = self.ledger.first_outstanding()?;
        let record = self.ledger.get(key)?;
        if record.accepted <= self.settings.messages || record.unordered {
            return None;
        }
        let all = record.unreceipted == 0 || fault!(self, ProgressIsWhatWasRead);
        let up_to = if all { record.last } else { self.first_unreceipted_after(key)? };
        Some((record.id, up_to))
    }

    /// The change before the oldest message of the transaction that is still in the window.
    fn first_unreceipted_after(&self, tx: ledger::Key) -> Option<ChangeId> {
        let of_it = self.window.iter().filter(|held| held.tx == tx);
        let counted =
            of_it.filter(|held| held.receipted.is_none() || !fault!(self, ProgressIgnoresOwed));
        // None is the smallest: the very first message of it.
        counted.map(|held| held.after).min()?
    }

    /// Before this process started, the messages of a transaction were delivered up to a change, or kept in
    /// the table of what was refused, before `end_of_wal`: nobody knows which, so that all of it is fenced
    /// (see `ledger::fences`). To be called before its first session reads anything.
    pub fn resume(&mut self, id: TxId, up_to: ChangeId, end_of_wal: Lsn) {
        if !fault!(self, ResumeIsUnfenced) {
            self.ledger.hold_from_now_on(end_of_wal);
        }
        if fault!(self, ResumeIsWhole) {
            self.ring.finished(id);
        } else if !fault!(self, ResumeIgnored) {
            self.ring.partly_finished(id, up_to);
        }
    }
}
