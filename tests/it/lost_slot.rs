//! The slot and its row in `walpost.relay`: a slot that is lost is never made anew unseen, and a first
//! start that was cut short, wherever, is taken up without loss.

use walpost_testkit::postgres::Database;
use walpost_testkit::walpost::{Builder, Finished};
use walpost_testkit::{ScriptedBroker, until};

use crate::init;
use crate::rig::LONG;
use crate::scene::{await_all_confirmed, database, numbers, publish_each, relay};

/// The one line with which a walpost ends that needs an operator.
#[track_caller]
pub fn refused(finished: &Finished, status: i32) -> &str {
    assert_eq!(finished.status.code(), Some(status), "{finished:?}");
    let mut errors = finished.stderr.lines().filter(|line| line.starts_with("error: "));
    let error = errors.next().unwrap_or_else(|| panic!("{finished:?}"));
    assert_eq!(errors.next(), None, "{finished:?}");
    error
}

/// That the slot is lost is said with the gap and both ways on.
#[track_caller]
fn names_the_gap(database: &Database<'_>, error: &str) {
    let name = database.name();
    for part in [
        &format!("slot {name} does not exist any more: it was confirmed up to "),
        " at least, the WAL ends at ",
        " bytes on; what was committed since ",
        " ago) may not be published. ",
        "Either publish those rows out of the table: 'walpost run --recover' (docs/operations.md, ",
        &format!("DELETE FROM walpost.relay WHERE slot = '{name}', then walpost init with outbox"),
    ] {
        assert!(error.contains(part), "{part} is not in {error}");
    }
}

fn drop_slot(database: &Database<'_>) {
    database.sql(&format!("SELECT pg_drop_replication_slot('{}')", database.name()));
}

fn row(database: &Database<'_>) -> String {
    database.sql("SELECT state || ' ' || epoch FROM walpost.relay")
}

fn init_of(relay: &Builder) -> Builder {
    relay.clone().arguments(["init"])
}

#[test]
fn a_slot_that_was_dropped_is_not_made_anew_until_the_gap_is_accepted() {
    let (database, broker) = (database(), ScriptedBroker::start());
    let relay = relay(&database, &broker.address());
    let mut walpost = relay.start();
    walpost.await_ready(LONG);
    publish_each(&database, "/queue/q", 1, 3);
    broker.wait_for_sends(3, LONG);
    await_all_confirmed(&database);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    publish_each(&database, "/queue/q", 4, 6);
    drop_slot(&database);

    names_the_gap(&database, refused(&relay.output(LONG), 3));
    names_the_gap(&database, refused(&init_of(&relay).output(LONG), 1));
    // Also where the publication went with it.
    database.sql("DROP PUBLICATION walpost");
    names_the_gap(&database, refused(&relay.output(LONG), 3));
    assert_eq!(database.sql("SELECT count(*) FROM pg_publication"), "0", "nothing was made");

    // The one way on: the gap is accepted.
    database.sql(&format!("DELETE FROM walpost.relay WHERE slot = '{}'", database.name()));
    let accepting = relay.clone().set("outbox.backfill", false);
    let init = init_of(&accepting).output(LONG);
    assert!(init.stdout.contains("created slot "), "{init:?}");
    let mut walpost = relay.start();
    walpost.await_ready(LONG);
    publish_each(&database, "/queue/q", 7, 7);
    broker.wait_for_sends(4, LONG);
    assert_eq!(numbers(&broker.messages()), [1, 2, 3, 7]);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
}

#[test]
fn a_slot_that_goes_missing_while_walpost_runs_is_told_with_its_gap() {
    let (database, broker) = (database(), ScriptedBroker::start());
    let mut walpost = relay(&database, &broker.address()).start();
    walpost.await_ready(LONG);
    walpost.freeze();
    database.sql(&format!(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{}'",
        database.name()
    ));
    let slot = "SELECT active FROM pg_replication_slots WHERE slot_name = ";
    until(LONG, "the slot is free", || {
        database.sql(&format!("{slot}'{}'", database.name())) == "f"
    });
    drop_slot(&database);
    walpost.thaw();
    let finished = walpost.finish(LONG);
    names_the_gap(&database, refused(&finished, 3));
}

