//! What a relay needs in PostgreSQL: the schema, the publication, the slot.
//!
//! It is found out first ([`findings`]), then judged without a connection ([`plan`]): what is
//! missing and can be made, and what is there and does not fit. The plan is carried out here, or
//! printed by [`script`]. The order is schema, publication, slot: a slot made before the publication
//! would decode changes for which there is no publication yet, and streaming from it would fail.

pub mod findings;
pub mod misfit;
pub mod plan;
pub mod script;

#[cfg(test)]
mod tests;

use std::fmt;

pub use findings::{Findings, inspect};
pub use misfit::Misfit;
pub use plan::{Plan, PublicationStep, judge};

use super::blockers::Blocker;
use super::connect::Store;
use super::error::StoreError;
use super::name::{TableName, literal, one_line};
use super::schema::{self, SchemaState};
use super::sqlstate::Class;

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetupSettings {
    /// The slot to make; none: slots are not looked at (a relay makes its own, over the
    /// replication connection).
    pub slot: Option<String>,
    /// Whether the slot is to be one that standbys synchronise (PostgreSQL 17 and later).
    pub failover: bool,
    /// The publication.
    pub publication: String,
    /// The outbox tables.
    pub tables: Vec<TableName>,
    /// Whether the schema `walpost` is installed and upgraded (layout `walpost`).
    pub install_schema: bool,
}

/// What happened; each is one line for the operator.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// It was missing and has been made.
    Created(String),
    /// It was there, and fits.
    Exists(String),
    /// It was there, and has been mended.
    Changed(String),
    /// Something that an operator should know.
    Note(String),
    /// The slot waits for these transactions.
    Waiting(&'a [Blocker]),
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Created(what) => write!(f, "created {what}"),
            Event::Exists(what) => write!(f, "exists {what}"),
            Event::Changed(what) => write!(f, "changed {what}"),
            Event::Note(what) => write!(f, "note: {what}"),
            Event::Waiting(blockers) => {
                f.write_str(
                    "waiting for transactions that must end before the slot can be made: ",
                )?;
                for (at, blocker) in blockers.iter().enumerate() {
                    write!(f, "{}{blocker}", if at == 0 { "" } else { ", " })?;
                }
                f.write_str(
                    "; commit them, roll them back, or end them with pg_terminate_backend(pid)",
                )
            }
        }
    }
}

/// Why the set-up could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// PostgreSQL could not be reached or asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The role lacks a right.
    #[error("{0}; have a superuser run the SQL that `walpost init --dry-run` prints")]
    Denied(#[source] StoreError),
    /// Another walpost is at it.
    #[error("another walpost is setting up this database; try again when it is done")]
    Busy,
    /// Something is there and does not fit. Nothing was changed.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Unfit(Vec<Misfit>),
}

impl SetupError {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            SetupError::Store(error) | SetupError::Denied(error) => error.class(),
            SetupError::Busy => Class::Retry,
            SetupError::Unfit(_) => Class::Operator,
        }
    }

    /// From an error of a statement that needs rights.
    fn from_statement(error: StoreError) -> Self {
        match error.code() {
            Some("42501") => SetupError::Denied(error),
            _ => SetupError::Store(error),
        }
    }
}

