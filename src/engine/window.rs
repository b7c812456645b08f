//! The messages without a receipt, and the order in which each lane sends them; and those whose
//! rows are to be marked still.

use std::time::Duration;

use super::types::{ChangeId, InFlight, Outgoing, Receipt, TxId};
use crate::pgoutput::PgTime;

/// Low bits of a receipt number: the place in the window. The rest counts how often the place was
/// used, so that no two messages ever share a number.
const INDEX_BITS: u32 = 20;

/// The most messages a window can hold.
pub(super) const MAX_MESSAGES: usize = 1 << INDEX_BITS;

/// The key of a message in the window, and of nothing else once it has left.
pub(super) type Key = u32;

/// Where a message comes from.
#[derive(Clone, Copy)]
pub(super) struct Origin {
    /// The record of its transaction.
    pub(super) tx: u32,
    pub(super) commit_time: PgTime,
    /// The change of its transaction that it is.
    pub(super) change: Option<ChangeId>,
    /// The change of its transaction that became the message before it.
    pub(super) after: Option<ChangeId>,
    /// Its row in the table of what was refused.
    pub(super) kept: Option<KeptIn>,
    /// The lane of its ordering key.
    pub(super) home: usize,
}

/// Where a message is kept that came out of the table of what was refused.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeptIn {
    /// Its row's id.
    pub(super) id: i64,
    /// It was dead, and the newest of these.
    pub(super) dead: bool,
    /// The transaction that it came with, where that is known.
    pub(super) transaction: Option<TxId>,
}

/// A message in the window.
pub(super) struct Held<M> {
    pub(super) receipt: Receipt,
    /// Its place among all that came in.
    pub(super) seq: u64,
    /// The lane that it was in last, and whether it is there still.
    pub(super) lane: usize,
    listed: bool,
    /// The record of its transaction.
    pub(super) tx: u32,
    pub(super) commit_time: PgTime,
    /// The change of its transaction that it is.
    pub(super) change: Option<ChangeId>,
    /// The change of its transaction that became the message before it.
    pub(super) after: Option<ChangeId>,
    /// Its row in the table of what was refused.
    pub(super) kept: Option<KeptIn>,
    /// The lane of its ordering key.
    pub(super) home: usize,
    /// It can't be sent.
    pub(super) unfit: bool,
    /// It is of another history: its row may be gone, and its id another row's.
    pub(super) foreign: bool,
    pub(super) size: usize,
    pub(super) payload: M,
    /// Whether its row is to be marked once it has its receipt.
    pub(super) marks: bool,
    /// Since when it has its receipt, and is in no lane's order any more: its mark is owed.
    pub(super) receipted: Option<Duration>,
    /// The running number of its SEND on the lane's present connection; 0: not sent on it.
    pub(super) sent_no: u64,
    pub(super) sent_before: bool,
    pub(super) last_sent: Duration,
    /// Since when something sent after it on the present connection is answered.
    pub(super) overtaken_since: Option<Duration>,
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
    places: Vec<Option<Held<M>>>,
    /// How often each place was used.
    uses: Vec<u64>,
    free: Vec<Key>,
    /// Messages that came in, ever.
    accepted: u64,
}

