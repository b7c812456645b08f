//! A message, as the judge knows it.

use std::time::Duration;

use crate::lsn::Lsn;

/// A message that the engine accepted.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) serial: usize,
    pub(super) destination: usize,
    /// Its transaction; none: its row came out of the table.
    pub(super) uid: Option<usize>,
    pub(super) commit_lsn: Lsn,
    pub(super) size: usize,
    pub(super) commit_time: crate::pgoutput::PgTime,
    pub(super) number: Option<u64>,
    pub(super) last_sent: Duration,
    pub(super) receipted: bool,
    /// Its row is to be marked after the receipt.
    pub(super) marks: bool,
    /// It came by the stream, or what it was kept of did.
    pub(super) streamed: bool,
    /// It came out of the table of what was refused.
    pub(super) kept: Option<i64>,
    /// It was kept there, before this position.
    pub(super) fence: Option<Lsn>,
    /// It can't be sent.
    pub(super) unfit: bool,
    /// Nothing waits for it any more.
    pub(super) settled: bool,
}
