//! STOMP transactions: one receipt, that of the COMMIT, for a group of messages.
//!
//! For brokers where a receipt a message costs a disk sync and the COMMIT's means stored (ActiveMQ Classic). A group ends
//! with 200 messages, or when nothing more is to be sent and the broker has little to do: a message alone is committed at once,
//! and while the broker is busy the groups grow by themselves.

use std::collections::VecDeque;

use crate::engine::Receipt;

/// Messages of a group at most. More gain nothing, and all of them are sent again when it fails.
const MOST: usize = 200;
/// With so many COMMITs without an answer a group that is not full waits for more messages.
const BUSY: usize = 4;

/// The transactions of one connection.
#[derive(Debug, Default)]
pub(super) struct Grouping {
    /// The number of the newest transaction; the first is 1.
    number: u64,
    begun: bool,
    open: Vec<Receipt>,
    /// Oldest first.
    committed: VecDeque<(u64, Vec<Receipt>)>,
    /// Proved by an answer, and not yet told.
    proved: VecDeque<Receipt>,
}

impl Grouping {
    /// The transaction that the next message belongs to, and whether it must be begun.
    pub(super) fn current(&mut self) -> (u64, bool) {
        let begins = !self.begun;
        if begins {
            self.begun = true;
            self.number += 1;
        }
        (self.number, begins)
    }

    /// A message was written in the current transaction.
    pub(super) fn add(&mut self, receipt: Receipt) {
        self.open.push(receipt);
    }

    /// The transaction to commit now, if one is due. `more`: further messages follow at once.
    pub(super) fn commit(&mut self, more: bool) -> Option<u64> {
        let due = self.open.len() >= MOST || (!more && self.committed.len() < BUSY);
        if self.open.is_empty() || !due {
            return None;
        }
        self.begun = false;
        self.committed.push_back((self.number, std::mem::take(&mut self.open)));
        Some(self.number)
    }

    /// The COMMIT of a transaction was answered: its messages are stored, and no others.
    pub(super) fn answered(&mut self, number: u64) {
        if let Some(at) = self.committed.iter().position(|(other, _)| *other == number)
            && let Some((_, receipts)) = self.committed.remove(at)
        {
            self.proved.extend(receipts);
        }
    }

    /// The next message that is proved.
    pub(super) fn next(&mut self) -> Option<Receipt> {
        self.proved.pop_front()
    }

    /// The message of a committed transaction that has no other.
    pub(super) fn alone(&self, number: u64) -> Option<Receipt> {
        let (_, receipts) = self.committed.iter().find(|(other, _)| *other == number)?;
        match receipts[..] {
            [only] => Some(only),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(grouping: &mut Grouping, receipts: std::ops::Range<u64>) {
        for receipt in receipts {
            grouping.current();
            grouping.add(Receipt(receipt));
        }
    }

    fn proved(grouping: &mut Grouping) -> Vec<u64> {
        std::iter::from_fn(|| grouping.next()).map(|receipt| receipt.0).collect()
    }

    #[test]
    fn a_message_alone_is_committed_at_once() {
        let mut grouping = Grouping::default();
        assert_eq!(grouping.commit(false), None);
        assert_eq!(grouping.current(), (1, true));
        grouping.add(Receipt(7));
        assert_eq!(grouping.current(), (1, false));
        assert_eq!(grouping.commit(true), None, "more follow");
        assert_eq!(grouping.commit(false), Some(1));
        assert_eq!(grouping.commit(false), None);
        assert_eq!(grouping.alone(1), Some(Receipt(7)));
        assert_eq!(proved(&mut grouping), [0; 0], "not answered");
        grouping.answered(1);
        assert_eq!(proved(&mut grouping), [7]);
        assert_eq!(grouping.current(), (2, true));
    }

    #[test]
    fn a_full_group_is_committed_whatever_follows() {
        let mut grouping = Grouping::default();
        add(&mut grouping, 0..199);
        assert_eq!(grouping.commit(true), None);
        add(&mut grouping, 199..200);
        assert_eq!(grouping.commit(true), Some(1));
        assert_eq!(grouping.alone(1), None);
    }

    #[test]
    fn groups_grow_while_the_broker_is_busy() {
        let mut grouping = Grouping::default();
        for number in 1..=4 {
            add(&mut grouping, number..number + 1);
            assert_eq!(grouping.commit(false), Some(number));
        }
        add(&mut grouping, 5..8);
        assert_eq!(grouping.commit(false), None, "four are unanswered");
        // An answer proves its own group and nothing else.
        grouping.answered(2);
        grouping.answered(99);
        assert_eq!(proved(&mut grouping), [2]);
        assert_eq!(grouping.commit(false), Some(5));
        grouping.answered(5);
        assert_eq!(proved(&mut grouping), [5, 6, 7]);
    }
}
