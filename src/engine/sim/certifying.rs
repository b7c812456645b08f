//! What the relay does beside streaming (certifying a snapshot, storing how far a large transaction is),
//! and what others do by the certified snapshot.

use std::rc::Rc;

use super::driver::Driver;
use super::misstep::Misstep;
use super::relay::Stage;
use super::relay_row::Update;
use super::rule::Verdict;
use super::table::Standing;

impl Driver {
    /// The next step of certifying.
    pub(super) fn certify(&mut self) -> Verdict {
        if !matches!(self.relay.stage, Stage::Streaming) || !self.pg.connected() {
            return Ok(());
        }
        let on = self.on();
        if let Some(found) = self.relay.checking.take() {
            return self.certified_if(Some(found) == self.relay.guard);
        }
        if self.relay.certifier.is_pending() {
            if self.relay.certifier.is_passed(on, self.engine.watermark()) {
                self.relay.checking = Some(self.pg.publication);
            }
            return Ok(());
        }
        if !std::mem::take(&mut self.relay.checked) {
            if Some(self.pg.publication) != self.relay.guard {
                return self.guard_failed();
            }
            self.relay.checked = true;
            return Ok(());
        }
        let before = self.pg.end();
        let snapshot = Rc::new(self.pg.snapshot());
        let between = if self.calm { 0 } else { self.rng.usize(..3) };
        for _ in 0..between {
            self.pg.write(&mut self.rng, &self.schedule);
        }
        let early = self.slips(Misstep::PositionBeforeSnapshot);
        let (snapshot, position) =
            if early { (Rc::new(self.pg.snapshot()), before) } else { (snapshot, self.pg.end()) };
        self.note(format_args!("candidate {snapshot:?} at {position}"));
        self.relay.certifier.taken(on, snapshot, position);
        Ok(())
    }

    fn certified_if(&mut self, same: bool) -> Verdict {
        let certified = self.relay.certifier.checked(self.on(), same);
        if let Some((snapshot, _)) = certified {
            self.tally.certified += 1;
            self.relay.certified = Some(Rc::clone(&snapshot));
            self.store(&Update::Certified(snapshot))?;
        }
        if same { Ok(()) } else { self.guard_failed() }
    }

    /// The publication is not what it was: walpost stops, and is started again to recover.
    fn guard_failed(&mut self) -> Verdict {
        let (was, is) = (self.relay.guard, self.pg.publication);
        self.note(format_args!("the publication was {was:?}, and is {is:?}"));
        self.lose_source()
    }

    /// Whether the certified snapshot covers all there is.
    pub(super) fn all_certified(&self) -> bool {
        let Some(row) = &self.pg.relay else { return false };
        let mut rows = self.pg.wal.iter().filter(|tx| !tx.changes.is_empty());
        rows.all(|tx| row.certified.sees(tx.xid))
    }

    /// How far a large transaction is delivered is stored.
    pub(super) fn note_large(&mut self) -> Verdict {
        let Some((id, up_to)) = self.engine.large_transaction() else { return Ok(()) };
        self.judge.large(&self.pg, id, up_to)?;
        if !matches!(self.relay.stage, Stage::Streaming) {
            return Ok(());
        }
        self.tally.large += 1;
        self.store(&Update::Large(id, up_to))
    }

    /// Rows that are delivered are deleted.
    pub(super) fn retain(&mut self) {
        let by_age = self.slips(Misstep::RetentionByAge);
        let Some(row) = self.pg.relay.clone() else { return };
        let many = self.rng.usize(1..=5);
        let rows = self.pg.table(many, |xid| by_age || row.certified.sees(xid), |_| true);
        if !rows.is_empty() {
            self.note(format_args!("deleted {rows:?}"));
            self.tally.deleted += rows.len() as u64;
            self.pg.change_rows(rows, Standing::Deleted);
        }
    }

    /// Somebody alters the publication.
    pub(super) fn alter_publication(&mut self) {
        let good = !self.pg.publication.good;
        self.note(format_args!("publication has the outbox: {good}"));
        self.pg.alter_publication(good);
    }
}
