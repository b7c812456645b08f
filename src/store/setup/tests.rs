mod shards;

use std::collections::BTreeMap;

use super::*;
use crate::config::Failover;
use crate::lsn::Lsn;
use crate::store::publication::{PublicationState, PublishedTable};
use crate::store::server::{Capacity, Server};
use crate::store::slot::SlotState;
use crate::store::table::TableState;

fn outbox() -> TableName {
    TableName::new("walpost", "outbox")
}

fn settings() -> SetupSettings {
    SetupSettings {
        slot: "walpost".to_owned(),
        publication: "walpost".to_owned(),
        tables: vec![outbox()],
        marks: Vec::new(),
        sharding: None,
        failover: Failover::Auto,
    }
}

fn a_table() -> TableState {
    TableState { oid: 16_400, is_table: true, partitioned: false, logged: true }
}

/// Everything there, everything fits.
fn fitting() -> Findings {
    Findings {
        server: Server {
            version: 150_008,
            system_identifier: 7,
            timeline: 1,
            in_recovery: false,
            database: "shop".to_owned(),
            database_oid: 5,
            wal_level: "logical".to_owned(),
        },
        capacity: Capacity { max_slots: 10, slots: 1, max_walsenders: 10, walsenders: 0 },
        schema: SchemaState::Version(schema::newest()),
        tables: vec![(outbox(), Some(a_table()))],
        key_columns: BTreeMap::new(),
        publication: Some(PublicationState {
            insert: true,
            update: false,
            delete: false,
            truncate: false,
            via_root: true,
            all_tables: false,
            tables: vec![PublishedTable { table: outbox(), row_filter: None, columns: None }],
        }),
        slot: Some(SlotState {
            plugin: Some("pgoutput".to_owned()),
            database: Some("shop".to_owned()),
            temporary: false,
            two_phase: false,
            failover: false,
            confirmed_flush_lsn: Some(Lsn(0x1000)),
            restart_lsn: Some(Lsn(0x800)),
            active: false,
            active_pid: None,
            wal_status: Some("reserved".to_owned()),
            safe_wal_size: None,
            retained_bytes: Some(1),
            invalidation_reason: None,
        }),
    }
}

/// The misfits of the fitting findings after a change.
fn misfits(change: impl FnOnce(&mut Findings)) -> Vec<Misfit> {
    let mut findings = fitting();
    change(&mut findings);
    judge(&findings, &settings()).1
}

/// The plan for the fitting findings after a change, which must be no misfit.
fn plan(change: impl FnOnce(&mut Findings)) -> Plan {
    let mut findings = fitting();
    change(&mut findings);
    let (plan, misfits) = judge(&findings, &settings());
    assert_eq!(misfits, [], "{plan:?}");
    plan
}

fn publication(findings: &mut Findings) -> &mut PublicationState {
    findings.publication.as_mut().unwrap()
}

fn slot(findings: &mut Findings) -> &mut SlotState {
    findings.slot.as_mut().unwrap()
}

fn name() -> String {
    "walpost".to_owned()
}

#[test]
fn what_fits_is_left_alone() {
    let plan = plan(|_| {});
    assert!(plan.is_done() && plan.notes.is_empty(), "{plan:?}");
}

#[test]
fn an_empty_database_gets_everything() {
    let plan = plan(|found| {
        found.schema = SchemaState::Version(0);
        found.tables = vec![(outbox(), None)];
        found.publication = None;
        found.slot = None;
    });
    assert_eq!(plan, Plan::from_nothing(&settings()));
}

#[test]
fn an_older_schema_is_upgraded_and_a_newer_one_kept() {
    assert_eq!(plan(|found| found.schema = SchemaState::Version(2)).upgrade_from, Some(2));
    let newer = plan(|found| found.schema = SchemaState::Version(99));
    assert_eq!((newer.upgrade_from, newer.notes.len()), (None, 1));
    let unreadable = plan(|found| found.schema = SchemaState::Unreadable);
    assert_eq!((unreadable.upgrade_from, unreadable.notes.len()), (None, 1));
}

#[test]
fn tables_whose_rows_would_not_arrive_are_named() {
    let with = |state| misfits(|found| found.tables[0].1 = state);
    assert_eq!(with(None), [Misfit::TableMissing(outbox(), "shop".to_owned())]);
    let view = TableState { is_table: false, ..a_table() };
    assert_eq!(with(Some(view)), [Misfit::NoTable(outbox())]);
    let unlogged = TableState { logged: false, ..a_table() };
    assert_eq!(with(Some(unlogged)), [Misfit::NotLogged(outbox())]);
    let foreign = misfits(|found| found.schema = SchemaState::Version(0));
    assert_eq!(foreign, [Misfit::ForeignOutbox(outbox())]);
}

#[test]
fn a_missing_table_is_added_to_the_publication() {
    let step = plan(|found| publication(found).tables.clear()).publication;
    assert_eq!(step, PublicationStep::Add(vec![PublishedTable::whole(outbox())]));
    let all = plan(|found| {
        publication(found).all_tables = true;
        publication(found).tables.push(PublishedTable {
            table: TableName::new("public", "other"),
            row_filter: None,
            columns: None,
        });
    });
    assert_eq!((all.publication, all.notes.len()), (PublicationStep::Nothing, 1));
}

#[test]
fn a_slot_older_than_its_publication_is_a_misfit() {
    let found = misfits(|found| found.publication = None);
    assert_eq!(found, [Misfit::PublicationMissing(name(), name())]);
}

