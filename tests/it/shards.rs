//! Several relays on one table, each with its share of the ordering keys.

mod filters;

use std::collections::{BTreeMap, BTreeSet};

use walpost::outbox::Shard;
use walpost_testkit::postgres::Database;
use walpost_testkit::walpost::Builder;
use walpost_testkit::{ScriptedBroker, Walpost, until};

use crate::lost_slot::refused;
use crate::retention;
use crate::rig::LONG;
use crate::scene::{await_all_confirmed, database, numbers, publish_each, relay};

/// The relay of one shard of two. Slot and publication have the names of database and shard.
fn shard(database: &Database<'_>, broker: &ScriptedBroker, index: u32) -> Builder {
    named(relay(database, &broker.address()), &of(database, index), index)
}

fn of(database: &Database<'_>, index: u32) -> String {
    format!("{}_{index}", database.name())
}

fn named(relay: Builder, name: &str, index: u32) -> Builder {
    relay
        .set("replication.slot", name)
        .set("replication.publication", name)
        .set("replication.shard.index", index)
        .set("replication.shard.count", 2)
}

fn init_of(relay: &Builder) -> Builder {
    relay.clone().arguments(["init"])
}

#[track_caller]
fn done(init: &Builder) -> String {
    let finished = init.output(LONG);
    assert!(finished.status.success(), "{finished:?}");
    finished.stdout
}

/// Before PostgreSQL 15 there are no shards; what walpost says then.
fn is_too_old(database: &Database<'_>) -> bool {
    let old = database.sql("SELECT current_setting('server_version_num')::int < 150000") == "t";
    if old {
        let init = init_of(&shard(database, &ScriptedBroker::start(), 0)).output(LONG);
        let words = "replication.shard.count over 1 needs row filters";
        assert!(refused(&init, 1).contains(words), "{init:?}");
    }
    old
}

/// Two brokers, so that it shows which relay has sent what.
struct Pair {
    database: Database<'static>,
    brokers: [ScriptedBroker; 2],
}

impl Pair {
    fn new() -> Pair {
        Pair { database: database(), brokers: [ScriptedBroker::start(), ScriptedBroker::start()] }
    }

    fn relay(&self, index: u32) -> Builder {
        shard(&self.database, &self.brokers[index as usize], index)
    }

    fn start(&self) -> [Walpost; 2] {
        let mut both = [self.relay(0).start(), self.relay(1).start()];
        both.iter_mut().for_each(|relay| relay.await_ready(LONG));
        both
    }

    /// The numbers that each relay has sent, in order.
    fn sent(&self) -> [Vec<u64>; 2] {
        self.brokers.each_ref().map(|broker| numbers(&broker.messages()))
    }

    #[track_caller]
    fn wait_for(&self, count: u64) {
        let sends = || self.brokers.iter().map(ScriptedBroker::sends).sum::<u64>();
        until(LONG, &format!("{count} SENDs of both, {} were read", sends()), || sends() >= count);
    }
}

/// Rows with keys of every kind, numbered from `from` to `to`, some a transaction.
fn insert(database: &Database<'_>, from: u64, to: u64) {
    database.sql(&format!(
        "DO $$ BEGIN FOR i IN {from}..{to} LOOP
           INSERT INTO walpost.outbox (destination, version, key, body) VALUES (
             '/queue/' || i % 7, CASE i % 2 WHEN 0 THEN 'v1' END,
             CASE i % 5 WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2 THEN 'customer ' || i % 40
               WHEN 3 THEN 'Größe 東京 🚀 ' || i % 30 ELSE repeat('long ', 200) || i % 20 END,
             jsonb_build_object('n', i));
           IF i % 3 = 0 THEN COMMIT; END IF;
         END LOOP; END $$"
    ));
}

