//! Reads the load's queues, and holds each message against the row that it must be.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use walpost_testkit::{Ack, Consumer, Message, until};

use super::model::{body_of, destination_of, serial_of};
use super::target::Target;

type Arrivals = Arc<Mutex<BTreeMap<usize, Vec<u64>>>>;

/// A consumer of all destinations of a load.
pub struct Reader {
    _consumer: Consumer,
    arrivals: Arrivals,
    broken: Arc<Mutex<Vec<String>>>,
}

impl Reader {
    pub fn start(broker: &Target<'_>, destinations: usize) -> Self {
        let arrivals = Arrivals::default();
        let broken = Arc::<Mutex<Vec<String>>>::default();
        let (into, complaints) = (Arc::clone(&arrivals), Arc::clone(&broken));
        let each = move |message: Message| match check(&message) {
            Ok((destination, serial)) => {
                into.lock().unwrap().entry(destination).or_default().push(serial);
            }
            Err(complaint) => complaints.lock().unwrap().push(complaint),
        };
        let consumer = broker.consumer(destinations).ack(Ack::Auto).each(each).start();
        Reader { _consumer: consumer, arrivals, broken }
    }

    /// Waits until so many rows have come, however often.
    #[track_caller]
    pub fn await_rows(&self, rows: usize, timeout: Duration) {
        until(timeout, &format!("{rows} rows arrive"), || {
            let arrivals = self.arrivals.lock().unwrap();
            let distinct: HashSet<u64> = arrivals.values().flatten().copied().collect();
            distinct.len() >= rows
        });
    }

    /// Waits until each destination's last message has come, and gives the serials of each
    /// destination as they came.
    #[track_caller]
    pub fn finish(self, last: &[(usize, u64)], timeout: Duration) -> BTreeMap<usize, Vec<u64>> {
        until(timeout, "the last message of each destination arrives", || {
            let arrivals = self.arrivals.lock().unwrap();
            last.iter().all(|(destination, serial)| {
                arrivals.get(destination).is_some_and(|serials| serials.contains(serial))
            })
        });
        let broken = self.broken.lock().unwrap();
        assert!(
            broken.is_empty(),
            "{} messages are not as their rows: {}",
            broken.len(),
            broken[0]
        );
        std::mem::take(&mut self.arrivals.lock().unwrap())
    }
}

/// The destination and serial of a message that is as its row was.
fn check(message: &Message) -> Result<(usize, u64), String> {
    let id = message.header("msg-id").ok_or_else(|| format!("no msg-id: {message:?}"))?;
    let serial = serial_of(id);
    let sent_to = message.header("msg-destination").unwrap_or_default();
    let destination = sent_to
        .strip_suffix(".v1")
        .and_then(|sent_to| (0..64).find(|number| destination_of(*number) == sent_to))
        .ok_or_else(|| format!("unknown destination: {message:?}"))?;
    if message.text() != body_of(serial) {
        return Err(format!("another body than row {serial}'s: {message:?}"));
    }
    Ok((destination, serial))
}
