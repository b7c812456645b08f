//! The ends of walpost, and its beginnings.

use super::driver::{Driver, engine};
use super::postgres::Fate;
use super::relay::Relay;
use super::rule::Verdict;

impl Driver {
    /// walpost is gone and started again: it knows what the server knows.
    pub(super) fn restart(&mut self) -> Verdict {
        self.note(format_args!("killed"));
        self.marker_dies()?;
        self.parker_dies()?;
        self.tally.kills += 1;
        self.pg.stop();
        self.uplink.clear();
        self.pending = None;
        for lane in 0..=self.schedule.lanes {
            // What the kernel holds may still be read by the broker.
            while self.rng.bool() && self.broker.take(lane, &mut self.pg.rows, &mut self.rng) {}
            self.broker.lose(lane);
        }
        self.engine = engine(&self.schedule, self.fault);
        self.relay = Relay::new(self.fault);
        self.judge.new_life();
        self.halted = false;
        Ok(())
    }

    /// An operator has mended what the broker refused, and starts walpost again.
    pub(super) fn mend_and_restart(&mut self) -> Verdict {
        self.pg.rows.iter_mut().for_each(|row| row.fate = Fate::Taken);
        self.restart()
    }
}