impl<M> Window<M> {
    pub(super) fn new(messages: usize, bytes: usize) -> Self {
        Window {
            max: InFlight { messages: messages.clamp(1, MAX_MESSAGES), bytes },
            held: InFlight::default(),
            places: Vec::new(),
            uses: Vec::new(),
            free: Vec::new(),
            accepted: 0,
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

    pub(super) fn get(&self, key: Key) -> Option<&Held<M>> {
        self.places.get(key as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Held<M>> {
        self.places.get_mut(key as usize)?.as_mut()
    }

    /// Room for so many messages and bytes.
    pub(super) fn room(&self) -> InFlight {
        InFlight {
            messages: self.max.messages.saturating_sub(self.held.messages),
            bytes: self.max.bytes.saturating_sub(self.held.bytes),
        }
    }

    /// All messages, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Held<M>> {
        self.places.iter().flatten()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Held<M>> {
        self.places.iter_mut().flatten()
    }

    /// The message that a receipt number belongs to, if it is still here.
    pub(super) fn find(&self, receipt: Receipt) -> Option<Key> {
        let key = (receipt.0 & (MAX_MESSAGES as u64 - 1)) as Key;
        (self.get(key)?.receipt == receipt).then_some(key)
    }

    /// Takes a message in; it is in no lane's order yet.
    pub(super) fn insert(&mut self, of: Origin, outgoing: Outgoing<M>) -> Key {
        let key = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.uses.push(0);
            self.places.len() as Key - 1
        });
        let place = key as usize;
        self.uses[place] += 1;
        self.held.messages += 1;
        self.held.bytes += outgoing.size;
        self.accepted += 1;
        self.places[place] = Some(Held {
            receipt: Receipt(self.uses[place] << INDEX_BITS | u64::from(key)),
            seq: self.accepted,
            lane: 0,
            listed: false,
            tx: of.tx,
            commit_time: of.commit_time,
            change: of.change,
            after: of.after,
            kept: of.kept,
            home: of.home,
            unfit: outgoing.unfit,
            foreign: false,
            size: outgoing.size,
            payload: outgoing.payload,
            marks: outgoing.marks,
            receipted: None,
            sent_no: 0,
            sent_before: false,
            last_sent: Duration::ZERO,
            overtaken_since: None,
            next: None,
            previous: None,
        });
        key
    }

    /// The message is the last that the lane is to send.
    pub(super) fn append(&mut self, order: &mut Order, key: Key, lane: usize) {
        let before = order.last;
        let Some(held) = self.get_mut(key) else { return };
        held.lane = lane;
        held.listed = true;
        held.previous = before;
        match before.and_then(|last| self.get_mut(last)) {
            Some(last) => last.next = Some(key),
            None => order.first = Some(key),
        }
        order.last = Some(key);
        order.length += 1;
        order.unsent = order.unsent.or(Some(key));
        order.ahead = order.ahead.or(Some(key));
    }

    /// The next message of the lane counts as sent. Returns whether it was sent before.
    pub(super) fn mark_sent(
        &mut self,
        order: &mut Order,
        sent_no: u64,
        now: Duration,
    ) -> Option<(Key, bool)> {
        let key = order.unsent?;
        let held = self.get_mut(key)?;
        let again = held.sent_before;
        held.sent_no = sent_no;
        held.sent_before = true;
        held.last_sent = now;
        order.unsent = held.next;
        Some((key, again))
    }

    /// Something was answered: what was sent before it is overtaken since now, or since earlier.
    pub(super) fn overtake(&mut self, order: &mut Order, answered: u64, now: Duration) {
        while let Some(held) = order.ahead.and_then(|key| self.get_mut(key)) {
            if held.sent_no == 0 || held.sent_no >= answered {
                break;
            }
            held.overtaken_since = Some(now);
            order.ahead = held.next;
        }
    }

    /// The connection is gone: everything of the lane is to be sent again, in order.
    pub(super) fn rewind(&mut self, order: &mut Order) {
        let mut at = order.first;
        while at != order.unsent {
            let Some(held) = at.and_then(|key| self.get_mut(key)) else { break };
            held.sent_no = 0;
            held.overtaken_since = None;
            at = held.next;
        }
        order.unsent = order.first;
        order.ahead = order.first;
    }

    /// Takes a message out, and out of its lane's order.
    pub(super) fn remove(&mut self, order: &mut Order, key: Key) -> Option<Held<M>> {
        self.detach(order, key, Duration::ZERO);
        let held = self.places.get_mut(key as usize)?.take()?;
        self.free.push(key);
        self.held.messages -= 1;
        self.held.bytes -= held.size;
        Some(held)
    }

    /// The message has its receipt: nothing of its lane concerns it any more.
    pub(super) fn detach(&mut self, order: &mut Order, key: Key, now: Duration) {
        let Some(held) = self.get_mut(key).filter(|held| held.receipted.is_none()) else { return };
        held.receipted = Some(now);
        self.unlink(order, key);
    }

    /// Takes a message out of its lane's order, if it is there.
    pub(super) fn unlink(&mut self, order: &mut Order, key: Key) {
        let Some(held) = self.get_mut(key).filter(|held| held.listed) else { return };
        held.listed = false;
        let (previous, next) = (held.previous.take(), held.next.take());
        order.length -= 1;
        match previous.and_then(|previous| self.get_mut(previous)) {
            Some(previous) => previous.next = next,
            None => order.first = next,
        }
        match next.and_then(|next| self.get_mut(next)) {
            Some(next) => next.previous = previous,
            None => order.last = previous,
        }
        if order.unsent == Some(key) {
            order.unsent = next;
        }
        if order.ahead == Some(key) {
            order.ahead = next;
        }
    }

    /// Calls `each` for what is sent on the lane's present connection, oldest first.
    pub(super) fn for_each_sent(&mut self, order: &Order, mut each: impl FnMut(&mut Held<M>)) {
        let mut at = order.first;
        while let Some(held) = at.and_then(|key| self.get_mut(key)) {
            if held.sent_no > 0 {
                each(held);
            }
            at = held.next;
        }
    }

    /// What the lane has not sent on its present connection, in order.
    pub(super) fn unsent_keys(&self, order: &Order) -> Vec<Key> {
        std::iter::successors(order.unsent, |key| self.get(*key)?.next).collect()
    }

    /// The commit time of the oldest transaction that has a message here. Walks the window: for
    /// the status, not for each row.
    pub(super) fn oldest_commit_time(&self) -> Option<PgTime> {
        let streamed = self.iter().filter(|held| held.kept.is_none());
        streamed.map(|held| held.commit_time).min()
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
        keys.sort_by_key(|key| self.get(*key).is_some_and(|held| held.sent_before));
        for (at, key) in keys.iter().enumerate() {
            let held = self.get_mut(*key).expect("just listed");
            held.previous = at.checked_sub(1).map(|before| keys[before]);
            held.next = keys.get(at + 1).copied();
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
