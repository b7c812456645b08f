//! The slot is made on the replication connection.

use super::command::{Replication, quoted};
use super::error::SourceError;
use crate::lsn::Lsn;

/// A slot that was made.
#[derive(Clone, Debug)]
pub struct Made {
    /// From where it sends what is committed.
    pub position: Lsn,
    /// The name of a snapshot in which everything is visible that was committed before, and nothing that
    /// the slot sends. It can be imported until the connection is used again or ends.
    pub snapshot: String,
}

/// Makes the slot, with `failover` (PostgreSQL 17 and later) as one that standbys keep a copy of.
///
/// PostgreSQL waits for every transaction that is open at this moment, however long it stays open;
/// the caller says so, naming [`Replication::process_id`]'s blockers.
///
/// # Errors
/// [`SourceError::Server`]: no free slot, `wal_level` too low, no privilege, …
pub async fn create_slot(
    connection: &mut Replication,
    slot: &str,
    failover: bool,
) -> Result<Made, SourceError> {
    const CONTEXT: &str = "the slot could not be made";
    // Servers before 15 know the old list of options only.
    let options = if failover { "(SNAPSHOT 'export', FAILOVER)" } else { "EXPORT_SNAPSHOT" };
    let command = format!("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput {options}", quoted(slot));
    match connection.command(&command).await? {
        Ok(super::command::Answer::Rows(rows)) => rows
            .first()
            .and_then(|row| {
                let position = row.get(1)?.as_deref()?.parse().ok()?;
                Some(Made { position, snapshot: row.get(2)?.clone()? })
            })
            .ok_or_else(|| SourceError::Unexpected("no consistent point of the slot".to_owned())),
        Ok(super::command::Answer::CopyBoth) => {
            Err(SourceError::Unexpected("CopyBothResponse".to_owned()))
        }
        Err(error) => Err(SourceError::Server { context: CONTEXT, error }),
    }
}

/// Lets standbys keep a copy of a slot that is there (PostgreSQL 17 and later). Waits for as long as
/// somebody reads from the slot.
///
/// # Errors
/// [`SourceError::Server`]: no such slot, no privilege, …
pub async fn make_failover(connection: &mut Replication, slot: &str) -> Result<(), SourceError> {
    const CONTEXT: &str = "the slot could not be made a failover slot";
    let command = format!("ALTER_REPLICATION_SLOT {} (FAILOVER)", quoted(slot));
    match connection.command(&command).await? {
        Ok(_) => Ok(()),
        Err(error) => Err(SourceError::Server { context: CONTEXT, error }),
    }
}
