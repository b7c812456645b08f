//! What must be there before a slot can be read, made in the order that loses nothing: schema,
//! publication, slot. `walpost init` and the first start of `walpost run` are this.

use std::sync::Arc;
use std::time::Duration;

use crate::source::{self, Remedy, SourceError};
use crate::store::setup::{self, Event, SetupError, SetupSettings};
use crate::store::{Class, ConnectSettings, Store, StoreError};

/// How often it is said whom the slot waits for.
const WATCH_EACH: Duration = Duration::from_secs(2);

/// What is wanted, and how PostgreSQL is reached.
#[derive(Clone, Debug)]
pub struct FirstStart {
    /// For SQL.
    pub sql: ConnectSettings,
    /// For the replication connection, which makes the slot.
    pub source: Arc<source::Settings>,
    /// Publication, tables, schema.
    pub setup: SetupSettings,
}

impl FirstStart {
    /// The set-up as a script writes it: with the slot.
    #[must_use]
    pub fn setup_with_slot(&self) -> SetupSettings {
        SetupSettings { slot: Some(self.source.slot.clone()), ..self.setup.clone() }
    }
}

/// Why it could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// PostgreSQL could not be asked, or what is there does not fit.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The slot could not be made.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The publication is there, the slot is not: it may have been lost.
    #[error(
        "slot {slot} does not exist although publication {publication} does: if the slot was lost or \
         dropped, rows committed since were not relayed"
    )]
    SlotMissing {
        /// The slot.
        slot: String,
        /// The publication.
        publication: String,
    },
}

impl From<StoreError> for PrepareError {
    fn from(error: StoreError) -> Self {
        PrepareError::Setup(error.into())
    }
}

impl PrepareError {
    /// What an operator must do; `None`: trying again may help.
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            PrepareError::Setup(error) if error.class() == Class::Operator => {
                Some("mend it and start again")
            }
            PrepareError::Setup(_) => None,
            PrepareError::Source(error) => match error.remedy() {
                Remedy::Operator(remedy) => Some(remedy),
                Remedy::Retry | Remedy::ComeBack | Remedy::Login => None,
            },
            PrepareError::SlotMissing { .. } => {
                Some("'walpost init' makes it anew; it will bring what is committed from then on")
            }
        }
    }

    /// Whether the login was refused.
    #[must_use]
    pub fn is_login(&self) -> bool {
        match self {
            PrepareError::Setup(SetupError::Store(error) | SetupError::Denied(error)) => {
                error.is_login()
            }
            PrepareError::Source(error) => error.remedy() == Remedy::Login,
            _ => false,
        }
    }
}

/// Makes what is missing; `on_event` hears of each thing, and while the slot waits, for whom.
///
/// # Errors
/// [`PrepareError`]. What was made stays; the next call goes on from there.
pub async fn prepare(
    wanted: &FirstStart,
    on_event: &mut impl FnMut(Event<'_>),
) -> Result<(), PrepareError> {
    let store = Store::connect(&wanted.sql).await?;
    setup::ensure(&store, &wanted.setup, on_event).await?;
    let slot = &wanted.source.slot;
    if store.slot(slot).await?.is_some() {
        on_event(Event::Exists(format!("slot {slot}")));
        return Ok(());
    }
    make_slot(wanted, &store, on_event).await?;
    for table in &wanted.setup.tables {
        if let Some(note) = setup::rows_before_the_slot(&store, table).await? {
            on_event(Event::Note(note));
        }
    }
    Ok(())
}

/// [`prepare`] for `walpost run`: only where nothing of walpost's is there yet. A missing slot
/// beside an existing publication is not made silently: that may be the loss of everything
/// committed since.
///
/// # Errors
/// [`PrepareError`].
pub async fn prepare_once(
    wanted: &FirstStart,
    create: bool,
    on_event: &mut impl FnMut(Event<'_>),
) -> Result<(), PrepareError> {
    let store = Store::connect(&wanted.sql).await?;
    let (slot, publication) = (&wanted.source.slot, &wanted.source.publication);
    let has_slot = store.slot(slot).await?.is_some();
    let has_publication = store.publication(publication).await?.is_some();
    match (has_slot, has_publication) {
        (false, false) if create => prepare(wanted, on_event).await,
        (false, _) => {
            Err(PrepareError::SlotMissing { slot: slot.clone(), publication: publication.clone() })
        }
        // Both are there, or the slot's stream will say what is missing.
        (true, _) => Ok(setup::check(&store, &wanted.setup).await?),
    }
}

async fn make_slot(
    wanted: &FirstStart,
    store: &Store,
    on_event: &mut impl FnMut(Event<'_>),
) -> Result<(), PrepareError> {
    let mut connection = source::connect(&wanted.source).await?;
    let creator = i32::try_from(connection.process_id).unwrap_or_default();
    let slot = wanted.source.slot.clone();
    let mut made = std::pin::pin!(source::create_slot(&mut connection, &slot));
    loop {
        tokio::select! {
            made = &mut made => {
                let position = made?;
                on_event(Event::Created(format!("slot {slot} (decodes from {position})")));
                return Ok(());
            }
            () = tokio::time::sleep(WATCH_EACH) => {
                let blockers = store.slot_blockers(creator).await?;
                if !blockers.is_empty() {
                    on_event(Event::Waiting(&blockers));
                }
            }
        }
    }
}
