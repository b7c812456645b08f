//! What must be there before a slot can be read, made in the order that loses nothing: schema,
//! publication, the slot's row, slot. `walpost init` and the first start of `walpost run` are this.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::standing::{self, LookError, SlotStanding, Unfit};
use super::{marking, slot_maker};
use crate::source::{self, Remedy, SourceError};
use crate::store::name::one_line;
use crate::store::schema;
use crate::store::setup::{self, Event, SetupError, SetupSettings};
use crate::store::{Class, ConnectSettings, OutboxTable, RelayRow, RelayState, Store, StoreError};

/// A refused login.
pub(super) const LOGIN_REMEDY: &str = "correct user and password (postgres.url, postgres.password_file), the client's certificate \
     (postgres.tls.cert_file) or the server's pg_hba.conf";
/// A certificate was refused; the text before says what to mend.
pub(super) const TLS_REMEDY: &str = "then start walpost again";
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
    /// The outbox tables with the columns that tell which of their rows wait.
    pub tables: Arc<[OutboxTable]>,
    /// Whether `run` makes what was never there.
    pub create: bool,
    /// Whether rows committed before the slot was made are published.
    pub backfill: bool,
    /// Whether a slot that was lost is made again, and what was not delivered published.
    pub remake_lost: bool,
    /// An operator told to do so, once: until the next session has begun.
    pub told: Arc<AtomicBool>,
}

impl FirstStart {
    /// Whether a slot that was lost is made again now.
    pub(super) fn may_remake(&self) -> bool {
        self.remake_lost || self.told.load(Ordering::Relaxed)
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
    /// The slot is lost, or its row is another database's.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// A right is missing.
    #[error(
        "rows of {table} are to be marked when they are published (outbox.after_publish), and may not be: {grant};"
    )]
    MayNotMark {
        /// The table.
        table: String,
        /// What gives the right.
        grant: String,
    },
    /// The server does not take the statement.
    #[error(
        "rows of {table} can't be marked when they are published (outbox.after_publish): {error};"
    )]
    NotMarkable {
        /// The table.
        table: String,
        /// Why.
        #[source]
        error: StoreError,
    },
    /// What one relay marks, another one would not find after the loss of its slot.
    #[error(
        "rows of {table} are to be marked when they are published (outbox.after_publish), and the relay of slot {other} \
         reads that table, too: what this one marks, that one can't publish any more should its slot be lost;"
    )]
    OtherReader {
        /// The table.
        table: String,
        /// The other's slot.
        other: String,
    },
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
            PrepareError::Setup(SetupError::Store(StoreError::Tls { .. })) if self.is_login() => {
                Some(TLS_REMEDY)
            }
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
                Remedy::Tls => Some(TLS_REMEDY),
                Remedy::Retry | Remedy::ComeBack => None,
            },
            PrepareError::MayNotMark { .. } => {
                Some("run it as an administrator, or write outbox.after_publish: keep")
            }
            PrepareError::NotMarkable { .. } => Some(
                "give the ids a type that can be compared, or write outbox.after_publish: keep",
            ),
            PrepareError::OtherReader { .. } => Some(
                "write outbox.after_publish: keep, or divide the table (replication.shard); if that relay is gone for \
                 good, delete its row in walpost.relay",
            ),
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
            PrepareError::Source(error) => {
                matches!(error.remedy(), Remedy::Login | Remedy::Tls)
            }
            _ => false,
        }
    }
}

