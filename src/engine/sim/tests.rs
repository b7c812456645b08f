//! The sound engine under every schedule.

use super::tally::Tally;
use super::{Rules, run, story};

/// Schedules in an ordinary test run.
const SEEDS: u64 = 50_000;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

#[test]
fn every_schedule_keeps_the_promise() {
    if let Some(seed) = number("SEED") {
        assert!(
            run(seed, None, Rules::All).is_ok(),
            "\n{}",
            story(seed, None, Rules::All, usize::MAX)
        );
        return;
    }
    for seed in number("FROM").unwrap_or(0)..number("SEEDS").unwrap_or(SEEDS) {
        if run(seed, None, Rules::All).is_err() {
            panic!("\n{}", story(seed, None, Rules::All, 80));
        }
    }
}

#[test]
fn a_seed_is_a_schedule() {
    for seed in 0..50 {
        let [first, second] = [(); 2].map(|()| story(seed, None, Rules::All, usize::MAX));
        assert_eq!(first, second);
    }
}

/// A simulator in which nothing happens would also find nothing.
#[test]
fn all_kinds_of_trouble_come() {
    let mut all = Tally::default();
    for seed in 0..2_000 {
        let tally = run(seed, None, Rules::All)
            .unwrap_or_else(|_| panic!("\n{}", story(seed, None, Rules::All, 80)));
        all.add(&tally);
    }
    let Tally {
        accepted,
        known,
        full,
        receipts,
        garbage,
        probes,
        closes,
        refusals,
        halts,
        closed,
        tried,
        opened,
        broken_off,
        failovers,
        kills,
        recovered,
        recoveries,
        slots_lost,
        guarded,
        awaited,
        certified,
        deleted,
        large,
        resumed,
        thawed,
        refused_writes,
        marked,
        marks_again,
        marks_found,
        marks_refused,
        marks_unanswered,
        marks_forgotten,
        parked,
        kept,
        condemned,
        sent_again,
        jobs_failed,
        full_up,
    } = all;
    for (what, times) in [
        ("accepted", accepted / 10),
        ("known", known / 3),
        ("full", full / 3),
        ("receipts", receipts / 10),
        ("garbage", garbage),
        ("probes", probes),
        ("closes", closes),
        ("refusals", refusals),
        ("halts", halts * 8),
        ("closed", closed),
        ("tried", tried),
        ("opened", opened),
        ("broken off", broken_off),
        ("failovers", failovers),
        ("kills", kills),
        ("recovered", recovered / 10),
        ("recoveries", recoveries),
        ("slots lost", slots_lost),
        ("guard", guarded),
        ("awaited", awaited),
        ("certified", certified),
        ("deleted", deleted),
        ("large", large),
        ("resumed", resumed),
        ("thawed", thawed * 3),
        ("refused writes", refused_writes * 10),
        ("marked", marked),
        ("marks again", marks_again * 2),
        ("marks found", marks_found),
        ("marks refused", marks_refused),
        ("marks unanswered", marks_unanswered),
        ("marks forgotten", marks_forgotten),
        ("parked", parked),
        ("kept", kept),
        ("condemned", condemned * 3),
        ("sent again", sent_again),
        ("jobs failed", jobs_failed),
        ("full up", full_up),
    ] {
        assert!(times >= 50, "{what}: too few in {all:?}");
    }
}
