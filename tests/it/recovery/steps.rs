//! A first start that is killed between each two of its steps, while applications write.

use std::collections::BTreeSet;

use walpost_testkit::{ScriptedBroker, until};

use super::hold::{Cut, Hold};
use super::writers::{Writers, judge};
use super::{fill, schema_only, state};
use crate::rig::LONG;
use crate::scene::{await_all_confirmed, database, numbers, publish_each, relay};

const CUTS: [Cut; 2] = [Cut::RolledBack, Cut::Committed];

#[tokio::test(flavor = "multi_thread")]
async fn cut_short_while_schema_and_publication_are_made_the_next_start_goes_on() {
    let (database, broker) = (database(), ScriptedBroker::start());
    let settings = relay(&database, &broker.address());
    let hold = Hold::new(&database).await;
    for step in ["CREATE SCHEMA", "CREATE TABLE", "CREATE PUBLICATION"] {
        for cut in CUTS {
            // What is made is made in one transaction: the schema is there after the first.
            if step == "CREATE TABLE" && cut == Cut::RolledBack {
                database.sql("DROP SCHEMA walpost CASCADE");
            }
            hold.at(step).await;
            hold.cut(settings.start(), cut).await;
        }
    }
    hold.nowhere().await;
    let mut walpost = settings.start();
    walpost.await_ready(LONG);
    publish_each(&database, "/queue/q", 1, 3);
    broker.wait_for_sends(3, LONG);
    assert_eq!(numbers(&broker.messages()), [1, 2, 3]);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_each_step_of_the_first_start_under_load_nothing_is_missing() {
    let (database, broker) = (schema_only(), ScriptedBroker::start());
    let settings = relay(&database, &broker.address());
    fill(&database, 1, 2_500);
    let hold = Hold::new(&database).await;
    hold.relay().await;
    let writers = Writers::start(&database, 3).await;
    let insert =
        |key| format!("INSERT INTO walpost.outbox (destination, key) VALUES ('/queue/q', '{key}')");
    // Open before the slot: one that has written already, and one that has not.
    let (early, late) = (database.client().await, database.client().await);
    early.batch_execute(&format!("BEGIN; SAVEPOINT a; {}", insert("early"))).await.unwrap();
    late.batch_execute("BEGIN; SELECT 1").await.unwrap();

    for cut in CUTS {
        hold.at("row").await;
        hold.cut(settings.start(), cut).await;
    }
    assert_eq!(state(&database), "creating");
    let mut walpost = settings.start();
    let _ = walpost.wait_for_log("waiting for transactions", LONG);
    walpost.kill();
    for cut in CUTS {
        hold.at("made").await;
        let walpost = settings.start();
        if cut == Cut::RolledBack {
            let _ = walpost.wait_for_log("waiting for transactions", LONG);
            early.batch_execute(&format!("{}; COMMIT", insert("early"))).await.unwrap();
        }
        hold.cut(walpost, cut).await;
    }
    assert_eq!(state(&database), "recovering");
    for cut in CUTS {
        hold.at("taken").await;
        hold.cut(settings.start(), cut).await;
    }
    assert_eq!(broker.sends(), 0, "nothing was to be sent yet");

    // A chunk that is done, and not kept, comes again; one that is kept does not.
    let mut again = BTreeSet::new();
    for cut in [Cut::RolledBack, Cut::Committed, Cut::RolledBack, Cut::Committed] {
        let before = broker.messages().len();
        hold.at("chunk").await;
        hold.cut(settings.start(), cut).await;
        if cut == Cut::RolledBack {
            let sent = broker.messages().split_off(before);
            again.extend(sent.iter().map(|frame| frame.header("msg-id").unwrap().to_owned()));
        }
    }
    late.batch_execute(&format!("{}; COMMIT", insert("late"))).await.unwrap();
    for cut in CUTS {
        hold.at("done").await;
        hold.cut(settings.start(), cut).await;
    }
    assert_eq!(state(&database), "streaming");
    hold.nowhere().await;
    let mut walpost = settings.start();
    until(LONG, "it streams", || walpost.status()["phase"] == "streaming");
    println!("{} transactions of the writers", writers.stop().await);
    await_all_confirmed(&database);
    let repeated: BTreeSet<String> = judge(&database, &broker.messages()).into_iter().collect();
    assert!(!again.is_empty());
    assert!(repeated == again, "{} repeated, {} expected", repeated.len(), again.len());
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
}