/// Makes what is missing, in the order that loses nothing; what is there and fits is left alone.
/// `on_event` hears of each thing, and while the slot waits, every 2 s for whom.
///
/// # Errors
/// [`SetupError`]. With [`SetupError::Unfit`] nothing was changed; with others, what was made
/// stays, and the next call goes on from there.
pub async fn ensure(
    store: &Store,
    settings: &SetupSettings,
    on_event: &mut impl FnMut(Event<'_>),
) -> Result<(), SetupError> {
    // A lock of the session, not of a transaction: the slot would wait for our own transaction.
    let lock = format!("SELECT pg_advisory_lock({})", schema::LOCK);
    store.run("waiting for another walpost that sets up", &lock).await.map_err(|error| {
        if error.code() == Some("55P03") { SetupError::Busy } else { error.into() }
    })?;
    let done = ensure_locked(store, settings, on_event).await;
    let unlock = format!("SELECT pg_advisory_unlock({})", schema::LOCK);
    let unlocked = store.run("releasing the set-up lock", &unlock).await;
    done?;
    Ok(unlocked?)
}

/// Whether what is there fits; changes nothing.
///
/// # Errors
/// [`SetupError`].
pub async fn check(store: &Store, settings: &SetupSettings) -> Result<(), SetupError> {
    let findings = inspect(store, settings).await?;
    let (_, misfits) = judge(&findings, settings);
    if misfits.is_empty() { Ok(()) } else { Err(SetupError::Unfit(misfits)) }
}

/// [`ensure`], while no other walpost does the same in this database.
async fn ensure_locked(
    store: &Store,
    settings: &SetupSettings,
    on_event: &mut impl FnMut(Event<'_>),
) -> Result<(), SetupError> {
    let findings = inspect(store, settings).await?;
    let (plan, misfits) = judge(&findings, settings);
    if !misfits.is_empty() {
        return Err(SetupError::Unfit(misfits));
    }
    for note in &plan.notes {
        on_event(Event::Note(note.clone()));
    }
    apply_schema(store, settings, &plan, findings.schema, on_event).await?;
    apply_publication(store, settings, &plan, on_event).await?;
    if plan.adds_to_live_slot(&findings) {
        on_event(Event::Note(
            "rows committed to the added table before now are not published; restart a running \
             walpost once the transactions that are open now have ended"
                .to_owned(),
        ));
    }
    apply_slot(store, settings, &plan, on_event).await
}

/// Installs or upgrades the schema.
async fn apply_schema(
    store: &Store,
    settings: &SetupSettings,
    plan: &Plan,
    found: SchemaState,
    on_event: &mut impl FnMut(Event<'_>),
) -> Result<(), SetupError> {
    if let Some(version) = plan.upgrade_from {
        store.upgrade_schema(version).await.map_err(SetupError::from_statement)?;
        let newest = schema::newest();
        on_event(match version {
            0 => Event::Created(format!("schema walpost (version {newest})")),
            _ => Event::Changed(format!("schema walpost (version {version} to {newest})")),
        });
    } else if settings.install_schema {
        on_event(Event::Exists(match found {
            SchemaState::Version(version) => format!("schema walpost (version {version})"),
            SchemaState::Unreadable => "schema walpost".to_owned(),
        }));
    }
    for table in &settings.tables {
        let made = plan.upgrade_from == Some(0) && plan::is_own_outbox(table);
        let what = format!("table {table}");
        on_event(if made { Event::Created(what) } else { Event::Exists(what) });
    }
    Ok(())
}

/// Makes the publication, or adds what is missing in it.
async fn apply_publication(
    store: &Store,
    settings: &SetupSettings,
    plan: &Plan,
    on_event: &mut impl FnMut(Event<'_>),
) -> Result<(), SetupError> {
    let name = &settings.publication;
    let what = format!("publication {}", one_line(name));
    let event = match &plan.publication {
        PublicationStep::Nothing => Event::Exists(what),
        PublicationStep::Create => {
            let made = store.create_publication(name, &settings.tables).await;
            made.map_err(SetupError::from_statement)?;
            Event::Created(what)
        }
        PublicationStep::Add(tables) => {
            let added = store.alter_publication_add(name, tables).await;
            added.map_err(SetupError::from_statement)?;
            let names: Vec<_> = tables.iter().map(ToString::to_string).collect();
            Event::Changed(format!("{what} (added {})", names.join(", ")))
        }
    };
    on_event(event);
    Ok(())
}

/// Makes the slot. Rows that were there before it never come by the stream, which is said.
async fn apply_slot(
    store: &Store,
    settings: &SetupSettings,
    plan: &Plan,
    on_event: &mut impl FnMut(Event<'_>),
) -> Result<(), SetupError> {
    let Some(slot) = &settings.slot else {
        return Ok(());
    };
    if !plan.create_slot {
        on_event(Event::Exists(format!("slot {}", one_line(slot))));
        return Ok(());
    }
    let mut on_wait = |blockers: &[Blocker]| on_event(Event::Waiting(blockers));
    let made = store.create_slot(slot, settings.failover, &mut on_wait).await;
    let lsn = made.map_err(SetupError::from_statement)?;
    on_event(Event::Created(format!("slot {} (decodes from {lsn})", one_line(slot))));
    for table in &settings.tables {
        if let Some(note) = rows_before_the_slot(store, table).await? {
            on_event(Event::Note(note));
        }
    }
    Ok(())
}

/// A note about rows that were committed before the slot was made.
///
/// # Errors
/// [`StoreError`].
pub async fn rows_before_the_slot(
    store: &Store,
    table: &TableName,
) -> Result<Option<String>, StoreError> {
    let rows = match store.waiting_rows(table).await {
        Ok(rows) => rows,
        Err(error) if error.code() == Some("42501") => {
            return Ok(Some(format!("no SELECT on {table}: cannot tell whether rows are in it")));
        }
        Err(error) => return Err(error),
    };
    let about = match rows.estimate {
        Some(number) if number > 0 => format!(" (about {number})"),
        _ => String::new(),
    };
    Ok(rows.any.then(|| {
        format!(
            "{table} holds rows{about}: those committed before the slot was made are not \
             published by this version"
        )
    }))
}

/// The statement that makes the slot, for a script.
#[must_use]
pub fn create_slot_sql(slot: &str, failover: bool) -> String {
    let options = if failover { ", false, false, true" } else { "" };
    format!("SELECT pg_create_logical_replication_slot({}, 'pgoutput'{options})", literal(slot))
}
