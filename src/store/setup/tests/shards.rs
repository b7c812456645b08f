//! Several relays on one table.

use super::*;
use crate::outbox::{Shard, ShardColumns};
use crate::store::sharding::{AsText, KeyColumn, Sharding};

fn sharding(index: u32, count: u32) -> Sharding {
    let columns =
        ShardColumns { key: Some("key".to_owned()), destination: Some("destination".to_owned()) };
    Sharding { shard: Shard { index, count }, columns }
}

fn of_shard(index: u32, count: u32) -> SetupSettings {
    SetupSettings { sharding: Some(sharding(index, count)), ..settings() }
}

/// As PostgreSQL prints it.
fn printed(index: u32, count: u32) -> String {
    format!(
        "(((hashtext((COALESCE(NULLIF(key, ''::text), destination, ''::text) COLLATE \"C\")) & \
         2147483647) % {count}) = {index})"
    )
}

fn text(name: &str) -> KeyColumn {
    KeyColumn { name: name.to_owned(), type_name: "text".to_owned(), text: AsText::Is }
}

/// Everything there for shard 0 of 2, after a change.
fn judged(change: impl FnOnce(&mut Findings)) -> (Plan, Vec<Misfit>) {
    let mut findings = fitting();
    findings.key_columns.insert(outbox(), vec![text("key"), text("destination")]);
    publication(&mut findings).tables[0].row_filter = Some(printed(0, 2));
    change(&mut findings);
    judge(&findings, &of_shard(0, 2))
}

fn refused(change: impl FnOnce(&mut Findings)) -> Vec<Misfit> {
    judged(change).1
}

fn covered() -> PublishedTable {
    let row_filter = sharding(0, 2).filter(None).ok();
    assert!(row_filter.is_some());
    PublishedTable { row_filter, ..PublishedTable::whole(outbox()) }
}

#[test]
fn the_shards_own_filter_fits_and_a_missing_table_gets_it() {
    let (plan, misfits) = judged(|_| {});
    assert!(plan.is_done() && misfits.is_empty(), "{plan:?} {misfits:?}");
    let (plan, misfits) = judged(|found| publication(found).tables.clear());
    assert_eq!((plan.publication, misfits), (PublicationStep::Add(vec![covered()]), vec![]));
    let (plan, misfits) = judged(|found| (found.publication, found.slot) = (None, None));
    assert_eq!((plan.publication, misfits), (PublicationStep::Create(vec![covered()]), vec![]));
    let blind = Plan::from_nothing(&of_shard(0, 2));
    assert_eq!(blind.publication, PublicationStep::Create(vec![covered()]));
}

#[test]
fn another_shards_publication_is_told_apart() {
    for (index, count) in [(1, 2), (0, 3)] {
        let found = refused(|found| {
            publication(found).tables[0].row_filter = Some(printed(index, count));
        });
        let (theirs, ours) = (Shard { index, count }, Shard { index: 0, count: 2 });
        assert_eq!(found, [Misfit::OtherShard(name(), outbox(), theirs, ours)]);
        let text = found[0].to_string();
        let words = format!(
            "has the rows of shard {index} of {count} in walpost.outbox, this relay is shard 0 of 2"
        );
        assert!(text.contains(&words), "{text}");
    }
    // A relay that has no share, with the publication of one that has.
    let mut findings = fitting();
    publication(&mut findings).tables[0].row_filter = Some(printed(0, 2));
    assert_eq!(judge(&findings, &settings()).1, [Misfit::RowFilter(name(), outbox())]);
}

#[test]
fn no_filter_and_a_strange_one_come_with_the_statement() {
    for filter in [None, Some("(destination <> ''::text)".to_owned())] {
        let found = refused(|found| {
            publication(found).tables[0].row_filter = filter;
            publication(found).tables.push(PublishedTable {
                table: TableName::new("public", "other"),
                row_filter: Some("(id > 3)".to_owned()),
                columns: Some(vec!["id".to_owned()]),
            });
        });
        let [Misfit::ShardFilter(.., statement)] = &found[..] else { panic!("{found:?}") };
        let filter = sharding(0, 2).filter(None).unwrap();
        let all = format!(
            "ALTER PUBLICATION \"walpost\" SET TABLE \"walpost\".\"outbox\" WHERE ({filter}), \
             \"public\".\"other\" (\"id\") WHERE ((id > 3))"
        );
        assert_eq!(*statement, all);
        assert!(found[0].to_string().contains(&all), "{}", found[0]);
    }
    let all = refused(|found| {
        publication(found).all_tables = true;
        publication(found).tables[0].row_filter = None;
    });
    assert_eq!(all, [Misfit::ShardAllTables(name())]);
}

#[test]
fn what_cannot_be_divided_is_named() {
    let old = refused(|found| found.server.version = 140_009);
    assert_eq!(old, [Misfit::ShardsTooOld(140_009)]);
    assert!(old[0].to_string().contains("PostgreSQL 14.9 does not have"), "{}", old[0]);
    let missing = refused(|found| {
        found.key_columns.insert(outbox(), vec![text("destination")]);
    });
    assert_eq!(missing, [Misfit::ShardColumnMissing(outbox(), "key".to_owned())]);
    let strange = refused(|found| {
        let at =
            KeyColumn { text: AsText::Cannot, type_name: "tstzrange".to_owned(), ..text("key") };
        found.key_columns.insert(outbox(), vec![at, text("destination")]);
    });
    let (column, of_type) = ("key".to_owned(), "tstzrange".to_owned());
    assert_eq!(strange, [Misfit::ShardColumnType(outbox(), column, of_type)]);
}
