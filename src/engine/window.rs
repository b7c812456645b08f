//! The messages without a receipt, and the order in which each lane sends them.

use std::time::Duration;

use super::types::{InFlight, Outgoing, Receipt};
use crate::pgoutput::PgTime;

/// Low bits of a receipt number: the place in the window. The rest counts how often the place was
/// used, so that no two messages ever share a number.
const INDEX_BITS: u32 = 20;

/// The most messages a window can hold.
pub(super) const MAX_MESSAGES: usize = 1 << INDEX_BITS;

/// The key of a message in the window, and of nothing else once it has left.
pub(super) type Key = u32;

/// A message in the window.
pub(super) struct Slot<M> {
    pub(super) receipt: Receipt,
    pub(super) lane: usize,
    /// The record of its transaction.
    pub(super) tx: u32,
    pub(super) commit_time: PgTime,
    pub(super) size: usize,
    pub(super) payload: M,
    /// The running number of its SEND on the lane's present connection; 0: not sent on it.
    pub(super) sent_no: u64,
    pub(super) first_sent: Option<Duration>,
    pub(super) last_sent: Duration,
    /// Since when something sent after it on the present connection is answered.
    pub(super) overtaken_since: Option<Duration>,
    /// How often in a row it was among the suspects of a refusal with the same words, and which
    /// words: see [`Lane::wordings`](super::lane::Lane::wordings).
    pub(super) refused: (u64, u8),
    next: Option<Key>,
    previous: Option<Key>,
}

/// The messages of one lane in the order of their first sending; a list through the window.
#[derive(Clone, Copy, Default)]
pub(super) struct Order {
    first: Option<Key>,
    last: Option<Key>,
    /// The first that is not sent on the present connection.
    unsent: Option<Key>,
    /// The first that is not overtaken.
    ahead: Option<Key>,
    length: usize,
}

impl Order {
    pub(super) fn first(&self) -> Option<Key> {
        self.first
    }

    pub(super) fn unsent(&self) -> Option<Key> {
        self.unsent
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }
}

/// Messages in a slab: a place is used again, its receipt number is not.
pub(super) struct Window<M> {
    max: InFlight,
    held: InFlight,
    slots: Vec<Option<Slot<M>>>,
    /// How often each place was used.
    uses: Vec<u64>,
    free: Vec<Key>,
}

impl<M> Window<M> {
    pub(super) fn new(messages: usize, bytes: usize) -> Self {
        Window {
            max: InFlight { messages: messages.clamp(1, MAX_MESSAGES), bytes },
            held: InFlight::default(),
            slots: Vec::new(),
            uses: Vec::new(),
            free: Vec::new(),
        }
    }

    pub(super) fn held(&self) -> InFlight {
        self.held
    }

    /// Room for a message of this size? An empty window takes one of any size.
    pub(super) fn fits(&self, size: usize) -> bool {
        self.held.messages == 0
            || (self.held.messages < self.max.messages
                && self.held.bytes.saturating_add(size) <= self.max.bytes)
    }

    pub(super) fn get(&self, key: Key) -> Option<&Slot<M>> {
        self.slots.get(key as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Slot<M>> {
        self.slots.get_mut(key as usize)?.as_mut()
    }

    /// The message that a receipt number belongs to, if it is still here.
    pub(super) fn find(&self, receipt: Receipt) -> Option<Key> {
        let key = (receipt.0 & (MAX_MESSAGES as u64 - 1)) as Key;
        (self.get(key)?.receipt == receipt).then_some(key)
    }

    pub(super) fn push(
        &mut self,
        order: &mut Order,
        lane: usize,
        tx: u32,
        commit_time: PgTime,
        outgoing: Outgoing<M>,
    ) -> Key {
        let key = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.uses.push(0);
            self.slots.len() as Key - 1
        });
        let place = key as usize;
        self.uses[place] += 1;
        self.held.messages += 1;
        self.held.bytes += outgoing.size;
        self.slots[place] = Some(Slot {
            receipt: Receipt(self.uses[place] << INDEX_BITS | u64::from(key)),
            lane,
            tx,
            commit_time,
            size: outgoing.size,
            payload: outgoing.payload,
            sent_no: 0,
            first_sent: None,
            last_sent: Duration::ZERO,
            overtaken_since: None,
            refused: (0, 0),
            next: None,
            previous: order.last,
        });
        match order.last.and_then(|last| self.get_mut(last)) {
            Some(last) => last.next = Some(key),
            None => order.first = Some(key),
        }
        order.last = Some(key);
        order.length += 1;
        order.unsent = order.unsent.or(Some(key));
        order.ahead = order.ahead.or(Some(key));
        key
    }

