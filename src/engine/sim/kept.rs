//! The model PostgreSQL's table of what was refused: rows that a crash or a failover takes back with all
//! else, and the operators who change them.

use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;

use crate::engine::{ChangeId, TxId};

use super::postgres::{Postgres, Wrote};

/// A row.
#[derive(Clone, Debug)]
pub(super) struct KeptRow {
    pub(super) id: i64,
    /// The outbox row.
    pub(super) serial: usize,
    pub(super) identity: Option<(TxId, ChangeId)>,
    /// Its outbox row may be another by now.
    pub(super) foreign: bool,
    pub(super) dead: bool,
    pub(super) attempts: u32,
    pub(super) next: Duration,
    /// An operator had it sent again, out of its place.
    pub(super) again: bool,
}

/// All of them, by id.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    pub(super) rows: Vec<KeptRow>,
    pub(super) last_id: i64,
    /// An operator has had rows sent again.
    pub(super) touched: bool,
}

impl Postgres {
    /// The table is another one from now on; that is waited for.
    pub(super) fn keep(&mut self, kept: Kept) {
        let kept = Rc::new(kept);
        self.kept = Rc::clone(&kept);
        self.write_at_once(Wrote::Kept(kept));
        self.shown = self.insert;
    }

    /// Whether a row is kept on the present timeline, whatever its state.
    pub(super) fn is_kept(&self, serial: usize) -> bool {
        self.kept.rows.iter().any(|row| row.serial == serial)
    }

    /// The rows of a destination that are to be sent again.
    pub(super) fn retrying(&self, destination: usize) -> impl Iterator<Item = &KeptRow> {
        let of = move |row: &&KeptRow| self.rows[row.serial].destination == destination;
        self.kept.rows.iter().filter(|row| !row.dead).filter(of)
    }

    /// An operator has dead rows sent again: all, or some.
    pub(super) fn operator_retries(&mut self, rng: &mut Rng, all: bool, now: Duration) -> usize {
        let mut kept = (*self.kept).clone();
        let mut changed = 0;
        for row in &mut kept.rows {
            if row.dead && !self.rows[row.serial].unfit && (all || rng.u8(..3) == 0) {
                (row.dead, row.attempts, row.next, row.again) = (false, 0, now, true);
                changed += 1;
            }
        }
        if changed > 0 {
            kept.touched = true;
            self.keep(kept);
        }
        changed
    }
}
