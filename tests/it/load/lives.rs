//! Which messages each killed walpost made its successors send again, and whether it had to.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::model::Journal;
use super::tap::{Connection, Send};

/// A walpost from its start to the moment just before its SIGKILL. One lane.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    pub started: Instant,
    pub killed: Instant,
}

/// What was sent again because of one kill.
#[derive(Clone, Copy, Debug, Default)]
pub struct Repeats {
    pub sent_in_last_second: usize,
    pub repeats: usize,
}

/// Counts the repeats of each life. Panics where one was needless: a transaction that had been done
/// for `slack` when its walpost was killed, with all before it, was to be confirmed by then.
#[track_caller]
pub fn repeats_of_lives(
    lives: &[Life],
    connections: &[Connection],
    journal: &Journal,
    slack: Duration,
) -> Vec<Repeats> {
    let transaction_of = journal.transaction_of();
    let mut found = vec![Repeats::default(); lives.len()];
    let mut last_sent_in = HashMap::<u64, usize>::new();
    let mut done_of = Vec::new();
    for (number, life) in lives.iter().enumerate() {
        let until = lives.get(number + 1).map(|next| next.started);
        let sends: Vec<Send> = connections
            .iter()
            .filter(|one| one.opened >= life.started && until.is_none_or(|at| one.opened < at))
            .flat_map(|one| one.sends.iter().copied())
            .collect();
        for send in &sends {
            if let Some(earlier) = last_sent_in.insert(send.serial, number) {
                assert_ne!(earlier, number, "row {} was sent twice by one life", send.serial);
                found[earlier].repeats += 1;
                let done: &HashMap<u64, Instant> = &done_of[earlier];
                if let Some(done) = done.get(&send.serial) {
                    let since = lives[earlier].killed.saturating_duration_since(*done);
                    assert!(
                        since < slack,
                        "row {} was sent again after kill {earlier} although it and all before it \
                         had been receipted for {since:?}",
                        send.serial
                    );
                }
            }
        }
        let in_last_second = |send: &&Send| send.at + Duration::from_secs(1) >= life.killed;
        found[number].sent_in_last_second = sends.iter().filter(in_last_second).count();
        done_of.push(done_at(&sends, &transaction_of));
    }
    found
}

/// When the transaction of each row was done with all before it, in the order of one lane.
fn done_at(sends: &[Send], transaction_of: &HashMap<u64, (usize, usize)>) -> HashMap<u64, Instant> {
    let (mut rows, mut waiting) = (HashMap::<usize, usize>::new(), Vec::new());
    let (mut done, mut latest) = (HashMap::new(), None::<Instant>);
    for send in sends {
        // The rest is behind a message without a receipt.
        let Some(receipted) = send.receipted else { break };
        latest = latest.max(Some(receipted));
        let (transaction, size) = transaction_of[&send.serial];
        waiting.push(send.serial);
        let count = rows.entry(transaction).or_default();
        *count += 1;
        if *count == size {
            let at = latest.expect("set above");
            done.extend(waiting.drain(..).map(|serial| (serial, at)));
        }
    }
    done
}
