//! What may happen in a schedule.

/// One thing that may happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// An application writes, commits or rolls back.
    Write,
    /// The pump reads from the replication connection.
    Read,
    /// The pump writes what the engine gives it into a lane's buffer.
    Pump,
    /// The broker reads from a lane.
    Take,
    /// A lane reads an answer.
    Answer,
    /// A status update leaves.
    Report,
    /// A status update arrives.
    Arrive,
    /// PostgreSQL saves the slot.
    Checkpoint,
    /// Less than a second passes.
    Wait,
    /// Up to a minute passes.
    WaitLong,
    /// A lane tries to connect.
    Connect,
    /// The pump opens the replication connection.
    OpenSource,
    /// A lane is lost.
    LoseLane,
    /// Every lane is lost and the broker can't be connected to; or it can again.
    Unreachable,
    /// The broker reads no more (memory alarm), or reads again.
    Freeze,
    /// A receipt that answers nothing outstanding.
    Garbage,
    /// The replication connection is lost.
    LoseSource,
    /// PostgreSQL restarts in order.
    Restart,
    /// PostgreSQL crashes: the unsaved position and unflushed commits are gone.
    Crash,
    /// A standby that lacks the newest transactions takes over.
    Failover,
    /// walpost is killed; a new one starts.
    Kill,
    /// The slot is dropped or invalidated.
    LoseSlot,
    /// The relay goes on with certifying a snapshot.
    Certify,
    /// The relay stores how far a large transaction is delivered.
    Large,
    /// Delivered rows are deleted.
    Retain,
    /// The outbox is taken out of the publication, or put back.
    Alter,
    /// A relay that was frozen before it was replaced goes on.
    Thaw,
    /// The SQL side goes on with marking rows.
    Mark,
    /// A user locks a row, or all locks end.
    Lock,
    /// A user deletes a row.
    UserDeletes,
    /// The SQL side goes on with keeping what is refused.
    Park,
    /// An operator has dead letters sent again.
    Operator,
}
