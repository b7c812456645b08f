//! Making the slot, step by step: its row, the slot with an exported snapshot, the snapshot in the row.
//!
//! Rows visible in that snapshot are published out of the table, all others come from the slot: there is
//! no seam. Where a walpost ends between two steps, the slot is made anew; nobody has read from it.

use std::time::Duration;

use super::first_start::{FirstStart, PrepareError};
use crate::source::{self, Origin, SourceError};
use crate::store::name::one_line;
use crate::store::setup::{self, Event};
use crate::store::{Server, Store, StoreError};

/// How often it is said whom the slot waits for.
const WATCH_EACH: Duration = Duration::from_secs(2);

/// Makes the slot.
pub(super) async fn make(
    wanted: &FirstStart,
    failover: bool,
    store: &Store,
    on_event: &mut impl FnMut(Event<'_>),
) -> Result<(), PrepareError> {
    let slot = &wanted.source.slot;
    let server = store.server().await?;
    store.begin_relay(slot, &server).await?;
    let found = store.guard(&wanted.setup.publication, &wanted.setup.tables).await?;
    let mut connection = source::connect(&wanted.source).await?;
    let Server { system_identifier, timeline, .. } = server;
    if connection.origin != (Origin { system_identifier, timeline }) {
        return Err(SourceError::OtherServer(connection.address.to_string()).into());
    }
    let creator = i32::try_from(connection.process_id).unwrap_or_default();
    let made = {
        let mut made = std::pin::pin!(source::create_slot(&mut connection, slot, failover));
        loop {
            tokio::select! {
                made = &mut made => break made?,
                () = tokio::time::sleep(WATCH_EACH) => say_blockers(store, creator, on_event).await?,
            }
        }
    };
    // The snapshot lives for as long as this connection is idle.
    let snapshot = store.imported_snapshot(&made.snapshot).await?;
    store.slot_made(slot, &snapshot, wanted.backfill, found).await?;
    drop(connection);
    on_event(Event::Created(format!("slot {slot} (decodes from {})", made.position)));
    for table in &wanted.setup.tables {
        let note = setup::rows_before_the_slot(store, table, wanted.backfill).await?;
        if let Some(note) = note {
            on_event(Event::Note(note));
        }
    }
    Ok(())
}

/// The slot is there, and has no row: somebody made it by hand, or a walpost that kept none.
pub(super) async fn adopt(
    wanted: &FirstStart,
    store: &Store,
    on_event: &mut impl FnMut(Event<'_>),
) -> Result<(), PrepareError> {
    let slot = &wanted.source.slot;
    let what_follows = if wanted.backfill {
        "every row in the outbox is published now, those that the slot brings, too: repeats are likely"
    } else {
        "what was committed before it was made is not published"
    };
    on_event(Event::Note(format!(
        "slot {} was not made by walpost, or by an older one: {what_follows}",
        one_line(slot)
    )));
    store.adopt_slot(slot, &store.server().await?, wanted.backfill).await?;
    Ok(())
}

/// From now on standbys keep a copy of the slot. PostgreSQL would wait for whoever reads from it.
pub(super) async fn make_failover(
    wanted: &FirstStart,
    store: &Store,
    on_event: &mut impl FnMut(Event<'_>),
) -> Result<(), PrepareError> {
    let slot = &wanted.source.slot;
    if store.holder(slot).await?.flatten().is_some() {
        on_event(Event::Note(format!(
            "slot {slot} is in use and stays no failover slot: stop the walpost that reads from it, then run \
             walpost init again"
        )));
        return Ok(());
    }
    let mut connection = source::connect(&wanted.source).await?;
    source::make_failover(&mut connection, slot).await?;
    on_event(Event::Changed(format!("slot {slot} (a failover slot now)")));
    Ok(())
}

/// The slot is lost, and may be made again. What is left of it goes.
pub(super) async fn give_up_lost(
    wanted: &FirstStart,
    store: &Store,
    on_event: &mut impl FnMut(Event<'_>),
) -> Result<(), PrepareError> {
    let slot = &wanted.source.slot;
    on_event(Event::Note(format!(
        "slot {} is lost: it is made again, and what was not delivered is published out of the table",
        one_line(slot)
    )));
    store.begin_again(slot).await?;
    store.drop_slot(slot).await?;
    Ok(())
}

/// A slot whose row says that it is being made is our own, and not finished: it goes. A walpost that
/// ended while its slot waited for a transaction leaves a walsender that still tries: the slot shows,
/// held by that process, and can't be dropped before it is made.
pub(super) async fn drop_unfinished(
    wanted: &FirstStart,
    store: &Store,
    on_event: &mut impl FnMut(Event<'_>),
) -> Result<(), PrepareError> {
    let slot = &wanted.source.slot;
    while let Some(state) = store.slot(slot).await? {
        match state.active_pid {
            Some(creator) if state.confirmed_flush_lsn.is_none() => {
                say_blockers(store, creator, on_event).await?;
                tokio::time::sleep(WATCH_EACH).await;
            }
            _ => {
                on_event(Event::Note(format!(
                    "slot {} was not finished when walpost ended: it is made anew",
                    one_line(slot)
                )));
                store.drop_slot(slot).await?;
            }
        }
    }
    Ok(())
}

async fn say_blockers(
    store: &Store,
    creator: i32,
    on_event: &mut impl FnMut(Event<'_>),
) -> Result<(), StoreError> {
    let blockers = store.slot_blockers(creator).await?;
    if !blockers.is_empty() {
        on_event(Event::Waiting(&blockers));
    }
    Ok(())
}
