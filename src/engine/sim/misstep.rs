//! Deliberate faults in the relay's protocol, beside those in the engine: the simulator must catch each.

use crate::engine::Fault;

/// What a faulty relay does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Misstep {
    /// The upper snapshot is taken before the slot is made.
    SnapshotBeforeSlot,
    /// The slot is made before its row.
    SlotBeforeRow,
    /// The row says `streaming` before the upper snapshot is stored.
    StreamingBeforeSnapshot,
    /// An unfinished slot is used as it is.
    UnfinishedSlotKept,
    /// The cursor is stored before the receipts are there.
    CursorBeforeReceipts,
    /// The cursor stays when a new upper snapshot is taken.
    CursorKept,
    /// The upper snapshot becomes the certified one before all its rows are done.
    RecoveredTooEarly,
    /// Rows are read before everything that the upper snapshot sees is visible to who reads.
    UnseenPassedOver,
    /// The position is read before the snapshot is taken.
    PositionBeforeSnapshot,
    /// Connections are not told apart.
    ConnectionsAlike,
    /// After a failover the snapshot that the old primary had certified is written to the new one.
    OldPrimarysSnapshot,
    /// A change of the timeline is not noticed.
    TimelineIgnored,
    /// A slot that is ahead of the WAL is taken for good.
    SlotAheadKept,
    /// What the publication was is known to the session only, not stored in the row.
    GuardOfSession,
    /// What the publication is is read after the upper snapshot is taken.
    GuardAfterSnapshot,
    /// The upper snapshot is taken although older transactions are in progress.
    OlderNotAwaited,
    /// A relay that was taken over still writes.
    EpochIgnored,
    /// The epoch goes up when the slot is held, and not with each write before.
    EpochOfSession,
    /// Retention deletes what is old, delivered or not.
    RetentionByAge,
    /// A row that is locked counts as deleted.
    LockedIsDeleted,
    /// A row that is not to be seen yet counts as deleted.
    UnseenIsDeleted,
    /// Whether a row may be seen is asked after it was looked for.
    SeenAfterwards,
    /// A row that is marked already counts as locked.
    MarkedIsLocked,
    /// A batch counts as marked when the connection was lost before the answer.
    UnansweredIsMarked,
    /// Rows are marked whether or not the slot is held on that server.
    MarksUnchecked,
    /// Rows are marked in a session although they were asked for in another.
    MarksOfEarlierSession,
    /// Marks may be gone after a crash of PostgreSQL.
    MarksNotFlushed,
    /// After several failovers only the latest is thought of.
    LatestEndOnly,
    /// What is there already is kept again.
    KeptTwice,
    /// Something is kept, or deleted, whether or not the slot is held on that server.
    KeepsUnchecked,
    /// A job counts as done when the connection was lost after it.
    UnansweredIsKept,
}

/// What is wrong with the walpost under judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Defect {
    Engine(Fault),
    Protocol(Misstep),
}

impl Defect {
    pub(super) fn engine(self) -> Option<Fault> {
        match self {
            Defect::Engine(fault) => Some(fault),
            Defect::Protocol(_) => None,
        }
    }

    pub(super) fn protocol(self) -> Option<Misstep> {
        match self {
            Defect::Engine(_) => None,
            Defect::Protocol(misstep) => Some(misstep),
        }
    }
}
