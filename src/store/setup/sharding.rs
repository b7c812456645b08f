//! The judgement of the row filters by which several relays share the rows of a table.

use super::SetupSettings;
use super::findings::Findings;
use super::misfit::Misfit;
use crate::store::name::TableName;
use crate::store::publication::{PublicationState, PublishedTable, set_sql};
use crate::store::sharding::{Likeness, NoFilter, Sharding, compare};

/// Row filters came with this version.
const ROW_FILTERS: u32 = 150_000;

/// The outbox tables as the publication is to cover them, where nothing is known of them.
pub(super) fn unseen(settings: &SetupSettings) -> Vec<PublishedTable> {
    let covered = |table: &TableName| PublishedTable {
        table: table.clone(),
        // It fails only for columns that are known.
        row_filter: settings.sharding.as_ref().and_then(|sharding| sharding.filter(None).ok()),
        columns: None,
    };
    settings.tables.iter().map(covered).collect()
}

/// The outbox tables as the publication is to cover them.
pub(super) fn wanted(
    findings: &Findings,
    settings: &SetupSettings,
    misfits: &mut Vec<Misfit>,
) -> Vec<PublishedTable> {
    let Some(sharding) = &settings.sharding else { return unseen(settings) };
    if findings.server.version < ROW_FILTERS {
        misfits.push(Misfit::ShardsTooOld(findings.server.version));
    }
    let mut wanted = Vec::with_capacity(settings.tables.len());
    for table in &settings.tables {
        let filter = sharding.filter(findings.key_columns.get(table).map(Vec::as_slice));
        let row_filter = match filter {
            Ok(filter) => Some(filter),
            Err(NoFilter::Missing(column)) => {
                misfits.push(Misfit::ShardColumnMissing(table.clone(), column));
                None
            }
            Err(NoFilter::Type(column, type_name)) => {
                misfits.push(Misfit::ShardColumnType(table.clone(), column, type_name));
                None
            }
        };
        wanted.push(PublishedTable { table: table.clone(), row_filter, columns: None });
    }
    wanted
}

/// What is wrong with the row filter of a table that the publication covers.
pub(super) fn judge_filter(
    state: &PublicationState,
    found: Option<&String>,
    wanted: &PublishedTable,
    all: &[PublishedTable],
    settings: &SetupSettings,
) -> Option<Misfit> {
    let (publication, table) = (settings.publication.clone(), wanted.table.clone());
    let Some(Sharding { shard, .. }) = settings.sharding else {
        return found.map(|_| Misfit::RowFilter(publication, table));
    };
    // Without one, the reason is a misfit already.
    let filter = wanted.row_filter.as_ref()?;
    match found.map_or(Likeness::Other, |found| compare(filter, found)) {
        Likeness::Same => None,
        Likeness::Shard(other) => Some(Misfit::OtherShard(publication, table, other, shard)),
        Likeness::Other if state.all_tables => Some(Misfit::ShardAllTables(publication)),
        Likeness::Other => {
            let statement = set_sql(&publication, &remedied(state, all));
            Some(Misfit::ShardFilter(publication, table, shard, statement))
        }
    }
}

/// All that the publication covers, the outbox tables as they should be.
fn remedied(state: &PublicationState, wanted: &[PublishedTable]) -> Vec<PublishedTable> {
    let of_others = |other: &&PublishedTable| wanted.iter().all(|table| table.table != other.table);
    wanted.iter().chain(state.tables.iter().filter(of_others)).cloned().collect()
}
