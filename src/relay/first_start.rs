//! What must be there before a slot can be read, made in the order that loses nothing: schema,
//! publication, the slot's row, slot. `walpost init` and the first start of `walpost run` are this.

use std::sync::Arc;
use std::time::Duration;

use super::standing::{self, LookError, Standing, Unfit};
use crate::source::{self, Remedy, SourceError};
use crate::store::name::one_line;
use crate::store::setup::{self, Event, SetupError, SetupSettings};
use crate::store::{Class, ConnectSettings, Store, StoreError};

/// How often it is said whom the slot waits for.
const WATCH_EACH: Duration = Duration::from_secs(2);

/// A refused login.
pub(super) const LOGIN_REMEDY: &str =
    "correct user and password (postgres.url, postgres.password_file) or the server's pg_hba.conf";
/// A right is missing.
pub(super) const GRANT_REMEDY: &str =
    "have a superuser grant what is missing: 'walpost init --dry-run' prints the lines";

/// What is wanted, and how PostgreSQL is reached.
#[derive(Clone, Debug)]
pub struct FirstStart {
    /// For SQL.
    pub sql: ConnectSettings,
    /// For the replication connection, which makes the slot.
    pub source: Arc<source::Settings>,
    /// Publication, tables, schema, slot.
    pub setup: SetupSettings,
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
    /// The slot is lost, or its row is another database's.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// Something is not there, and nothing is to be made.
    #[error("{0} does not exist, and replication.create is false")]
    NotToBeMade(String),
}

impl From<StoreError> for PrepareError {
    fn from(error: StoreError) -> Self {
        PrepareError::Setup(error.into())
    }
}

impl From<LookError> for PrepareError {
    fn from(error: LookError) -> Self {
        match error {
            LookError::Store(error) => error.into(),
            LookError::Unfit(unfit) => unfit.into(),
        }
    }
}

impl PrepareError {
    /// What an operator must do, for the end of the sentence; `None`: trying again may help.
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            // These texts say it themselves.
            PrepareError::Setup(SetupError::Unfit(_) | SetupError::Denied(_))
            | PrepareError::Unfit(_) => Some("then start walpost again"),
            PrepareError::Setup(_) if self.is_login() => Some(LOGIN_REMEDY),
            PrepareError::Setup(SetupError::Store(error)) if error.class() == Class::Operator => {
                Some(match error.code() {
                    Some("42501") => GRANT_REMEDY,
                    Some("3D000") => "create it, or correct the database in postgres.url",
                    Some(_) => "see docs/operations.md",
                    None => "correct postgres.url, postgres.password_file or the server",
                })
            }
            PrepareError::Setup(_) => None,
            PrepareError::Source(error) => match error.remedy() {
                Remedy::Operator(remedy) => Some(remedy),
                Remedy::Login => Some(LOGIN_REMEDY),
                Remedy::Retry | Remedy::ComeBack => None,
            },
            PrepareError::NotToBeMade(_) => Some("'walpost init' makes what is missing"),
        }
    }

    /// What to look at while it is tried again, for the end of the line.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            PrepareError::Setup(SetupError::Store(
                StoreError::Connection { .. } | StoreError::Timeout { .. },
            )) => "; is PostgreSQL up there, and does postgres.url name the right host and port?",
            _ => "",
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

