//! Tables that were rewritten: was one unlogged meanwhile? What was written to it then is in no WAL.

use walpost_testkit::{ScriptedBroker, until};

use super::{EVENTS, delivered, events_delivered, insert, of_events, recovering, stops};
use crate::rig::LONG;
use crate::scene::{await_all_confirmed, database, numbers, publish_each, relay};

/// Where a publication is of all tables there is no entry that would tell, and PostgreSQL lets a table be unlogged.
#[test]
fn a_table_of_a_publication_of_all_tables_that_is_another_one_or_was_unlogged() {
    for (change, told) in [
        (format!("DROP TABLE events; CREATE TABLE events ({EVENTS})"), true),
        ("ALTER TABLE events SET UNLOGGED".to_owned(), false),
    ] {
        let (database, broker) = (database(), ScriptedBroker::start());
        database.sql(&format!(
            "CREATE TABLE events ({EVENTS});
             CREATE PUBLICATION walpost FOR ALL TABLES
                WITH (publish = 'insert', publish_via_partition_root = true)"
        ));
        let relay = of_events(&database, &broker, "public.events");
        let mut walpost = events_delivered(&database, &broker, &relay);
        assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
        database.sql(&change);
        insert(&database, "events", 4, 6);
        let mut walpost = if told {
            let words = "table public.events is another one than before";
            stops(relay.start(), &[words, "'walpost run --recover'"]);
            recovering(&relay)
        } else {
            // The rows never were in the WAL.
            database.sql("ALTER TABLE events SET LOGGED");
            let walpost = relay.start();
            walpost.wait_for_log("table public.events was rewritten", LONG);
            walpost
        };
        until(LONG, "every row", || {
            let arrived = numbers(&broker.messages());
            (1..=6).all(|n| arrived.contains(&n))
        });
        assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    }
}

/// A table that the publication names can't have been unlogged, and is rewritten in good order.
#[test]
fn a_table_that_is_rewritten_costs_no_repeats() {
    let (database, broker) = (database(), ScriptedBroker::start());
    let relay = relay(&database, &broker.address());
    let mut walpost = delivered(&database, &broker, &relay);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    database.sql("VACUUM FULL walpost.outbox");
    let mut walpost = relay.start();
    publish_each(&database, "/queue/q", 4, 4);
    broker.wait_for_sends(4, LONG);
    await_all_confirmed(&database);
    assert_eq!(numbers(&broker.messages()), [1, 2, 3, 4]);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    assert!(!walpost.log().contains("was rewritten"), "{}", walpost.log());
}

/// A slot brings nothing of what was written meanwhile, and PostgreSQL lets a partition be unlogged.
#[test]
fn a_partition_that_is_unlogged_for_a_moment() {
    let moment = [
        "ALTER TABLE events_0 SET UNLOGGED",
        "INSERT INTO events (id, body) SELECT n, jsonb_build_object('n', n) FROM generate_series(4, 9) n",
        "ALTER TABLE events_0 SET LOGGED",
    ];
    for running in [true, false] {
        let (database, broker) = (database(), ScriptedBroker::start());
        database.sql(&format!(
            "CREATE TABLE events ({EVENTS}) PARTITION BY RANGE (id);
             CREATE TABLE events_0 PARTITION OF events FOR VALUES FROM (0) TO (1000);
             CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (1000) TO (9000)"
        ));
        let relay = of_events(&database, &broker, "public.events");
        let mut walpost = events_delivered(&database, &broker, &relay);
        let mut expected: Vec<u64> = (1..=9).collect();
        if running {
            // In one transaction, so that nobody sees it unlogged; others insert before and after.
            std::thread::scope(|scope| {
                let load = scope.spawn(|| {
                    database.sql(
                        "DO $$ BEGIN FOR i IN 1..3000 LOOP
                           INSERT INTO events (id, body) SELECT n, jsonb_build_object('n', n)
                               FROM unnest(ARRAY[1000 + i, CASE WHEN i <= 900 THEN 99 + i END]) n
                               WHERE n IS NOT NULL;
                           COMMIT;
                         END LOOP; END $$",
                    );
                });
                until(LONG, "load", || database.sql("SELECT count(*) > 20 FROM events") == "t");
                database.sql(&format!("BEGIN; {}; COMMIT", moment.join("; ")));
                load.join().unwrap();
            });
            expected.extend((100..=999).chain(1001..=4000));
        } else {
            assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
            let _ = moment.map(|sql| database.sql(sql));
            walpost = relay.start();
        }
        let _ = walpost.wait_for_log("again: table public.events was rewritten", LONG);
        until(LONG, "every row", || {
            let mut arrived = numbers(&broker.messages());
            arrived.sort_unstable();
            arrived.dedup();
            arrived == expected
        });
        assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    }
}