/// Of each row its shard, whether its hash is negative, and what it keeps its order with: as SQL has it.
fn owners(database: &Database<'_>) -> BTreeMap<u64, (usize, bool, String)> {
    let rows = database.sql(
        "SELECT body->>'n', (hash & 2147483647) % 2, hash < 0, concat(destination, '.', version, ' ', nullif(key, ''))
         FROM walpost.outbox, hashtext(coalesce(nullif(key, ''), destination)) AS hash",
    );
    let rows = rows.lines().map(|line| {
        let mut fields = line.splitn(4, '|');
        let mut next = || fields.next().unwrap();
        let (n, owner, negative) = (next(), next(), next());
        (n.parse().unwrap(), (owner.parse().unwrap(), negative == "t", next().to_owned()))
    });
    rows.collect()
}

/// That each relay has sent its rows and no other, and those of a key in their order. Repeats are left
/// out: what was sent first counts.
#[track_caller]
fn each_at_one(pair: &Pair, count: usize) {
    let owners = owners(&pair.database);
    assert_eq!(owners.len(), count);
    let mut seen = BTreeSet::new();
    for (index, sent) in pair.sent().into_iter().enumerate() {
        assert!(sent.len() > count / 10, "relay {index} has {} only", sent.len());
        let mut last: BTreeMap<&str, u64> = BTreeMap::new();
        let (mut negative, mut mine) = (0, BTreeSet::new());
        for n in sent {
            let (owner, is_negative, order) = &owners[&n];
            assert_eq!(*owner, index, "{n} is not for relay {index}");
            if !mine.insert(n) {
                continue;
            }
            negative += usize::from(*is_negative);
            let before = last.insert(order, n);
            assert!(before < Some(n), "{n} after {before:?} of {order}");
        }
        assert!(negative > 0 && negative < mine.len(), "{negative} of {}", mine.len());
        seen.extend(mine);
    }
    assert_eq!(seen.len(), count, "all of them at one or the other");
}

#[test]
fn each_message_is_exactly_one_relays_in_the_order_of_its_key() {
    let pair = Pair::new();
    if is_too_old(&pair.database) {
        return;
    }
    let mut both = pair.start();
    insert(&pair.database, 1, 3000);
    pair.wait_for(3000);
    for index in 0..2 {
        confirmed(&pair.database, index);
    }
    assert_eq!(pair.sent().map(|sent| sent.len()).iter().sum::<usize>(), 3000);
    each_at_one(&pair, 3000);
    assert!(both.iter_mut().all(|relay| relay.terminate(LONG).success()));
}

/// Waits until everything that is committed is confirmed by a relay.
fn confirmed(database: &Database<'_>, index: u32) {
    let lsn = database.sql("SELECT pg_current_wal_insert_lsn()");
    until(LONG, "all is confirmed", || {
        let slot = of(database, index);
        let sql = "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = ";
        database.sql(&format!("SELECT ({sql}'{slot}') >= '{lsn}'::pg_lsn")) == "t"
    });
}

#[test]
fn a_relay_that_is_gone_holds_up_its_own_share_only() {
    let pair = Pair::new();
    if is_too_old(&pair.database) {
        return;
    }
    let [mut gone, mut other] = pair.start();
    insert(&pair.database, 1, 500);
    pair.wait_for(250);
    gone.kill();
    insert(&pair.database, 501, 1500);
    let share = |index| owners(&pair.database).values().filter(|row| row.0 == index).count() as u64;
    pair.brokers[1].wait_for_sends(share(1), LONG);
    confirmed(&pair.database, 1);
    assert_eq!(pair.brokers[1].sends(), share(1), "nothing of the other's");
    assert!(other.terminate(LONG).success(), "{}", other.log());

    let mut back = pair.relay(0).start();
    back.await_ready(LONG);
    confirmed(&pair.database, 0);
    each_at_one(&pair, 1500);
    assert!(back.terminate(LONG).success(), "{}", back.log());
}

