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

/// Makes the slot.
///
/// PostgreSQL waits for every transaction that is open at this moment, however long it stays open;
/// the caller says so, naming [`Replication::process_id`]'s blockers.
///
/// # Errors
/// [`SourceError::Server`]: no free slot, `wal_level` too low, no privilege, …
pub async fn create_slot(connection: &mut Replication, slot: &str) -> Result<Made, SourceError> {
    const CONTEXT: &str = "the slot could not be made";
    let command =
        format!("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput EXPORT_SNAPSHOT", quoted(slot));
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