#[test]
fn a_first_start_goes_on_from_wherever_it_was_cut_short() {
    let drop_row = "DELETE FROM walpost.relay";
    let creating = "UPDATE walpost.relay SET state = 'creating'";
    // What is taken away from a finished one: nothing, the slot, both, the publication, too.
    for (cut, notes) in [(0, 0), (1, 0), (2, 0), (3, 0), (4, 1)] {
        let (database, broker) = (database(), ScriptedBroker::start());
        let _ = init::init(&database);
        if cut < 4 {
            database.sql(creating);
        }
        if (1..4).contains(&cut) {
            drop_slot(&database);
        }
        if cut >= 2 {
            database.sql(drop_row);
        }
        if cut == 3 {
            database.sql("DROP PUBLICATION walpost");
        }
        let slot_is_there = cut == 0 || cut == 4;
        if slot_is_there {
            publish_each(&database, "/queue/q", 1, 3);
        }
        let mut walpost = relay(&database, &broker.address()).start();
        walpost.await_ready(LONG);
        if !slot_is_there {
            publish_each(&database, "/queue/q", 1, 3);
        }
        // A slot that somebody else made brings rows that are published out of the table, too.
        let repeats = u64::from(cut == 4);
        let expected = if cut == 4 { vec![1, 2, 3, 1, 2, 3] } else { vec![1, 2, 3] };
        broker.wait_for_sends(3 + 3 * repeats, LONG);
        assert_eq!(numbers(&broker.messages()), expected, "cut {cut}");
        until(LONG, "what waited to be published", || row(&database) == "streaming 1");
        let by_hand = format!("slot {} was not made by walpost", database.name());
        assert_eq!(walpost.log().matches(&by_hand).count(), notes, "{}", walpost.log());
        assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    }
}

#[test]
fn a_row_of_another_cluster_or_database_is_left_to_an_operator() {
    let (database, broker) = (database(), ScriptedBroker::start());
    let relay = relay(&database, &broker.address());
    let _ = init::init(&database);
    for change in ["system_identifier = system_identifier - 1", "database_oid = 1"] {
        database.sql(&format!("UPDATE walpost.relay SET {change}"));
        let text = "is of another database (system identifier ";
        let run = relay.output(LONG);
        assert!(refused(&run, 3).contains(text), "{run:?}");
        let init = init_of(&relay).output(LONG);
        assert!(refused(&init, 1).contains(text), "{init:?}");
        assert!(refused(&init, 1).contains("'walpost init --adopt' takes it over"), "{init:?}");
    }
    // Rows that came with a dump: their transactions have ids that this server has not given yet.
    publish_each(&database, "/queue/q", 1, 2);
    database.sql("UPDATE walpost.outbox SET xid = '99999999999'");
    let adopt = relay.clone().arguments(["init", "--adopt"]).output(LONG);
    assert!(adopt.status.success(), "{adopt:?}");
    let said = "every row that is in the outbox now is published again";
    assert!(adopt.stdout.contains(said), "{adopt:?}");
    assert!(
        adopt.stdout.contains("changed rows of walpost.outbox with transaction ids"),
        "{adopt:?}"
    );
    assert_eq!(
        database.sql("SELECT bool_and(xid <= pg_current_xact_id()) FROM walpost.outbox"),
        "t"
    );
    let mut walpost = relay.start();
    walpost.await_ready(LONG);
    until(LONG, "the recovery to end", || row(&database).starts_with("streaming "));
    // Once out of the table, once from the slot, which was there.
    broker.wait_for_sends(4, LONG);
    assert_eq!(numbers(&broker.messages()), [1, 2, 1, 2]);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    // Nothing is taken over twice, and without a slot everything is published, too.
    let adopt = relay.clone().arguments(["init", "--adopt"]).output(LONG);
    assert!(adopt.status.success() && !adopt.stdout.contains(said), "{adopt:?}");
    drop_slot(&database);
    database.sql("UPDATE walpost.relay SET system_identifier = 1");
    assert!(relay.clone().arguments(["init", "--adopt"]).output(LONG).status.success());
    let mut walpost = relay.start();
    broker.wait_for_sends(6, LONG);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
}

