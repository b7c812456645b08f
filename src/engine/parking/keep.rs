//! What is kept: messages of parked destinations, in their order, and what can't be sent.

use std::time::Duration;

use super::{Keep, State};
use crate::engine::Engine;
use crate::engine::trouble::Trouble;
use crate::engine::types::{Addressed, Notice, Receipt};
use crate::engine::window::Key;
use crate::lsn::Lsn;

/// The most messages that are kept together.
const BATCH: usize = 1000;

impl<M: Addressed> Engine<M> {
    /// Whether something is to be kept, and may be.
    pub(super) fn may_keep(&self) -> bool {
        let parking = &self.parking;
        if !parking.keeping.is_empty() || !parking.unfit.is_empty() {
            return true;
        }
        let room = self.room_to_park() > 0;
        self.troubles.by_destination.iter().any(|(name, trouble)| {
            let dead = trouble.parked.as_ref().is_some_and(|p| p.state == State::Condemned);
            self.is_to_be_kept(name, trouble) && (room || dead)
        })
    }

    fn room_to_park(&self) -> usize {
        if fault!(self, MaxParkedIgnored) {
            return usize::MAX;
        }
        let room = self.settings.retry.max_parked.saturating_sub(self.rows());
        usize::try_from(room).unwrap_or(usize::MAX)
    }

    /// Whether what waits of a destination is to be kept; not while it may soon be sent, nor while what
    /// came before it is on its way.
    fn is_to_be_kept(&self, name: &str, trouble: &Trouble) -> bool {
        let trial = self.lanes.last().and_then(|lane| self.window.get(lane.order.first()?));
        if trial.is_some_and(|held| held.kept.is_none() && held.payload.destination() == name) {
            return false;
        }
        let half = self.settings.messages / 2;
        trouble.parked.as_ref().is_some_and(|parked| {
            !trouble.waiting.is_empty()
                && trouble.out == 0
                && (parked.state != State::Draining
                    || parked.unread > half as u64
                    || trouble.waiting.len() > half)
        })
    }

    /// The stream is held, or not any more, by what is kept.
    pub(super) fn note_full(&mut self) {
        let waits = self.troubles.by_destination.iter().any(|(name, trouble)| {
            let retrying = trouble.parked.as_ref().is_some_and(|p| p.state != State::Condemned);
            retrying && self.is_to_be_kept(name, trouble)
        });
        let full = self.room_to_park() == 0 && waits;
        if full && !self.parking.full {
            self.notice(Notice::Full);
        }
        self.parking.full = full;
    }

    /// The next messages to be kept; those that perhaps are come first.
    pub(super) fn next_to_keep(&mut self, now: Duration) -> Vec<Keep> {
        if !self.parking.keeping.is_empty() {
            return self.parking.keeping.clone();
        }
        let mut batch = Vec::new();
        while batch.len() < BATCH
            && let Some(receipt) = self.parking.unfit.pop_front()
        {
            batch.extend(self.keep_unfit(receipt));
        }
        let mut room = self.room_to_park();
        let names: Vec<Box<str>> = self.troubles.by_destination.keys().cloned().collect();
        for name in names {
            let Some(trouble) = self.troubles.by_destination.get(&name) else { continue };
            if !self.is_to_be_kept(&name, trouble) {
                continue;
            }
            let dead = trouble.parked.as_ref().is_some_and(|p| p.state == State::Condemned);
            let most = (BATCH - batch.len()).min(if dead { usize::MAX } else { room });
            let before = batch.len();
            let keys: Vec<Key> = trouble.waiting.values().copied().take(most).collect();
            batch.extend(keys.into_iter().filter_map(|key| self.keep(&name, key, dead)));
            let kept = batch.len() - before;
            if !dead {
                room -= kept;
            }
            let trouble = self.troubles.by_destination.get_mut(&name);
            if let Some(parked) = trouble.and_then(|trouble| trouble.parked.as_mut()) {
                parked.keeping = kept;
                // The first row of all has been tried.
                if kept > 0 && parked.rows == 0 && !dead {
                    self.first_of(&name, &mut batch[before], now);
                }
            }
        }
        self.parking.keeping.clone_from(&batch);
        batch
    }

    fn keep(&self, name: &str, key: Key, dead: bool) -> Option<Keep> {
        let held = self.window.get(key)?;
        let transaction = self.transaction(held.receipt);
        let words = self.troubles.by_destination.get(name)?.words.to_string();
        Some(Keep {
            receipt: held.receipt,
            identity: transaction.zip(held.change),
            foreign: held.foreign,
            dead,
            attempts: 0,
            words,
            next_in: None,
        })
    }

    fn keep_unfit(&self, receipt: Receipt) -> Option<Keep> {
        let held = self.window.get(self.window.find(receipt)?)?;
        let identity = self.transaction(receipt).zip(held.change);
        Some(Keep {
            receipt,
            identity,
            foreign: held.foreign,
            dead: true,
            attempts: 0,
            words: String::new(),
            next_in: None,
        })
    }

    fn first_of(&self, name: &str, first: &mut Keep, now: Duration) {
        if let Some(trouble) = self.troubles.by_destination.get(name) {
            first.attempts = trouble.attempts;
            first.next_in = Some(trouble.next.saturating_sub(now));
        }
    }

    /// They are kept: they leave the window, and are done once the stream has brought the position.
    pub(super) fn kept(&mut self, position: Lsn) {
        let fence = if fault!(self, FenceIgnored) { Lsn::INVALID } else { position };
        for keep in std::mem::take(&mut self.parking.keeping) {
            let Some(key) = self.window.find(keep.receipt) else { continue };
            let Some(held) = self.window.get(key) else { continue };
            let (seq, unfit) = (held.seq, held.unfit);
            let trouble = self.troubles.by_destination.get_mut(held.payload.destination());
            if let Some(trouble) = trouble.filter(|_| !unfit) {
                trouble.waiting.remove(&seq);
                if let Some(parked) = &mut trouble.parked {
                    parked.rows += u64::from(!keep.dead);
                    parked.unsure = true;
                }
            }
            self.leave(key, fence);
        }
        // Of a batch all is kept: nothing is perhaps in the table any more.
        for trouble in self.troubles.by_destination.values_mut() {
            if let Some(parked) = &mut trouble.parked {
                parked.keeping = 0;
            }
        }
    }
}
