//! Which message is handled next: those of one key in their order, others at the same time. Pure.

use std::collections::VecDeque;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

/// Messages that wait, in as many queues as are handled at the same time.
#[derive(Debug)]
pub(super) struct Order<T> {
    lanes: Vec<Lane<T>>,
}

#[derive(Debug)]
struct Lane<T> {
    waiting: VecDeque<T>,
    busy: bool,
}

impl<T> Order<T> {
    /// With so many queues, at least one.
    pub(super) fn new(lanes: usize) -> Order<T> {
        let lane = |_| Lane { waiting: VecDeque::new(), busy: false };
        Order { lanes: (0..lanes.max(1)).map(lane).collect() }
    }

    /// Items of one key always go into the same queue.
    pub(super) fn push(&mut self, key: &str, item: T) {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(key);
        // Less than the number of queues, which is a usize.
        let lane = (hash % self.lanes.len() as u64) as usize;
        self.lanes[lane].waiting.push_back(item);
    }

    /// Takes up to `most` items out of a queue of which none is being handled, and the queue's number.
    pub(super) fn next(&mut self, most: usize) -> Option<(usize, Vec<T>)> {
        let free = |lane: &Lane<T>| !lane.busy && !lane.waiting.is_empty();
        let at = self.lanes.iter().position(free)?;
        let lane = &mut self.lanes[at];
        lane.busy = true;
        let count = lane.waiting.len().min(most.max(1));
        Some((at, lane.waiting.drain(..count).collect()))
    }

    /// What was taken out of the queue is done.
    pub(super) fn done(&mut self, lane: usize) {
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.busy = false;
        }
    }

    /// Forgets what waits.
    pub(super) fn clear(&mut self) {
        self.lanes.iter_mut().for_each(|lane| lane.waiting.clear());
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.lanes.iter().map(|lane| lane.waiting.len()).sum()
    }

    /// Whether nothing is being handled.
    pub(super) fn is_idle(&self) -> bool {
        !self.lanes.iter().any(|lane| lane.busy)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_taken_is_bounded_and_one_at_a_time() {
        let mut order = Order::new(1);
        (0..5).for_each(|n| order.push("k", n));
        assert_eq!(order.next(3), Some((0, vec![0, 1, 2])));
        assert_eq!(order.next(3), None);
        assert!(!order.is_idle());
        order.done(0);
        assert_eq!(order.next(0), Some((0, vec![3])));
        order.done(0);
        order.clear();
        assert_eq!((order.next(3), order.waiting(), order.is_idle()), (None, 0, true));
    }

    proptest! {
        /// However they are taken, those of a key are never handled at the same time, and in order.
        #[test]
        fn keys_keep_their_order(
            keys in proptest::collection::vec(0_u8..5, 1..60),
            lanes in 1_usize..5,
            picks in proptest::collection::vec(any::<bool>(), 0..200),
        ) {
            let mut order = Order::new(lanes);
            let mut coming = keys.iter().enumerate();
            let (mut running, mut handled) = (Vec::new(), Vec::new());
            for pick in picks.into_iter().chain(std::iter::repeat_n(true, 400)) {
                if let Some((n, key)) = coming.next() {
                    order.push(&key.to_string(), (*key, n));
                }
                if pick && !running.is_empty() {
                    let (lane, items): (usize, Vec<(u8, usize)>) = running.remove(0);
                    handled.extend(items);
                    order.done(lane);
                } else if let Some(taken) = order.next(2) {
                    let in_hand: Vec<u8> =
                        running.iter().flat_map(|(_, items): &(usize, Vec<(u8, usize)>)| items).map(|item| item.0).collect();
                    prop_assert!(taken.1.iter().all(|item| !in_hand.contains(&item.0)));
                    running.push(taken);
                }
            }
            while let Some((_, items)) = running.pop() {
                handled.extend(items);
            }
            for key in 0..5 {
                let of_key: Vec<usize> =
                    handled.iter().filter(|item| item.0 == key).map(|item| item.1).collect();
                prop_assert!(of_key.is_sorted(), "{of_key:?}");
            }
        }
    }
}
