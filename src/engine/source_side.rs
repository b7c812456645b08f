//! The source's side of the engine: sessions, transactions, changes, keepalives.

use super::ledger;
use super::ring::Seen;
use super::types::{Addressed, Change, ChangeId, Outgoing, StreamError, TxId};
use super::window::Origin;
use super::{Engine, Session};
use crate::lsn::Lsn;
use crate::pgoutput::PgTime;

/// The transaction being read.
#[derive(Debug)]
pub(super) struct Open {
    id: TxId,
    commit_time: PgTime,
    /// Its record, once it has a message or where it is known from an earlier session.
    record: Option<ledger::Key>,
    seen: Seen,
    /// The change being read.
    at: Option<ChangeId>,
    unordered: bool,
    /// The change being read is new and not a message yet.
    announced: bool,
}

impl<M: Addressed> Engine<M> {
    /// The slot is ours: `confirmed` is its `confirmed_flush_lsn`, read after it became ours.
    /// Nothing of an earlier session's positions is kept (rule 2).
    pub fn session_started(&mut self, confirmed: Lsn) {
        self.session_lost();
        self.session = Some(Session { confirmed });
        self.ledger.begin_session();
        self.parking.look_now();
        self.ring.reindex();
        #[cfg(test)]
        self.faulty_session_start();
    }

    /// The session ended, for whatever reason. Its candidates die with it; its messages stay in
    /// the window. Lanes send nothing until the next session: another walpost may hold the slot.
    pub fn session_lost(&mut self) {
        self.session = None;
        self.open = None;
        #[cfg(test)]
        let done = self.ledger.done();
        for key in self.ledger.end_session() {
            if self.ledger.is_done(key) {
                self.retire(key);
            } else if let Some(record) = self.ledger.get(key) {
                self.stale.insert(record.id, key);
            }
        }
        #[cfg(test)]
        self.faulty_session_loss(done);
    }

    /// pgoutput Begin.
    ///
    /// # Errors
    /// [`StreamError`]: not in a session, or inside a transaction.
    pub fn begin(&mut self, id: TxId) -> Result<(), StreamError> {
        self.session.ok_or(StreamError::NoSession)?;
        if let Some(open) = &self.open {
            return Err(StreamError::NestedBegin(open.id.xid));
        }
        let commit_time = id.commit_time;
        #[cfg(test)]
        let id = self.faulty_identity(id);
        self.ring.caught_up(id.commit_lsn);
        let (record, seen) = match self.stale.remove(&id) {
            Some(key) => {
                self.ledger.append(key);
                let seen = self.seen_before(key);
                if let Some(record) = self.ledger.get_mut(key) {
                    record.unsure = false;
                }
                (Some(key), seen)
            }
            None => match self.ring.look_up(id) {
                Seen::UpTo(last) if !fault!(self, PartialIsWhole) => {
                    let key = self.ledger.open(id, last);
                    self.ledger.fence_as_the_highest(key);
                    (Some(key), Seen::UpTo(last))
                }
                Seen::UpTo(_) => (None, Seen::Whole),
                seen => (None, seen),
            },
        };
        #[cfg(test)]
        if fault!(self, ConfirmAtBegin) {
            self.ledger.force_done(id.commit_lsn);
        }
        self.open = Some(Open {
            id,
            commit_time,
            record,
            seen,
            at: None,
            unordered: false,
            announced: false,
        });
        Ok(())
    }

    /// What is known of a transaction whose messages are still in the window.
    fn seen_before(&self, key: ledger::Key) -> Seen {
        match self.ledger.get(key) {
            Some(record) if record.unsure => Seen::Never,
            Some(record) if record.complete => Seen::Whole,
            Some(record) if fault!(self, PartialIsWhole) && !record.complete => Seen::Whole,
            Some(record) if record.unordered => Seen::Never,
            Some(record) => Seen::UpTo(record.last),
            None => Seen::Never,
        }
    }

    /// An Insert or a transactional logical message at `lsn` (of its XLogData). Every one counts,
    /// before any filtering: the place among the changes at one LSN is part of a message's
    /// identity (rule 1).
    ///
    /// # Errors
    /// [`StreamError`]: not inside a transaction.
    pub fn change(&mut self, lsn: Lsn) -> Result<Change, StreamError> {
        let one_place = fault!(self, PlaceIgnored);
        let open = self.open.as_mut().ok_or(StreamError::Outside("change", lsn))?;
        let place = match open.at {
            Some(at) if at.lsn == lsn => at.place + u32::from(!one_place),
            _ => 0,
        };
        let id = ChangeId { lsn, place };
        // PostgreSQL sends a transaction's changes in the order of their LSNs. Should one come out
        // of order, "up to here" means nothing for the rest: repeat rather than miss.
        if open.at.is_some_and(|at| id < at) {
            open.unordered = true;
        }
        let known = match open.seen {
            Seen::Whole => true,
            Seen::UpTo(last) => id <= last && !open.unordered,
            Seen::Never => one_place && open.at == Some(id),
        };
        open.at = Some(id);
        open.announced = !known;
        Ok(if known { Change::Known } else { Change::New })
    }

