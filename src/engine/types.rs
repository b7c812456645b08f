//! What goes into the engine and what comes out of it.

use std::time::Duration;

use crate::lsn::Lsn;
use crate::pgoutput::PgTime;

/// Transactions that carried messages and are recognised when they come again (rule 1).
pub const RING: usize = 262_144;

/// What identifies a transaction, from its pgoutput Begin.
///
/// A failover, a restored snapshot or a recreated slot can reuse positions and transaction ids;
/// together with the commit time they can't be reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TxId {
    /// The LSN of the commit record.
    pub commit_lsn: Lsn,
    /// The transaction id.
    pub xid: u32,
    /// When it was committed.
    pub commit_time: PgTime,
}

/// A change inside its transaction: the LSN of its record and its place among the changes at
/// that LSN (COPY writes several rows with one record).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeId {
    /// The LSN of the change.
    pub lsn: Lsn,
    /// 0 for the first change at this LSN, 1 for the second, …
    pub place: u32,
}

/// How much may be in flight and how long the broker may be silent.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// STOMP connections for what is sent as it comes; at least 1. One more is for trials.
    pub lanes: usize,
    /// The window in messages, all lanes together; at least 1, at most 2^20.
    pub messages: usize,
    /// The window in bytes, all lanes together.
    pub bytes: usize,
    /// How long a receipt may be overdue once something sent later was answered.
    pub receipt_timeout: Duration,
    /// How long a lane with unreceipted messages may answer nothing before it is probed.
    pub probe_after: Duration,
    /// Finished transactions that are recognised; see [`RING`].
    pub ring: usize,
    /// What becomes of a destination that is refused.
    pub retry: Retry,
}

/// What becomes of a destination that the broker refuses.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// Between the first attempts.
    pub first_wait: Duration,
    /// After so many attempts the destination is parked.
    pub pause_after: u32,
    /// Before the next attempt.
    pub pause: Duration,
    /// Between the later ones.
    pub wait: Duration,
    /// After so many attempts of its head the destination is condemned.
    pub max_attempts: u32,
    /// Messages that are kept to be sent again; beyond, the stream is held.
    pub max_parked: u64,
    /// The relay halts in place of condemning a destination.
    pub halts: bool,
}

/// A message on its way into the window.
#[derive(Debug)]
pub struct Outgoing<M> {
    /// The hash of its ordering key; decides the lane.
    pub key_hash: u64,
    /// The bytes it occupies.
    pub size: usize,
    /// Whether its row is to be marked after the receipt, before anything is confirmed (rule 8).
    pub marks: bool,
    /// It can't be sent, whatever the broker says: it is kept as dead.
    pub unfit: bool,
    /// What the lane will send.
    pub payload: M,
}

/// What the engine has to know of a message.
pub trait Addressed {
    /// The destination.
    fn destination(&self) -> &str;
}

/// The number in the `receipt` header of a SEND: unique to the message for the engine's life, the
/// same each time it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Receipt(pub u64);

/// What [`change`](super::Engine::change) says of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Not seen before: map it and, if it is a message, accept it.
    New,
    /// Done or in flight already: nothing to do.
    Known,
}

/// Why a lane is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneDown<'a> {
    /// The connection is gone, without a word: nobody's attempt.
    Lost,
    /// The broker sent an ERROR.
    Refused {
        /// The message it names, if it names one.
        receipt: Option<Receipt>,
        /// The broker's words.
        words: &'a str,
    },
    /// No connection could be made: nobody's attempt, and what was refused just before it was
    /// refused by a broker on its way down.
    ConnectFailed,
}

/// What the pump is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send an empty transaction whose ABORT carries a receipt, and report its answer.
    Probe {
        /// On this lane.
        lane: usize,
    },
    /// Close the connection and report the lane down.
    Close {
        /// This lane's.
        lane: usize,
        /// For the log.
        why: CloseReason,
    },
    /// Stop for good; an operator must act.
    Halt(Halt),
    /// Tell people.
    Notice(Notice),
}

/// What becomes of destinations that the broker may refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Some of what was unreceipted is refused, and nobody says what: the destinations are tried
    /// one by one.
    Suspected {
        /// So many.
        destinations: usize,
        /// The broker's words.
        words: String,
    },
    /// The destination was refused.
    Refused {
        /// Which.
        destination: String,
        /// How often in a row.
        attempts: u32,
        /// The broker's words.
        words: String,
    },
    /// The destination is parked: its messages are kept in the table from now on.
    Parked {
        /// Which.
        destination: String,
        /// How often in a row it was refused.
        attempts: u32,
        /// The broker's words.
        words: String,
    },
    /// The destination is condemned: what is kept of it is dead, and what comes will be.
    Condemned {
        /// Which.
        destination: String,
        /// How often in a row it was refused.
        attempts: u32,
        /// The broker's words.
        words: String,
    },
    /// As many messages are kept as may be: the stream is held.
    Full,
    /// The destination takes messages again.
    Opened {
        /// Which.
        destination: String,
    },
}

/// Why the engine wants a lane closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// This message got no receipt although something sent after it was answered.
    Missing(Receipt),
    /// A probe was not answered, and no heart-beats are agreed that would show the broker alive.
    Silent,
    /// The broker holds what is tried, and takes what goes to others: those that wait have their turn.
    Held,
}

/// A refusal that does not go away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Halt {
    /// The destination that was refused so often.
    pub destination: String,
    /// How often in a row.
    pub times: u32,
    /// The broker's words.
    pub words: String,
}

/// A message that has its receipt, for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipted {
    /// When its transaction was committed.
    pub commit_time: PgTime,
    /// When it was sent for the last time.
    pub last_sent: Duration,
}

/// A message whose row is to be marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owed {
    /// Its number.
    pub receipt: Receipt,
    /// Its transaction; none: its row came from the table.
    pub transaction: Option<TxId>,
}

/// What the window holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InFlight {
    /// Messages without a receipt, or whose rows are not marked yet.
    pub messages: usize,
    /// Their bytes.
    pub bytes: usize,
}

/// A stream that no PostgreSQL sends. The session can't be trusted any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// Data outside a session.
    #[error("data arrived although the slot is not held")]
    NoSession,
    /// A Begin inside a transaction.
    #[error("Begin of transaction {0} inside another transaction")]
    NestedBegin(u32),
    /// A change or a Commit outside a transaction.
    #[error("a {0} at {1} outside a transaction")]
    Outside(&'static str, Lsn),
    /// A Commit with another commit LSN than its Begin.
    #[error("Commit at {commit} ends a transaction whose Begin announced {begin}")]
    OtherCommit {
        /// From the Begin.
        begin: Lsn,
        /// From the Commit.
        commit: Lsn,
    },
    /// A message was accepted that no new change announced.
    #[error("a message was accepted without a new change")]
    NotAnnounced,
    /// A message was accepted although the window has no room for it.
    #[error("a message was accepted although the window is full")]
    WindowFull,
}
