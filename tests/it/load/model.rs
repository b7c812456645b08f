//! The naive model: which rows were committed, in which order per destination, and what that means
//! for what arrives.

use std::collections::{BTreeMap, HashMap, HashSet};

use walpost_testkit::Postgres;

use super::shape::insert;

/// A row of the load. Serials are given out while the destination's lock is held to the end of the
/// transaction: within a destination their order is the commit order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub serial: u64,
    pub destination: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Committed,
    RolledBack,
    /// The connection was lost at the COMMIT.
    Unknown,
}

pub struct Transaction {
    /// Those that are there if it is committed.
    pub rows: Vec<Row>,
    pub outcome: Outcome,
}

pub fn id_of(serial: u64) -> String {
    format!("00000000-0000-4000-8000-{serial:012x}")
}

pub fn serial_of(id: &str) -> u64 {
    let digits = id.strip_prefix("00000000-0000-4000-8000-").expect("an id of the load");
    u64::from_str_radix(digits, 16).expect("hexadecimal")
}

/// As jsonb prints it. Every hundredth is long enough to be stored out of line.
pub fn body_of(serial: u64) -> String {
    let length = if serial % 100 == 7 { 6000 } else { 20 + serial as usize * 31 % 200 };
    let mut rng = fastrand::Rng::with_seed(serial);
    let noise: String = std::iter::repeat_with(|| rng.alphanumeric()).take(length).collect();
    format!(r#"{{"n": {serial}, "noise": "{noise}"}}"#)
}

pub fn destination_of(number: usize) -> String {
    format!("/queue/d{number}")
}

/// The durable queue behind a destination on RabbitMQ.
pub fn queue_of(number: usize) -> String {
    format!("d{number}.v1")
}

/// What the load has done.
pub struct Journal {
    pub transactions: Vec<Transaction>,
    pub destinations: usize,
    pub next_serial: u64,
}

impl Journal {
    pub fn count(&self, outcome: Outcome) -> usize {
        self.transactions.iter().filter(|transaction| transaction.outcome == outcome).count()
    }

    /// Settles unknown outcomes by what is in the table, and holds the table against the rest: with
    /// that the model stands on PostgreSQL's own word.
    pub fn settle(&mut self, server: &Postgres, database: &str) {
        let ids = server.sql(database, "SELECT id FROM walpost.outbox");
        let mut there: HashSet<u64> = ids.lines().map(serial_of).collect();
        for transaction in &mut self.transactions {
            let rows = &transaction.rows;
            let found = rows.iter().filter(|row| there.remove(&row.serial)).count();
            assert!(found == 0 || found == rows.len(), "half a transaction is in the table");
            match transaction.outcome {
                Outcome::Unknown if found > 0 => transaction.outcome = Outcome::Committed,
                Outcome::Unknown => transaction.outcome = Outcome::RolledBack,
                Outcome::Committed => assert_eq!(found, rows.len(), "PostgreSQL lost a commit"),
                Outcome::RolledBack => assert_eq!(found, 0, "a rollback is in the table"),
            }
        }
        assert!(there.is_empty(), "rows in the table that the load did not leave: {there:?}");
    }

    fn committed(&self) -> impl Iterator<Item = &Transaction> {
        self.transactions.iter().filter(|transaction| transaction.outcome == Outcome::Committed)
    }

    /// The transaction of each committed row, and how many rows it has.
    pub fn transaction_of(&self) -> HashMap<u64, (usize, usize)> {
        self.committed()
            .enumerate()
            .flat_map(|(number, transaction)| {
                let rows = &transaction.rows;
                rows.iter().map(move |row| (row.serial, (number, rows.len())))
            })
            .collect()
    }

    /// How many rows were committed.
    pub fn rows(&self) -> usize {
        self.committed().map(|transaction| transaction.rows.len()).sum()
    }

    /// One more row for each destination, committed last: the statement that does it, and the rows.
    pub fn last_rows(&mut self) -> (String, Vec<(usize, u64)>) {
        let serials = self.next_serial..;
        let rows: Vec<Row> = serials
            .zip(0..self.destinations)
            .map(|(serial, destination)| Row { serial, destination })
            .collect();
        self.next_serial += rows.len() as u64;
        let mut statement = String::new();
        insert(&mut statement, &rows);
        let last = rows.iter().map(|row| (row.destination, row.serial)).collect();
        self.transactions.push(Transaction { rows, outcome: Outcome::Committed });
        (statement, last)
    }

    /// The serials of each destination in commit order.
    fn expected(&self) -> BTreeMap<usize, Vec<u64>> {
        let mut expected = BTreeMap::<usize, Vec<u64>>::new();
        for row in self.committed().flat_map(|transaction| &transaction.rows) {
            expected.entry(row.destination).or_default().push(row.serial);
        }
        expected.values_mut().for_each(|serials| serials.sort_unstable());
        expected
    }

    /// Every committed row arrived, and nothing else did; for the first time, each destination's in
    /// commit order, unless the broker is known not to keep it. Gives the serials that came again, once
    /// for each time.
    ///
    /// # Errors
    /// What is wrong.
    pub fn judge(
        &self,
        arrivals: &BTreeMap<usize, Vec<u64>>,
        in_order: bool,
    ) -> Result<Vec<u64>, String> {
        let mut repeats = Vec::new();
        for (destination, expected) in self.expected() {
            let mut seen = HashSet::new();
            let arrived = arrivals.get(&destination).map_or(&[][..], Vec::as_slice);
            let (first, again): (Vec<u64>, Vec<u64>) =
                arrived.iter().partition(|serial| seen.insert(**serial));
            repeats.extend(again);
            let wanted: HashSet<u64> = expected.iter().copied().collect();
            let lost: Vec<_> = expected.iter().filter(|serial| !seen.contains(serial)).collect();
            let invented: Vec<_> = first.iter().filter(|serial| !wanted.contains(serial)).collect();
            if !lost.is_empty() || !invented.is_empty() {
                return Err(format!(
                    "destination {destination}: {} rows, {} lost {:?}, {} invented {:?}",
                    expected.len(),
                    lost.len(),
                    &lost[..lost.len().min(20)],
                    invented.len(),
                    &invented[..invented.len().min(20)],
                ));
            }
            if in_order && let Some(late) = late(&first) {
                return Err(format!("destination {destination}: out of order: {late}"));
            }
        }
        Ok(repeats)
    }

    /// The first `sendings`, one after the other, are in commit order within each destination.
    ///
    /// # Errors
    /// What is out of order.
    pub fn judge_sendings(&self, sendings: impl Iterator<Item = u64>) -> Result<(), String> {
        let rows = self.committed().flat_map(|transaction| &transaction.rows);
        let destination_of: HashMap<u64, usize> =
            rows.map(|row| (row.serial, row.destination)).collect();
        let mut first = BTreeMap::<usize, Vec<u64>>::new();
        let mut seen = HashSet::new();
        for serial in sendings.filter(|serial| seen.insert(*serial)) {
            let destination = destination_of.get(&serial).ok_or("a row not committed was sent")?;
            first.entry(*destination).or_default().push(serial);
        }
        match first.values().find_map(|serials| late(serials)) {
            Some(late) => Err(format!("sent for the first time out of order: {late}")),
            None => Ok(()),
        }
    }
}

/// The first serial that came after later ones of its destination.
fn late(serials: &[u64]) -> Option<String> {
    let mut highest = 0;
    for (at, serial) in serials.iter().enumerate() {
        if *serial < highest {
            let overtaken_by: Vec<_> =
                serials[..at].iter().filter(|other| *other > serial).collect();
            return Some(format!("row {serial} came after {overtaken_by:?}"));
        }
        highest = *serial;
    }
    None
}

#[test]
fn the_judge_sees_loss_invention_and_disorder() {
    let row = |serial| Row { serial, destination: 0 };
    let transaction = |rows: &[u64], outcome| Transaction {
        rows: rows.iter().map(|serial| row(*serial)).collect(),
        outcome,
    };
    let journal = Journal {
        transactions: vec![
            transaction(&[3, 4], Outcome::Committed),
            transaction(&[1], Outcome::Committed),
            transaction(&[2], Outcome::RolledBack),
        ],
        destinations: 1,
        next_serial: 5,
    };
    let judged = |arrivals: &[u64]| {
        let arrivals = BTreeMap::from([(0, arrivals.to_vec())]);
        journal.judge(&arrivals, true).ok()
    };
    assert_eq!(judged(&[1, 3, 4]), Some(vec![]));
    assert_eq!(judged(&[1, 3, 1, 3, 4]), Some(vec![1, 3]));
    assert_eq!(judged(&[3, 1, 4]), None);
    assert_eq!(judged(&[1, 3]), None);
    assert_eq!(judged(&[1, 2, 3, 4]), None);
    assert_eq!(judged(&[]), None);
    let sent = |serials: &[u64]| journal.judge_sendings(serials.iter().copied());
    assert_eq!(sent(&[1, 3, 1, 3, 4]), Ok(()));
    assert!(sent(&[3, 1, 4]).is_err());
    assert!(sent(&[1, 2]).is_err());
}