    /// The next message of the lane counts as sent. Returns whether it was sent before.
    pub(super) fn mark_sent(
        &mut self,
        order: &mut Order,
        sent_no: u64,
        now: Duration,
    ) -> Option<(Key, bool)> {
        let key = order.unsent?;
        let slot = self.get_mut(key)?;
        let again = slot.first_sent.is_some();
        slot.sent_no = sent_no;
        slot.first_sent = slot.first_sent.or(Some(now));
        slot.last_sent = now;
        order.unsent = slot.next;
        Some((key, again))
    }

    /// Something was answered: what was sent before it is overtaken since now, or since earlier.
    pub(super) fn overtake(&mut self, order: &mut Order, answered: u64, now: Duration) {
        while let Some(slot) = order.ahead.and_then(|key| self.get_mut(key)) {
            if slot.sent_no == 0 || slot.sent_no >= answered {
                break;
            }
            slot.overtaken_since = Some(now);
            order.ahead = slot.next;
        }
    }

    /// The connection is gone: everything of the lane is to be sent again, in order.
    pub(super) fn rewind(&mut self, order: &mut Order) {
        let mut at = order.first;
        while at != order.unsent {
            let Some(slot) = at.and_then(|key| self.get_mut(key)) else { break };
            slot.sent_no = 0;
            slot.overtaken_since = None;
            at = slot.next;
        }
        order.unsent = order.first;
        order.ahead = order.first;
    }

    pub(super) fn remove(&mut self, order: &mut Order, key: Key) -> Option<Slot<M>> {
        let slot = self.slots.get_mut(key as usize)?.take()?;
        self.free.push(key);
        self.held.messages -= 1;
        self.held.bytes -= slot.size;
        order.length -= 1;
        match slot.previous.and_then(|previous| self.get_mut(previous)) {
            Some(previous) => previous.next = slot.next,
            None => order.first = slot.next,
        }
        match slot.next.and_then(|next| self.get_mut(next)) {
            Some(next) => next.previous = slot.previous,
            None => order.last = slot.previous,
        }
        if order.unsent == Some(key) {
            order.unsent = slot.next;
        }
        if order.ahead == Some(key) {
            order.ahead = slot.next;
        }
        Some(slot)
    }

    /// Calls `each` for what is sent on the lane's present connection, oldest first.
    pub(super) fn for_each_sent(&mut self, order: &Order, mut each: impl FnMut(&mut Slot<M>)) {
        let mut at = order.first;
        while let Some(slot) = at.and_then(|key| self.get_mut(key)) {
            if slot.sent_no > 0 {
                each(slot);
            }
            at = slot.next;
        }
    }

    /// The commit time of the oldest transaction that has a message here. Walks the window: for
    /// the status, not for each row.
    pub(super) fn oldest_commit_time(&self) -> Option<PgTime> {
        self.slots.iter().flatten().map(|slot| slot.commit_time).min()
    }
}

#[cfg(test)]
impl<M> Window<M> {
    /// The lane's messages in order.
    pub(super) fn keys(&self, order: &Order) -> Vec<Key> {
        std::iter::successors(order.first, |key| self.get(*key)?.next).collect()
    }

    /// Puts what was never sent before what was: one of the simulator's deliberate faults.
    pub(super) fn never_sent_first(&mut self, order: &mut Order) {
        let mut keys = self.keys(order);
        keys.sort_by_key(|key| self.get(*key).is_some_and(|slot| slot.first_sent.is_some()));
        for (at, key) in keys.iter().enumerate() {
            let slot = self.get_mut(*key).expect("just listed");
            slot.previous = at.checked_sub(1).map(|before| keys[before]);
            slot.next = keys.get(at + 1).copied();
        }
        *order = Order {
            first: keys.first().copied(),
            last: keys.last().copied(),
            unsent: keys.first().copied(),
            ahead: keys.first().copied(),
            length: keys.len(),
        };
    }
}