#[test]
fn an_emitted_message_of_another_shard_is_skipped_and_counted() {
    let pair = Pair::new();
    if is_too_old(&pair.database) {
        return;
    }
    let [mut mine, mut other] = pair.start();
    let index = (0..9).find(|key| Shard { index: 1, count: 2 }.takes(Some(&key.to_string()), None));
    let key = index.unwrap();
    pair.database.sql(&format!("SELECT walpost.emit('/queue/q', '{{}}', key => '{key}')"));
    pair.brokers[1].wait_for_sends(1, LONG);
    confirmed(&pair.database, 1);
    assert!(other.terminate(LONG).success(), "{}", other.log());
    insert(&pair.database, 1, 60);
    let share = owners(&pair.database).values().filter(|row| row.0 == 0).count();
    assert!(share > 0);
    pair.brokers[0].wait_for_sends(share as u64, LONG);
    confirmed(&pair.database, 0);
    assert_eq!(mine.metric(r#"walpost_rows_skipped_total{reason="other_shard"}"#), 1.0);
    assert!(mine.terminate(LONG).success(), "{}", mine.log());
}

/// Of a row that is another's a relay knows that it has not passed over it, no more.
#[test]
fn clean_up_waits_for_both_relays() {
    let pair = Pair::new();
    if is_too_old(&pair.database) {
        return;
    }
    let ready = |index| {
        let mut relay = pair.relay(index).set("outbox.retention", "1s").start();
        relay.await_ready(LONG);
        relay
    };
    let rows = || pair.database.sql("SELECT count(*) FROM walpost.outbox");
    let (mut mine, mut other) = (ready(0), ready(1));
    insert(&pair.database, 1, 100);
    until(LONG, "both to have cleaned up", || rows() == "0");
    assert!(other.terminate(LONG).success(), "{}", other.log());
    insert(&pair.database, 101, 300);
    let line = mine.wait_for_log("rows that were delivered are not deleted before", LONG);
    assert!(line.contains(&of(&pair.database, 1)), "{line}");
    retention::await_turn(&pair.database, &of(&pair.database, 0));
    assert_eq!(rows(), "202");
    let mut other = ready(1);
    until(LONG, "both to have cleaned up", || rows() == "0");
    let sent: BTreeSet<u64> = pair.sent().concat().into_iter().collect();
    assert_eq!((sent.len(), pair.sent().concat().len()), (300, 300));
    for relay in [&mut mine, &mut other] {
        assert!(relay.terminate(LONG).success(), "{}", relay.log());
    }
}

/// The procedure of docs/operations.md, from one relay to two.
#[test]
fn one_relay_becomes_two_without_loss() {
    let pair = Pair::new();
    if is_too_old(&pair.database) {
        return;
    }
    let mut one = relay(&pair.database, &pair.brokers[0].address()).start();
    one.await_ready(LONG);
    publish_each(&pair.database, "/queue/q", 1, 20);
    pair.wait_for(20);
    await_all_confirmed(&pair.database);
    assert!(one.terminate(LONG).success(), "{}", one.log());
    let (slot, before) = (pair.database.name(), pair.brokers[0].sends());
    assert_eq!(before, 20);
    pair.database.sql(&format!(
        "SELECT pg_drop_replication_slot('{slot}'); DELETE FROM walpost.relay WHERE slot = '{slot}';
         DROP PUBLICATION walpost"
    ));
    for index in 0..2 {
        // What is in the table was published.
        let init = init_of(&pair.relay(index)).set("outbox.backfill", false);
        assert!(done(&init).contains("created slot "));
    }
    insert(&pair.database, 1001, 1300);
    let mut both = pair.start();
    pair.wait_for(before + 300);
    (0..2).for_each(|index| confirmed(&pair.database, index));
    let numbers: Vec<u64> = pair.sent().concat().into_iter().filter(|n| *n > 1000).collect();
    assert_eq!((numbers.len(), numbers.iter().collect::<BTreeSet<_>>().len()), (300, 300));
    assert_eq!(pair.sent().concat().len(), 320, "nothing was published again");
    assert!(both.iter_mut().all(|relay| relay.terminate(LONG).success()));
}