    /// Room in the window for a message of `size` bytes? An empty window takes one of any size.
    /// While there is none the pump reads nothing more: that is the back-pressure.
    #[must_use]
    pub fn fits(&self, size: usize) -> bool {
        self.window.fits(size) || fault!(self, IgnoreWindow)
    }

    /// The change just announced as [`Change::New`] is a message: it enters the window.
    ///
    /// # Errors
    /// [`StreamError`]: no such change, or it does not fit.
    pub fn accept(&mut self, outgoing: Outgoing<M>) -> Result<(), StreamError> {
        if !self.fits(outgoing.size) {
            return Err(StreamError::WindowFull);
        }
        let home = self.lane_of(outgoing.key_hash);
        let open = self.open.as_mut().ok_or(StreamError::NotAnnounced)?;
        let at = open.at.filter(|_| open.announced).ok_or(StreamError::NotAnnounced)?;
        open.announced = false;
        let after = open.record.and_then(|key| Some(self.ledger.get(key)?.last));
        let key = *open.record.get_or_insert_with(|| self.ledger.open(open.id, at));
        let commit_time = open.commit_time;
        let change = Some(at);
        let of = Origin { tx: key, commit_time, change, after, kept: None, home };
        if let Some(record) = self.ledger.get_mut(key) {
            record.last = record.last.max(at);
            record.accepted += 1;
            record.unordered |= open.unordered;
            record.unreceipted += 1;
        }
        let key = self.window.insert(of, outgoing);
        self.enqueue(key);
        Ok(())
    }

    /// pgoutput Commit. `end_lsn` becomes a candidate once the transaction and all before it are
    /// done.
    ///
    /// # Errors
    /// [`StreamError`]: no transaction, or the Commit of another one.
    pub fn commit(&mut self, commit_lsn: Lsn, end_lsn: Lsn) -> Result<(), StreamError> {
        let open = self.open.take().ok_or(StreamError::Outside("Commit", commit_lsn))?;
        if open.id.commit_lsn != commit_lsn && !fault!(self, RecogniseByXidOnly) {
            return Err(StreamError::OtherCommit { begin: open.id.commit_lsn, commit: commit_lsn });
        }
        #[cfg(test)]
        if fault!(self, ConfirmAtCommitRead) {
            self.ledger.force_done(end_lsn);
        }
        match open.record {
            Some(key) => {
                self.ledger.committed(key, end_lsn);
                if self.ledger.is_done(key) {
                    self.retire(key);
                }
            }
            None if fault!(self, EmptyIsNoCandidate) => {}
            None => self.ledger.passed(end_lsn),
        }
        self.ledger.bring(end_lsn);
        Ok(())
    }

    /// A primary keepalive message: an empty commit between transactions, nothing inside one
    /// (rule 3). A keepalive that lies below earlier positions changes nothing.
    pub fn keepalive(&mut self, wal_end: Lsn) {
        if self.session.is_none() || fault!(self, KeepaliveIgnored) {
            return;
        }
        if self.open.is_some() {
            if fault!(self, KeepaliveInsideTransaction) {
                self.ledger.passed(wal_end);
            }
            return;
        }
        self.ledger.passed(wal_end);
        self.ledger.bring(wal_end);
        #[cfg(test)]
        self.faulty_keepalive(wal_end);
    }

    /// A transaction has nothing outstanding any more: it leaves the ledger for the ring.
    pub(super) fn retire(&mut self, key: ledger::Key) {
        #[cfg(test)]
        self.faulty_fold(key);
        self.remember(key);
        if fault!(self, FenceIgnored) || !self.ledger.fence(key) {
            self.ledger.close(key);
        }
    }

    /// Should it come again, it is known.
    fn remember(&mut self, key: ledger::Key) {
        let Some(record) = self.ledger.get(key) else { return };
        if record.recovered {
            for aside in [&mut self.recovered, &mut self.parking.record] {
                aside.take_if(|aside| *aside == key);
            }
            return;
        }
        if !self.stale.is_empty() {
            self.stale.remove(&record.id);
        }
        if fault!(self, ForgetDone) || record.unsure {
            return;
        }
        if record.complete && record.has_come() {
            self.ring.finished(record.id);
        } else if record.complete {
            self.ring.finished_meanwhile(record.id);
        } else if !record.unordered && !fault!(self, ForgetPartialTransaction) {
            self.ring.partly_finished(record.id, record.last);
        }
    }

    /// Another history: what was kept in the table of what was refused may not be there, or have
    /// other ids, and what came after it may have been confirmed. To be called before a session starts.
    pub fn table_lost(&mut self) {
        if fault!(self, TableOfTheOldTimeline) {
            return;
        }
        if self.ledger.forget_fences() {
            self.ring.clear();
        }
        self.forget_kept();
    }
}