/// Makes what is missing; `on_event` hears of each thing, and while the slot waits, for whom. A slot
/// that was made before and is missing now is not made again: that would hide the loss of everything
/// committed since.
///
/// # Errors
/// [`PrepareError`]. What was made stays; the next call goes on from there.
pub async fn prepare(
    wanted: &FirstStart,
    on_event: &mut impl FnMut(Event<'_>),
) -> Result<(), PrepareError> {
    let store = Store::connect(&wanted.sql).await?;
    setup::alone(&store, async {
        standing::look(&store, &wanted.source.slot).await?;
        make(wanted, &store, on_event).await
    })
    .await
}

/// [`prepare`] for `walpost run`: goes on with what is there, and makes what is missing where it may.
///
/// # Errors
/// [`PrepareError`].
pub async fn prepare_for_run(
    wanted: &FirstStart,
    create: bool,
    on_event: &mut impl FnMut(Event<'_>),
) -> Result<(), PrepareError> {
    let store = Store::connect(&wanted.sql).await?;
    if go_on(wanted, &store, on_event).await?.is_none() {
        return Ok(());
    }
    // Another walpost may be making just these things.
    setup::alone(&store, async {
        match go_on(wanted, &store, on_event).await? {
            None => Ok(()),
            Some(_) if create => make(wanted, &store, on_event).await,
            Some(missing) => Err(PrepareError::NotToBeMade(missing)),
        }
    })
    .await
}

/// Goes on with what is there, or answers what is missing.
async fn go_on(
    wanted: &FirstStart,
    store: &Store,
    on_event: &mut impl FnMut(Event<'_>),
) -> Result<Option<String>, PrepareError> {
    let slot = &wanted.source.slot;
    let standing = standing::look(store, slot).await?;
    let no_slot = format!("slot {}", one_line(slot));
    if !standing.slot {
        return Ok(Some(no_slot));
    }
    for note in setup::check(store, &wanted.setup).await? {
        on_event(Event::Note(note));
    }
    if !standing.table {
        return Ok(Some("table walpost.relay".to_owned()));
    }
    // One that was being made by a walpost that ended may have gone with it: nobody has read from it.
    if !until_made(wanted, store, on_event).await? {
        return Ok(Some(no_slot));
    }
    mark_made(wanted, store, &standing, on_event).await?;
    Ok(None)
}

async fn make(
    wanted: &FirstStart,
    store: &Store,
    on_event: &mut impl FnMut(Event<'_>),
) -> Result<(), PrepareError> {
    let plan = setup::ensure(store, &wanted.setup, on_event).await?;
    // Again: before, there may have been no table for the row.
    let standing = standing::look(store, &wanted.source.slot).await?;
    if !plan.create_slot && until_made(wanted, store, on_event).await? {
        mark_made(wanted, store, &standing, on_event).await?;
        on_event(Event::Exists(format!("slot {}", wanted.source.slot)));
        return Ok(());
    }
    store.begin_relay(&wanted.source.slot, &store.server().await?).await?;
    make_slot(wanted, store, on_event).await?;
    store.relay_made(&wanted.source.slot, standing.row.map_or(0, |row| row.epoch)).await?;
    for table in &wanted.setup.tables {
        if let Some(note) = setup::rows_before_the_slot(store, table).await? {
            on_event(Event::Note(note));
        }
    }
    Ok(())
}

/// The slot is there: its row says so from now on. Where a walpost ended between the two, nothing is
/// lost: the slot decodes from its making on.
async fn mark_made(
    wanted: &FirstStart,
    store: &Store,
    standing: &Standing,
    on_event: &mut impl FnMut(Event<'_>),
) -> Result<(), StoreError> {
    let slot = &wanted.source.slot;
    match standing.row {
        Some(row) if row.streaming => return Ok(()),
        Some(_) => {}
        None => {
            on_event(Event::Note(format!(
                "slot {} was not made by walpost, or by an older one: what was committed before it was \
                 made is not published",
                one_line(slot)
            )));
            store.begin_relay(slot, &store.server().await?).await?;
        }
    }
    store.relay_made(slot, standing.row.map_or(0, |row| row.epoch)).await
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
            () = tokio::time::sleep(WATCH_EACH) => say_blockers(store, creator, on_event).await?,
        }
    }
}

/// A walpost that ended while its slot waited for a transaction leaves a walsender that still tries:
/// the slot shows, held by that process, and has no position yet. It may come to be, or go (`false`).
async fn until_made(
    wanted: &FirstStart,
    store: &Store,
    on_event: &mut impl FnMut(Event<'_>),
) -> Result<bool, PrepareError> {
    loop {
        let Some(slot) = store.slot(&wanted.source.slot).await? else { return Ok(false) };
        let Some(creator) = slot.active_pid.filter(|_| slot.confirmed_flush_lsn.is_none()) else {
            return Ok(true);
        };
        say_blockers(store, creator, on_event).await?;
        tokio::time::sleep(WATCH_EACH).await;
    }
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