/// `--recover` is said once: what is lost later is for an operator again.
#[test]
fn a_slot_that_is_lost_after_a_recovery_is_not_made_again_unasked() {
    let (database, broker) = (database(), ScriptedBroker::start());
    let relay = relay(&database, &broker.address());
    let mut walpost = relay.start();
    walpost.await_ready(LONG);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    drop_slot(&database);
    let mut walpost = relay.clone().arguments(["run", "--recover"]).start();
    walpost.await_ready(LONG);
    let _ = walpost.wait_for_log("the slot is read from now on", LONG);
    let name = database.name();
    until(LONG, "the slot to be dropped", || {
        let end = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots";
        database.sql(&format!("{end} WHERE slot_name = '{name}' AND active"));
        let drop = format!("SELECT pg_drop_replication_slot('{name}')");
        database.server().try_sql(name, &drop).is_ok()
    });
    assert!(refused(&walpost.finish(LONG), 3).contains("'walpost run --recover'"));
}

#[test]
fn another_timeline_is_said_and_each_session_raises_the_epoch() {
    let (database, broker) = (database(), ScriptedBroker::start());
    let _ = init::init(&database);
    // An older one than it was read on: a former primary.
    database.sql("UPDATE walpost.relay SET timeline = 7");
    let finished = relay(&database, &broker.address()).output(LONG);
    let error = refused(&finished, 3);
    assert!(error.contains("is on timeline 1, and walpost has read on timeline 7"), "{error}");

    database.sql("UPDATE walpost.relay SET timeline = 0");
    let mut walpost = relay(&database, &broker.address()).start();
    let line = walpost.wait_for_log("another timeline", LONG);
    assert!(line.contains("before=0 now=1"), "{line}");
    // What is not known to be delivered is published again, then the slot is read.
    until(LONG, "the recovery to end", || row(&database) == "streaming 1");
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    let mut again = relay(&database, &broker.address()).start();
    again.await_ready(LONG);
    assert_eq!(row(&database), "streaming 2");
    assert!(!again.log().contains("timeline"), "{}", again.log());
}

#[test]
fn the_role_of_the_dry_run_may_keep_the_row_and_a_missing_right_is_named() {
    let server = walpost_testkit::Postgres::builder().fast().start();
    let broker = ScriptedBroker::start();
    let url = |role: &str| format!("postgresql://{role}@127.0.0.1:{}/postgres", server.port());
    let relay = |role: &str| {
        crate::rig::walpost()
            .set("postgres.url", url(role))
            .set("broker.hosts", broker.address())
            .set("replication.create", false)
    };
    let script = init_of(&relay("postgres")).arguments(["init", "--dry-run"]).output(LONG);
    init::psql(&server, "postgres", &script.stdout);
    let mut walpost = relay("walpost").start();
    walpost.await_ready(LONG);
    server.sql("postgres", "SELECT walpost.publish('/queue/a', '1')");
    broker.wait_for_sends(1, LONG);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
    for right in ["SELECT", "UPDATE"] {
        server.sql("postgres", &format!("REVOKE {right} ON walpost.relay FROM walpost"));
        let run = relay("walpost").output(LONG);
        let error = refused(&run, 3);
        assert!(error.contains("permission denied for table relay"), "{error}");
        assert!(error.contains("'walpost init --dry-run' prints the lines"), "{error}");
        server.sql("postgres", &format!("GRANT {right} ON walpost.relay TO walpost"));
    }
}
