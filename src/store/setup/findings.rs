//! What is there.

use std::collections::BTreeMap;

use super::SetupSettings;
use crate::store::connect::Store;
use crate::store::error::StoreError;
use crate::store::name::TableName;
use crate::store::publication::PublicationState;
use crate::store::schema::SchemaState;
use crate::store::server::{Capacity, Server};
use crate::store::sharding::KeyColumn;
use crate::store::slot::SlotState;
use crate::store::table::TableState;

/// All that the judgement needs to know, read without changing anything. Any role may read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings {
    /// The server.
    pub server: Server,
    /// Slots and walsenders.
    pub capacity: Capacity,
    /// The schema `walpost`.
    pub schema: SchemaState,
    /// The outbox tables, those of the settings.
    pub tables: Vec<(TableName, Option<TableState>)>,
    /// Of the outbox tables that are there, the columns that rows are divided by; empty where they are not
    /// divided.
    pub key_columns: BTreeMap<TableName, Vec<KeyColumn>>,
    /// The publication.
    pub publication: Option<PublicationState>,
    /// The slot.
    pub slot: Option<SlotState>,
}

/// Reads what is there.
///
/// # Errors
/// [`StoreError`].
pub async fn inspect(store: &Store, settings: &SetupSettings) -> Result<Findings, StoreError> {
    let mut tables = Vec::with_capacity(settings.tables.len());
    let mut key_columns = BTreeMap::new();
    for table in &settings.tables {
        let state = store.table(table).await?;
        if let Some(sharding) = settings.sharding.as_ref().filter(|_| state.is_some()) {
            let names: Vec<_> = sharding.names().cloned().collect();
            key_columns.insert(table.clone(), store.key_columns(table, &names).await?);
        }
        tables.push((table.clone(), state));
    }
    Ok(Findings {
        server: store.server().await?,
        capacity: store.capacity().await?,
        schema: store.schema().await?,
        tables,
        key_columns,
        publication: store.publication(&settings.publication).await?,
        slot: store.slot(&settings.slot).await?,
    })
}
