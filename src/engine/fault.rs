//! Deliberate faults, compiled into the engine for tests only: the simulator must catch each.

use super::types::{Addressed, Receipt, TxId};
use super::{Engine, ledger, window};
use crate::lsn::Lsn;
use crate::pgoutput::PgTime;

/// What a faulty engine does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// A Begin's commit LSN is a done candidate at once.
    ConfirmAtBegin,
    /// A Commit is a done candidate at once, receipts or not.
    ConfirmAtCommitRead,
    /// A keepalive between transactions is a done candidate at once.
    ConfirmKeepaliveAtOnce,
    /// A keepalive inside a transaction is a candidate like one between.
    KeepaliveInsideTransaction,
    /// A change's LSN is a candidate once its message and all before it are receipted.
    ConfirmChangePosition,
    /// A new session keeps the old running maximum.
    KeepWatermarkAcrossSessions,
    /// Candidates below the slot's confirmed position are reported.
    NoConfirmedFloor,
    /// The watermark is the latest candidate, not the highest.
    WatermarkFollowsLast,
    /// A transaction that finishes takes its unfinished predecessors with it.
    FoldIntoSuccessor,
    /// Messages of an earlier session hold back the new one's candidates.
    StaleHoldsCandidates,
    /// The commit of a transaction without messages is dropped.
    EmptyIsNoCandidate,
    /// A keepalive is never a candidate.
    KeepaliveIgnored,
    /// A transaction is recognised by its commit LSN alone.
    RecogniseByLsnOnly,
    /// A transaction is recognised by its xid alone.
    RecogniseByXidOnly,
    /// A transaction broken off by a lost session is not recognised.
    ForgetPartialTransaction,
    /// A transaction broken off by a lost session is taken as whole.
    PartialIsWhole,
    /// Several changes at one LSN are taken as one.
    PlaceIgnored,
    /// Finished transactions are not remembered.
    ForgetDone,
    /// A lost session drops what was not sent yet.
    DropUnsentAtSessionLoss,
    /// A lost lane drops what was not receipted.
    DropResendsAfterLaneLoss,
    /// A receipt counts for everything sent before it on its lane.
    CumulativeReceipt,
    /// A receipt counts whether or not its message is outstanding on that connection.
    AcceptAnyReceipt,
    /// After a reconnect what was never sent goes first.
    ResendAfterNew,
    /// A new session sends everything unreceipted again.
    ResendAtSessionStart,
    /// Lanes send although the slot is not held.
    SendWhileStandby,
    /// The window has no bound.
    IgnoreWindow,
    /// A refused message is taken as receipted.
    RefusalIsReceipt,
    /// A lane that is lost again and again with the same message at its head speaks against nobody.
    SilentCloseIsInnocent,
    /// Of what was unreceipted only the oldest is suspected.
    OnlyTheOldestIsSuspect,
    /// A broker that turns out to be down has refused what it refused.
    DownIsAnAttempt,
    /// A destination is tried while messages of it are on their way elsewhere.
    WhatIsOutIsNotAwaited,
    /// The messages of a suspected destination are tried together.
    AllAreTriedTogether,
    /// No lane is ever probed.
    NoProbe,
    /// A lane goes on sending while a probe is unanswered.
    SendWhileProbing,
    /// A probe's answer counts for everything sent before it.
    ProbeIsReceipt,
    /// A missing receipt is never noticed.
    MissingNeverNoticed,
    /// What is tried loses its turn although only now others are answered.
    HeldTrialIsClosedAtOnce,
    /// An unanswered probe closes the lane although heart-beats come.
    CloseOnSilence,
    /// A lost session drops what came out of the table.
    DropRecoveredAtSessionLoss,
    /// What came out of the table is not waited for.
    DrainedWithoutRecovered,
    /// Positions of the stream wait for what came out of the table.
    RecoveredHoldsCandidates,
    /// A large transaction is called done as far as it was read.
    ProgressIsWhatWasRead,
    /// A transaction of which a part was delivered before the start is taken as whole.
    ResumeIsWhole,
    /// What was done of a large transaction before the start is taken for delivered, not for kept.
    ResumeIsUnfenced,
    /// What was delivered before the start is not recognised.
    ResumeIgnored,
    /// A snapshot is certified whatever connections it was taken on.
    CertifyIgnoresConnections,
    /// A snapshot is certified although the publication was changed.
    CertifyIgnoresGuard,
    /// A snapshot is certified before the watermark has passed its position.
    CertifyNotPassed,
    /// A receipt is enough, whether or not the row is marked.
    ConfirmBeforeMark,
    /// A row that could not be marked is not tried again.
    FailedMarkIsForgotten,
    /// After a failover rows are marked that have the ids of rows that are gone.
    MarksOfTheOldTimeline,
    /// A large transaction is called done past rows that are not marked.
    ProgressIgnoresOwed,
    /// A message that is kept is done at once.
    FenceIgnored,
    /// After a failover the table of what was refused is taken for the same.
    TableOfTheOldTimeline,
    /// A destination that is parked is sent what comes in.
    ParkedIsOpen,
    /// Rows are sent while those before them are unread.
    OpensWithRowsUnread,
    /// More is kept than may be.
    MaxParkedIgnored,
    /// The oldest is tried whenever the lane is free.
    PauseIgnored,
    /// What was delivered stays in the table.
    DeliveredIsKept,
    /// A head is tried for ever.
    NeverCondemned,
}