#[test]
fn a_publication_that_would_lose_rows_is_a_misfit() {
    let no_inserts = misfits(|found| {
        publication(found).insert = false;
        publication(found).update = true;
    });
    assert_eq!(no_inserts, [Misfit::NoInserts(name(), "update, ".to_owned())]);
    let filter = misfits(|found| publication(found).tables[0].row_filter = Some("true".to_owned()));
    assert_eq!(filter, [Misfit::RowFilter(name(), outbox())]);
    let columns = misfits(|found| publication(found).tables[0].columns = Some(vec![]));
    assert_eq!(columns, [Misfit::ColumnList(name(), outbox())]);
    let by_partition = misfits(|found| {
        found.tables[0].1 = Some(TableState { partitioned: true, ..a_table() });
        publication(found).via_root = false;
        publication(found).tables.clear();
    });
    assert_eq!(by_partition, [Misfit::NotViaRoot(name(), outbox())]);
}

#[test]
fn a_slot_that_cannot_be_read_is_a_misfit() {
    let plugin = misfits(|found| slot(found).plugin = Some("wal2json".to_owned()));
    assert_eq!(plugin, [Misfit::SlotPlugin(name(), Some("wal2json".to_owned()))]);
    let database = misfits(|found| slot(found).database = Some("other".to_owned()));
    assert_eq!(database, [Misfit::SlotDatabase(name(), "other".to_owned())]);
    assert_eq!(misfits(|found| slot(found).temporary = true), [Misfit::SlotTemporary(name())]);
    assert_eq!(misfits(|found| slot(found).two_phase = true), [Misfit::SlotTwoPhase(name())]);
    let lost = misfits(|found| slot(found).wal_status = Some("lost".to_owned()));
    assert!(matches!(&lost[..], [Misfit::SlotLost(_, _, Lsn(0x1000))]), "{lost:?}");
}

#[test]
fn standbys_keep_a_copy_of_the_slot_where_they_can() {
    let judged = |version, wanted, there: Option<bool>| {
        let mut findings = fitting();
        findings.server.version = version;
        match there {
            Some(failover) => slot(&mut findings).failover = failover,
            None => findings.slot = None,
        }
        let settings = SetupSettings { failover: wanted, ..settings() };
        let (plan, misfits) = judge(&findings, &settings);
        (plan.failover, plan.make_failover, misfits)
    };
    use Failover::{Auto, False, True};
    assert_eq!(judged(169_999, Auto, None), (false, false, vec![]));
    assert_eq!(judged(169_999, Auto, Some(false)), (false, false, vec![]));
    assert_eq!(judged(160_004, True, None), (false, false, vec![Misfit::NoFailoverSlots(16)]));
    for wanted in [Auto, True] {
        assert_eq!(judged(170_000, wanted, None), (true, false, vec![]));
        assert_eq!(judged(170_000, wanted, Some(true)), (true, false, vec![]));
        assert_eq!(judged(170_000, wanted, Some(false)), (true, true, vec![]));
    }
    assert_eq!(judged(170_000, False, None), (false, false, vec![]));
    assert_eq!(judged(170_000, False, Some(false)), (false, false, vec![]));
}

#[test]
fn a_server_without_room_is_a_misfit() {
    let level = misfits(|found| found.server.wal_level = "replica".to_owned());
    assert_eq!(level, [Misfit::WalLevel("replica".to_owned())]);
    let full = |found: &mut Findings| found.capacity.slots = 10;
    assert_eq!(misfits(full), [], "the slot is there already");
    let no_slot = misfits(|found| {
        full(found);
        found.slot = None;
    });
    assert_eq!(no_slot, [Misfit::NoFreeSlot(10)]);
    let busy = |found: &mut Findings| found.capacity.walsenders = 10;
    assert_eq!(misfits(busy), [], "one may become free while the relay waits");
    let no_walsender = misfits(|found| {
        busy(found);
        found.slot = None;
    });
    assert_eq!(no_walsender, [Misfit::NoFreeWalsender(10)]);
}

#[test]
fn nobody_is_told_to_drop_a_slot_that_is_not_walposts() {
    let without_publication = |change: fn(&mut Findings)| {
        misfits(|found| {
            found.publication = None;
            change(found);
        })
    };
    let ours = without_publication(|_| {});
    assert!(matches!(ours[..], [Misfit::PublicationMissing(..)]), "{ours:?}");
    let elsewhere = without_publication(|found| slot(found).database = Some("other".to_owned()));
    assert!(matches!(elsewhere[..], [Misfit::SlotDatabase(..)]), "{elsewhere:?}");
    let physical = without_publication(|found| {
        (slot(found).plugin, slot(found).database) = (None, None);
    });
    assert!(matches!(physical[..], [Misfit::SlotPlugin(..)]), "{physical:?}");
}

#[test]
fn all_misfits_are_told_at_once_each_on_one_line() {
    let found = misfits(|found| {
        found.server.wal_level = "replica".to_owned();
        publication(found).insert = false;
        slot(found).plugin = None;
    });
    assert_eq!(found.len(), 3);
    let text = SetupError::Unfit(found).to_string();
    assert!(!text.contains('\n') && !text.contains("  "), "{text}");
    assert!(text.contains("ALTER PUBLICATION \"walpost\" SET (publish = 'insert')"), "{text}");
    assert!(text.contains("slot walpost is not one of walpost's (physical)"), "{text}");
}
