//! What a relay needs in PostgreSQL: the schema, the publication, the slot.
//!
//! It is found out first ([`findings`]), then judged without a connection ([`plan`]): what is
//! missing and can be made, and what is there and does not fit. The plan is carried out here but for
//! the slot, which is made on the replication connection; [`script`] prints all of it. The order is
//! schema, publication, slot: a slot made before the publication would decode changes for which
//! there is no publication yet, and streaming from it would fail.

pub mod findings;
pub mod misfit;
pub mod plan;
pub mod script;

mod sharding;

#[cfg(test)]
mod tests;

use std::fmt;

pub use findings::{Findings, inspect};
pub use misfit::Misfit;
pub use plan::{Plan, PublicationStep, judge};

use super::blockers::Blocker;
use super::connect::Store;
use super::error::StoreError;
use super::marking::MarkedTable;
use super::name::{TableName, literal, one_line};
use super::schema::{self, SchemaState};
use super::server::Writer;
use super::sharding::Sharding;
use super::sqlstate::Class;
use crate::config::Failover;

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetupSettings {
    /// The slot.
    pub slot: String,
    /// The publication.
    pub publication: String,
    /// The outbox tables.
    pub tables: Vec<TableName>,
    /// What becomes of the rows of the outbox tables once they are published; empty: nothing.
    pub marks: Vec<MarkedTable>,
    /// This relay's share of the rows; none: all of them.
    pub sharding: Option<Sharding>,
    /// Whether standbys keep a copy of the slot.
    pub failover: Failover,
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
                    "; commit them, roll them back (a prepared one: ROLLBACK PREPARED), or end them with \
                     pg_terminate_backend(pid)",
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

/// Does the work while no other walpost sets up this database.
///
/// # Errors
/// [`SetupError::Busy`] where another one is at it for longer than 10 s; else the work's.
pub async fn alone<T, E: From<SetupError>>(
    store: &Store,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    // A lock of the session, not of a transaction: the slot would wait for our own transaction.
    let lock = format!("SELECT pg_advisory_lock({})", schema::LOCK);
    let locked = store.run("waiting for another walpost that sets up", &lock).await;
    locked.map_err(|error| match error.code() {
        Some("55P03") => SetupError::Busy,
        _ => error.into(),
    })?;
    let done = work.await;
    let unlock = format!("SELECT pg_advisory_unlock({})", schema::LOCK);
    let unlocked = store.run("releasing the set-up lock", &unlock).await;
    let done = done?;
    unlocked.map_err(SetupError::from)?;
    Ok(done)
}

/// Whether a relay can go on with what is there, which includes that every row of the outbox
/// reaches it; changes nothing. Answers what an operator should know beside.
///
/// # Errors
/// [`SetupError`].
pub async fn check(store: &Store, settings: &SetupSettings) -> Result<Vec<String>, SetupError> {
    let findings = inspect(store, settings).await?;
    let (mut plan, mut misfits) = judge(&findings, settings);
    if let PublicationStep::Add(tables) = plan.publication {
        let missing = |table| Misfit::NotPublished(settings.publication.clone(), table);
        misfits.extend(tables.into_iter().map(|table| missing(table.table)));
    }
    if plan.make_failover {
        let misfit = Misfit::NotFailover(settings.slot.clone());
        match settings.failover {
            Failover::True => misfits.push(misfit),
            Failover::Auto | Failover::False => plan.notes.push(misfit.to_string()),
        }
    }
    if let Some(version) = plan.upgrade_from {
        let newest = schema::newest();
        plan.notes.push(format!(
            "schema walpost is of version {version}, this walpost brings {newest}: walpost init \
             upgrades it"
        ));
    }
    if misfits.is_empty() { Ok(plan.notes) } else { Err(SetupError::Unfit(misfits)) }
}

/// Makes what is missing of the schema and the publication; what is there and fits is left alone.
/// `on_event` hears of each thing. The caller is [`alone`], and makes the slot if the plan that is
/// answered says so.
///
/// # Errors
/// [`SetupError`]. With [`SetupError::Unfit`] nothing was changed; with others, what was made
/// stays, and the next call goes on from there.
pub async fn ensure(
    store: &Store,
    settings: &SetupSettings,
    on_event: &mut impl FnMut(Event<'_>),
) -> Result<Plan, SetupError> {
    let findings = inspect(store, settings).await?;
    let (plan, misfits) = judge(&findings, settings);
    if !misfits.is_empty() {
        return Err(SetupError::Unfit(misfits));
    }
    for note in &plan.notes {
        on_event(Event::Note(note.clone()));
    }
    apply_schema(store, settings, &plan, findings.schema, on_event).await?;
    if store.writer().await? != Writer::Ready {
        on_event(Event::Note(
            "role walpost_writer, which may publish and nothing else, does not exist or lacks its rights: have \
             an administrator run what walpost init --dry-run prints"
                .to_owned(),
        ));
    }
    apply_publication(store, settings, &plan, on_event).await?;
    if plan.adds_to_live_slot(&findings) {
        on_event(Event::Note(
            "rows committed to the added table before now are not published; restart a running \
             walpost once the transactions that are open now have ended"
                .to_owned(),
        ));
    }
    Ok(plan)
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
    } else {
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
        PublicationStep::Create(tables) => {
            let made = store.create_publication(name, tables).await;
            made.map_err(SetupError::from_statement)?;
            Event::Created(what)
        }
        PublicationStep::Add(tables) => {
            let added = store.alter_publication_add(name, tables).await;
            added.map_err(SetupError::from_statement)?;
            let names: Vec<_> = tables.iter().map(|added| added.table.to_string()).collect();
            Event::Changed(format!("{what} (added {})", names.join(", ")))
        }
    };
    on_event(event);
    Ok(())
}

/// A note about rows that were committed before the slot was made.
///
/// # Errors
/// [`StoreError`].
pub async fn rows_before_the_slot(
    store: &Store,
    table: &TableName,
    backfill: bool,
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
        let what_follows = if backfill {
            "those that wait are published when walpost runs, before anything else"
        } else {
            "those committed before the slot was made are not published (outbox.backfill is false)"
        };
        format!("{table} holds rows{about}: {what_follows}")
    }))
}

/// The statement that makes the slot, for a script.
#[must_use]
pub fn create_slot_sql(slot: &str, failover: bool) -> String {
    let failover = if failover { ", failover => true" } else { "" };
    format!("SELECT pg_create_logical_replication_slot({}, 'pgoutput'{failover})", literal(slot))
}