/// The fault of this engine: none, outside the simulator's own tests.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults(pub(super) Option<Fault>);

impl Faults {
    pub(super) fn has(self, fault: Fault) -> bool {
        self.0 == Some(fault)
    }
}

/// What the faults do where it is more than a condition.
impl<M: Addressed> Engine<M> {
    pub(super) fn faulty_session_start(&mut self) {
        if fault!(self, ResendAtSessionStart) {
            for lane in &mut self.lanes {
                self.window.rewind(&mut lane.order);
            }
        }
    }

    pub(super) fn faulty_session_loss(&mut self, done: Lsn) {
        if fault!(self, KeepWatermarkAcrossSessions) {
            self.ledger.passed(done);
        }
        if fault!(self, DropRecoveredAtSessionLoss) {
            let recovered = self.recovered;
            for lane in 0..self.lanes.len() {
                self.settle_where(lane, |held| Some(held.tx) == recovered);
            }
        }
        if fault!(self, DropUnsentAtSessionLoss) {
            for lane in 0..self.lanes.len() {
                self.settle_where(lane, |held| held.sent_no == 0);
            }
        }
    }

    pub(super) fn faulty_drained(&self) -> bool {
        let recovered = self.recovered.and_then(|key| self.ledger.get(key));
        let aside = recovered.map_or(0, |record| record.unreceipted);
        fault!(self, DrainedWithoutRecovered) && self.window.held().messages == aside
    }

    pub(super) fn faulty_identity(&self, id: TxId) -> TxId {
        if fault!(self, RecogniseByLsnOnly) {
            TxId { xid: 0, commit_time: PgTime(0), ..id }
        } else if fault!(self, RecogniseByXidOnly) {
            TxId { commit_lsn: Lsn::INVALID, commit_time: PgTime(0), ..id }
        } else {
            id
        }
    }

    pub(super) fn faulty_keepalive(&mut self, wal_end: Lsn) {
        if fault!(self, ConfirmKeepaliveAtOnce) {
            self.ledger.force_done(wal_end);
        }
        if fault!(self, WatermarkFollowsLast) && self.ledger.len() == 0 {
            self.ledger.set_done(wal_end);
        }
    }

    pub(super) fn faulty_fold(&mut self, key: ledger::Key) {
        if fault!(self, FoldIntoSuccessor)
            && self.ledger.first() != Some(key)
            && let Some(candidate) = self.ledger.candidate(key)
        {
            self.ledger.force_done(candidate);
        }
    }

    pub(super) fn faulty_change_position(&mut self, key: ledger::Key) {
        let done =
            self.ledger.get(key).filter(|record| record.unreceipted == 0).map(|r| r.last.lsn);
        if let Some(lsn) = done
            && fault!(self, ConfirmChangePosition)
            && self.ledger.first() == Some(key)
        {
            self.ledger.force_done(lsn);
        }
    }

    pub(super) fn faulty_lane_up(&mut self, lane: usize) {
        if fault!(self, ResendAfterNew) {
            self.window.never_sent_first(&mut self.lanes[lane].order);
        }
    }

    pub(super) fn faulty_lane_down(&mut self, lane: usize) {
        if fault!(self, DropResendsAfterLaneLoss) {
            self.settle_where(lane, |held| held.sent_before);
        }
    }

    pub(super) fn settle_sent_before(&mut self, lane: usize, no: u64) {
        self.settle_where(lane, |held| held.sent_no > 0 && held.sent_no < no);
    }

    pub(super) fn settle_refused(&mut self, lane: usize, receipt: Receipt) {
        self.settle_where(lane, |held| held.receipt == receipt);
    }

    fn settle_where(&mut self, lane: usize, which: impl Fn(&window::Held<M>) -> bool) {
        for key in self.window.keys(&self.lanes[lane].order) {
            if self.window.get(key).is_some_and(&which) {
                self.settle(key);
            }
        }
    }
}
