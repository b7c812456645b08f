//! What goes to whoever speaks SQL, and what comes back.

use std::time::Duration;

use crate::engine::types::{ChangeId, Outgoing, Receipt, TxId};
use crate::lsn::Lsn;
use crate::pgtime::PgTime;

/// What the SQL side is to do. All of it takes effect only while the slot is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// Insert these messages in this order; what is there already stays as it is.
    Keep(Vec<Keep>),
    /// Raise the attempts of the oldest row of a destination that is to be sent again, and hand it
    /// over.
    Attempt {
        /// Which.
        destination: String,
        /// The newest of the dead in place of it.
        newest_dead: bool,
    },
    /// Hand over the rows of a destination that are to be sent again, oldest first.
    Load {
        /// Which.
        destination: String,
        /// Those with larger ids.
        after: i64,
        /// At most so many, and so many bytes; at least one.
        messages: usize,
        /// See there.
        bytes: usize,
    },
    /// Delete these rows: their messages are delivered.
    Delivered(Vec<i64>),
    /// What is known of the oldest row of a destination.
    Note {
        /// Its id.
        id: i64,
        /// How often it was refused.
        attempts: u32,
        /// The broker's words.
        words: String,
        /// When it is tried again.
        next_in: Duration,
    },
    /// All rows of the destination are dead.
    Condemn {
        /// Which.
        destination: String,
    },
    /// Look what there is: operators may have changed it.
    Look,
}

/// A message to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Its number.
    pub receipt: Receipt,
    /// What it is recognised by; none: its row came out of the outbox table.
    pub identity: Option<(TxId, ChangeId)>,
    /// Its outbox row may be gone, and its id another row's.
    pub foreign: bool,
    /// It is not to be sent again.
    pub dead: bool,
    /// How often it was refused.
    pub attempts: u32,
    /// The broker's words; empty for what is unfit.
    pub words: String,
    /// When it is tried again; none: when those before it are delivered.
    pub next_in: Option<Duration>,
}

/// A row that is handed over.
#[derive(Debug)]
pub struct Stored<M> {
    /// Its id.
    pub id: i64,
    /// Attempts that were begun.
    pub attempts: u32,
    /// The transaction that it came with, where that is known.
    pub transaction: Option<TxId>,
    /// When that was committed, or when it failed.
    pub commit_time: PgTime,
    /// The message.
    pub outgoing: Outgoing<M>,
}

/// The rows of a destination that are to be sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InTable {
    /// Which.
    pub destination: String,
    /// How many.
    pub rows: u64,
    /// How often the oldest was refused.
    pub attempts: u32,
    /// When that is tried again.
    pub next_in: Duration,
    /// The broker's words.
    pub words: String,
}

/// What became of a job.
#[derive(Debug)]
pub enum Outcome<M> {
    /// Nothing, or nobody knows.
    Failed,
    /// All are there; a position at or past the end of that.
    Kept(Lsn),
    /// The oldest row; none: there is none.
    Attempted(Option<Box<Stored<M>>>),
    /// The next rows, and how many there are behind them.
    Loaded {
        /// In the order of their ids.
        rows: Vec<Stored<M>>,
        /// Behind the last of them.
        unread: u64,
    },
    /// It is done.
    Done,
    /// What there is.
    Looked(Vec<InTable>),
}