/// Makes what is missing; `on_event` hears of each thing, and while the slot waits, for whom. A slot
/// that was made before and is missing now is made again only where that was allowed: else it would hide
/// the loss of everything committed since.
///
/// # Errors
/// [`PrepareError`]. What was made stays; the next call goes on from there.
pub async fn prepare(
    wanted: &FirstStart,
    on_event: &mut impl FnMut(Event<'_>),
) -> Result<(), PrepareError> {
    let store = Store::connect(&wanted.sql).await?;
    setup::alone(&store, async {
        standing::look(&store, wanted).await?.allowed(wanted.may_remake())?;
        make(wanted, &store, on_event).await
    })
    .await
}

/// Takes over the row of another cluster or database: a dump was restored here, or the server was
/// upgraded. Says what that assumes. Does nothing where the row is this database's own.
///
/// # Errors
/// [`PrepareError`].
pub async fn adopt(
    wanted: &FirstStart,
    on_event: &mut impl FnMut(Event<'_>),
) -> Result<(), PrepareError> {
    let store = Store::connect(&wanted.sql).await?;
    setup::alone(&store, async {
        match standing::look(&store, wanted).await {
            Err(LookError::Unfit(Unfit::OtherCluster { slot, row, here })) => {
                on_event(Event::Note(format!(
                    "the row of slot {} in walpost.relay is of another database (system identifier {}); it \
                     is taken over. Nothing is known of what that one has delivered: every row that is in \
                     the outbox now is published again. Delete those that must not be, before 'walpost run'",
                    one_line(&slot),
                    row.system_identifier
                )));
                // Before the snapshot that says which rows are there.
                for table in wanted.tables.iter() {
                    if store.take_over_ids(table).await? > 0 {
                        let ids = "transaction ids that this cluster has not had yet";
                        on_event(Event::Changed(format!("rows of {} with {ids}", table.table)));
                    }
                }
                let state = store.slot(&slot).await?;
                let there = state.is_some_and(|state| state.lost().is_none());
                store.adopt_relay(&slot, &here, there).await?;
                on_event(Event::Changed(format!("the row of slot {slot} in walpost.relay")));
            }
            Ok(_) => on_event(Event::Exists(
                "the slot's row in walpost.relay is this database's own, or there is none".to_owned(),
            )),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    })
    .await
}

/// [`prepare`] for `walpost run`: goes on with what is there, and makes what is missing where it may.
///
/// # Errors
/// [`PrepareError`].
pub async fn prepare_for_run(
    wanted: &FirstStart,
    on_event: &mut impl FnMut(Event<'_>),
) -> Result<(), PrepareError> {
    let store = Store::connect(&wanted.sql).await?;
    if go_on(wanted, &store, on_event).await?.is_none() {
        return marking::check(&store, wanted, on_event).await;
    }
    // Another walpost may be making just these things.
    setup::alone(&store, async {
        match go_on(wanted, &store, on_event).await? {
            None => Ok(()),
            Some(missing) if !wanted.create && missing.is_first => {
                Err(PrepareError::NotToBeMade(missing.what))
            }
            Some(_) => make(wanted, &store, on_event).await,
        }
    })
    .await?;
    marking::check(&store, wanted, on_event).await
}

/// What a relay needs and is not there.
struct Absent {
    what: String,
    /// It was never there, or was not finished.
    is_first: bool,
}

/// Goes on with what is there, or answers what is missing.
async fn go_on(
    wanted: &FirstStart,
    store: &Store,
    on_event: &mut impl FnMut(Event<'_>),
) -> Result<Option<Absent>, PrepareError> {
    let slot = &wanted.source.slot;
    let standing = standing::look(store, wanted).await?;
    // One that was being made again, and was not finished, is lost, too.
    let lost = standing.lost.is_some() || standing.row.is_some_and(|row| row.epoch > 0);
    let standing = standing.allowed(wanted.may_remake())?;
    let no_slot = || Absent { what: format!("slot {}", one_line(slot)), is_first: !lost };
    if standing.slot != SlotStanding::There {
        return Ok(Some(no_slot()));
    }
    for note in setup::check(store, &wanted.setup).await? {
        on_event(Event::Note(note));
    }
    if !standing.table {
        let what = format!("version {} of the schema walpost", schema::newest());
        return Ok(Some(Absent { what, is_first: true }));
    }
    match standing.row {
        // One that was being made by a walpost that ended; or one that somebody else made.
        Some(RelayRow { state: RelayState::Creating, .. }) => Ok(Some(no_slot())),
        None => {
            slot_maker::adopt(wanted, store, on_event).await?;
            Ok(None)
        }
        Some(_) => Ok(None),
    }
}

async fn make(
    wanted: &FirstStart,
    store: &Store,
    on_event: &mut impl FnMut(Event<'_>),
) -> Result<(), PrepareError> {
    let slot = &wanted.source.slot;
    // A slot that is lost stands in the way of nothing else.
    let before = standing::look(store, wanted).await?.allowed(wanted.may_remake())?;
    if before.lost.is_some() {
        slot_maker::give_up_lost(wanted, store, on_event).await?;
    }
    if before.row.is_some_and(|row| row.state == RelayState::Creating) {
        // It may be older than the publication, and stand in its way.
        slot_maker::drop_unfinished(wanted, store, on_event).await?;
    }
    let plan = setup::ensure(store, &wanted.setup, on_event).await?;
    // Again: before, there may have been no table for the row.
    let standing = standing::look(store, wanted).await?.allowed(false)?;
    match (standing.slot, standing.row.map(|row| row.state)) {
        (SlotStanding::There, None) => slot_maker::adopt(wanted, store, on_event).await?,
        (SlotStanding::There, Some(RelayState::Creating)) => {
            // A walsender that was left behind has made it only now.
            slot_maker::drop_unfinished(wanted, store, on_event).await?;
            return slot_maker::make(wanted, plan.failover, store, on_event).await;
        }
        (SlotStanding::There, Some(_)) if plan.make_failover => {}
        (SlotStanding::There, Some(_)) => on_event(Event::Exists(format!("slot {slot}"))),
        (_, _) => return slot_maker::make(wanted, plan.failover, store, on_event).await,
    }
    if plan.make_failover {
        slot_maker::make_failover(wanted, store, on_event).await
    } else {
        Ok(())
    }
}
