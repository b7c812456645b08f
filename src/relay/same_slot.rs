//! Whether a slot is still the one that was read before: one that was dropped and made again under the same
//! name passes over everything that was committed until then, and looks like any other.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::lsn::Lsn;
use crate::store::guard::KeptGuard;
use crate::store::{SlotState, Store, StoreError};

/// What this process knows of the slot's position.
#[derive(Debug, Default)]
pub(super) struct Reported {
    /// The highest that was reported, or that the slot had when a session began; 0: there was none.
    highest: AtomicU64,
    /// Of this process's last session.
    epoch: AtomicI64,
}

impl Reported {
    /// The slot stands there, as far as this process knows.
    pub(super) fn reached(&self, position: Lsn) {
        self.highest.fetch_max(position.0, Ordering::Relaxed);
    }

    /// A session begins.
    pub(super) fn taken(&self, epoch: i64, position: Lsn) {
        self.epoch.store(epoch, Ordering::Relaxed);
        self.reached(position);
    }

    /// Why the slot may be another one; none: it is the same.
    ///
    /// While the row's epoch is ours it is exact: nobody but us moves the slot. Between two processes the statistics
    /// tell: those of a new slot begin at nothing. Those of the same slot do, too, when the server has
    /// crashed or somebody has reset them: then some messages are repeated for nothing.
    pub(super) async fn doubt(
        &self,
        store: &Store,
        slot: &str,
        state: Option<&SlotState>,
        epoch: Option<i64>,
        kept: &KeptGuard,
    ) -> Result<Option<&'static str>, StoreError> {
        let highest = self.highest.load(Ordering::Relaxed);
        if highest > 0 && epoch == Some(self.epoch.load(Ordering::Relaxed)) {
            let moved = state
                .and_then(|state| state.confirmed_flush_lsn)
                .is_some_and(|confirmed| confirmed.0 > highest);
            return Ok(moved.then_some("the slot stands further than it was ever confirmed"));
        }
        let before = kept.decoded;
        let again = before > 0 && store.decoded(slot).await?.is_none_or(|now| now < before);
        Ok(again.then_some(
            "the slot's statistics begin anew: it was made again, or the server crashed",
        ))
    }
}
