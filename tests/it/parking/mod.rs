//! Parking: a destination that the broker refuses keeps its messages in `walpost.undelivered`, and all of them
//! arrive in their order once it takes them, whatever is killed meanwhile.

mod flood;
mod limits;
mod steps;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use walpost_testkit::postgres::Database;
use walpost_testkit::walpost::Builder;
use walpost_testkit::{ScriptedBroker, Verdict, until};

use crate::rig::LONG;
use crate::scene::{database, number, relay};

/// A broker that refuses what goes to `/queue/bad.v1` while it is told to.
struct Stage {
    database: Database<'static>,
    broker: ScriptedBroker,
    refuses: Arc<AtomicBool>,
    stored: Arc<Mutex<Vec<(String, u64)>>>,
}

impl Stage {
    fn new() -> Self {
        let refuses = Arc::new(AtomicBool::new(true));
        let stored: Arc<Mutex<Vec<(String, u64)>>> = Arc::default();
        let (refused, store) = (Arc::clone(&refuses), Arc::clone(&stored));
        let broker = ScriptedBroker::builder()
            .on_frame(move |frame, reply| {
                let Some(n) = number(&frame.body) else { return Verdict::Default };
                let destination = frame.header("destination").unwrap_or_default().to_owned();
                if destination == "/queue/bad.v1" && refused.load(Ordering::SeqCst) {
                    reply.error("no", "not now", frame.header("receipt"));
                    reply.close();
                    return Verdict::Taken;
                }
                store.lock().unwrap().push((destination, n));
                Verdict::Default
            })
            .start();
        Stage { database: database(), broker, refuses, stored }
    }

    fn walpost(&self) -> Builder {
        relay(&self.database, &self.broker.address())
            .set("broker.reconnect.initial", "10ms")
            .set("retry.first_wait", "30ms")
            .set("retry.pause", "200ms")
            .set("retry.wait", "200ms")
            .set("retry.max_attempts", "100000")
    }

    /// Rows `from` to `to`, every third to the bad destination, in transactions of ten.
    fn publish(&self, from: u64, to: u64) {
        self.database.sql(&format!(
            "DO $$ BEGIN FOR i IN {from}..{to} LOOP
               PERFORM walpost.publish(CASE WHEN i % 3 = 0 THEN '/queue/bad' ELSE '/queue/good' END,
                   jsonb_build_object('n', i));
               IF i % 10 = 0 THEN COMMIT; END IF;
             END LOOP; END $$"
        ));
    }

    fn mend(&self) {
        self.refuses.store(false, Ordering::SeqCst);
    }

    /// What went to a destination, each for the first time.
    fn firsts(&self, destination: &str) -> Vec<u64> {
        let stored = self.stored.lock().unwrap();
        let mut seen = BTreeSet::new();
        let its = stored.iter().filter(|(of, _)| of == destination).map(|(_, n)| *n);
        its.filter(|n| seen.insert(*n)).collect()
    }

    fn kept(&self, state: &str) -> u64 {
        let sql = format!("SELECT count(*) FROM walpost.undelivered WHERE state = '{state}'");
        self.database.sql(&sql).parse().unwrap()
    }

    fn await_kept(&self, state: &str, rows: u64) {
        until(LONG, &format!("{rows} messages are {state}"), || self.kept(state) == rows);
    }

    /// Waits until everything up to `last` has arrived; each destination in its order.
    #[track_caller]
    fn await_all_in_order(&self, last: u64) {
        let wanted = |bad: bool| (1..=last).filter(|n| (n % 3 == 0) == bad).collect::<Vec<_>>();
        until(LONG, "all have arrived", || {
            self.firsts("/queue/bad.v1").len() == wanted(true).len()
                && self.firsts("/queue/good.v1").len() == wanted(false).len()
        });
        assert_eq!(self.firsts("/queue/good.v1"), wanted(false));
        assert_eq!(self.firsts("/queue/bad.v1"), wanted(true));
    }
}
