//! What was published lately. After a failover it says which messages are out whose rows the new
//! primary does not have.

use std::collections::VecDeque;

use crate::lsn::Lsn;

/// How many messages are remembered: what a standby that keeps up is behind by.
const KEPT: usize = 4096;
/// How many of them are named.
const NAMED: usize = 20;

/// The last messages that have their receipt.
#[derive(Default)]
pub(super) struct Published {
    last: VecDeque<(Lsn, Box<str>)>,
    /// There were more, that are not remembered.
    forgotten: bool,
}

/// Messages that were published from a position on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Orphans {
    /// How many.
    pub(super) messages: usize,
    /// Whether there may be more.
    pub(super) at_least: bool,
    /// The lowest and the highest LSN of their commits.
    pub(super) range: (Lsn, Lsn),
    /// The last of their ids.
    pub(super) ids: Vec<Box<str>>,
}

impl Published {
    /// A message got its receipt.
    pub(super) fn push(&mut self, commit: Lsn, id: &str) {
        if self.last.len() == KEPT {
            self.last.pop_front();
            self.forgotten = true;
        }
        self.last.push_back((commit, id.into()));
    }

    /// What was published of transactions that were committed at `end` or later; forgets
    /// everything, since the positions are of a timeline that has ended.
    pub(super) fn take_from(&mut self, end: Lsn) -> Option<Orphans> {
        let Published { last, forgotten } = std::mem::take(self);
        // Receipts come in any order.
        let remembered = last.len();
        let orphans: Vec<_> = last.into_iter().filter(|(commit, _)| *commit >= end).collect();
        let lowest = orphans.iter().map(|(commit, _)| *commit).min()?;
        let highest = orphans.iter().map(|(commit, _)| *commit).max()?;
        let messages = orphans.len();
        let named = orphans.into_iter().skip(messages.saturating_sub(NAMED));
        Some(Orphans {
            messages,
            at_least: forgotten && messages == remembered,
            range: (lowest, highest),
            ids: named.map(|(_, id)| id).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_past_the_end_is_counted_and_the_last_are_named() {
        let mut published = Published::default();
        assert_eq!(published.take_from(Lsn(0)), None);
        for n in (1..=100).rev() {
            published.push(Lsn(n), &n.to_string());
        }
        let orphans = published.take_from(Lsn(71)).unwrap();
        assert_eq!((orphans.messages, orphans.at_least), (30, false));
        assert_eq!(orphans.range, (Lsn(71), Lsn(100)));
        assert_eq!((orphans.ids.len(), &*orphans.ids[0], &*orphans.ids[19]), (NAMED, "90", "71"));
        assert_eq!(published.take_from(Lsn(0)), None, "forgotten");
    }

    #[test]
    fn what_is_not_remembered_is_admitted() {
        let mut published = Published::default();
        for n in 1..=KEPT as u64 + 1 {
            published.push(Lsn(n), "id");
        }
        let orphans = published.take_from(Lsn(1)).unwrap();
        assert_eq!((orphans.messages, orphans.at_least), (KEPT, true));
        for n in 1..=KEPT as u64 + 1 {
            published.push(Lsn(n), "id");
        }
        assert!(!published.take_from(Lsn(3)).unwrap().at_least);
    }
}
