//! The recipe of docs/operations.md, 'Giving up a row', as it stands there: one row is given up, and every other comes.

use std::collections::BTreeMap;

use walpost_testkit::walpost::{Builder, Finished};
use walpost_testkit::{Receipts, ScriptedBroker, until};

use crate::rig::LONG;
use crate::scene::{await_all_confirmed, database, number, relay};

/// The SQL of the recipe, its steps apart.
fn recipe() -> Vec<&'static str> {
    let paper = include_str!("../../docs/operations.md");
    let section = paper.split_once("\n### Giving up a row\n").unwrap().1;
    let section = section.split("\n### ").next().unwrap();
    section.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// How often each number came, and with which ids.
fn seen(broker: &ScriptedBroker) -> BTreeMap<u64, Vec<String>> {
    let mut seen = BTreeMap::<_, Vec<String>>::new();
    for message in broker.messages() {
        let n = number(&message.body).unwrap();
        seen.entry(n).or_default().push(message.header("msg-id").unwrap().to_owned());
    }
    seen
}

#[test]
fn one_row_is_given_up_with_others_in_flight() {
    let database = database();
    let silent = ScriptedBroker::builder().receipts(Receipts::Never).start();
    let settings = |broker: &ScriptedBroker| -> Builder {
        relay(&database, &broker.address())
            .set("broker.max_frame_size", "2KiB")
            .set("shutdown_timeout", "300ms")
    };
    let mut walpost = settings(&silent).start();
    walpost.await_ready(LONG);
    let row =
        |n: u32| format!("SELECT walpost.publish('/queue/q', jsonb_build_object('n', {n}), NULL)");
    let bad = "SELECT walpost.publish('/queue/q', jsonb_build_object('n', 4, 'pad', repeat('x', 3000)), NULL)";
    database.sql(&format!("{}; {}", row(1), row(2)));
    let good: Vec<_> = [3, 5, 6].into_iter().map(row).collect();
    database.sql(&format!("BEGIN; {}; {bad}; {}; COMMIT", good[0], good[1]));
    database.sql(&good[2]);
    let Finished { status, stderr, .. } = walpost.finish(LONG);
    assert_eq!(status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("unreceipted=3"), "{stderr}");
    assert_eq!(seen(&silent).into_keys().collect::<Vec<_>>(), [1, 2, 3]);

    let line = stderr.lines().find(|line| line.starts_with("error: ")).unwrap();
    let (_, rest) = line.split_once("(at LSN ").unwrap();
    let commit = rest.split_once(", committed at LSN ").unwrap().1.split(')').next().unwrap();
    let id = line.split_once("the row '").unwrap().1.split('\'').next().unwrap();
    let filled = |sql: &str| {
        sql.replace("COMMIT_LSN", commit)
            .replace("ROW_ID", id)
            .replace("('walpost',", &format!("('{}',", database.name()))
    };
    let steps = recipe();
    assert_eq!(steps.len(), 3);
    until(LONG, "the slot is free", || {
        let active = "SELECT active FROM pg_replication_slots WHERE slot_name =";
        database.sql(&format!("{active} '{}'", database.name())) == "f"
    });
    database.sql(&filled(steps[0]));
    let listed = "SELECT string_agg(body->>'n', ' ' ORDER BY body->>'n') FROM given_up";
    assert_eq!(database.sql(listed), "1 2 3 4 5");
    database.sql(&filled(steps[1]));
    database.sql(&filled(steps[2]));

    let broker = ScriptedBroker::start();
    let mut walpost = settings(&broker).start();
    walpost.await_ready(LONG);
    await_all_confirmed(&database);
    let (before, after) = (seen(&silent), seen(&broker));
    assert_eq!(after.keys().copied().collect::<Vec<_>>(), [1, 2, 3, 5, 6]);
    for n in 1..=3 {
        assert_eq!(after[&n], before[&n], "the same msg-id as before");
    }
    assert!(walpost.terminate(LONG).success());
}
