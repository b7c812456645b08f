//! START_REPLICATION: the moment at which the slot becomes ours.

use super::command::{Answer, Replication, literal, quoted};
use super::error::SourceError;
use super::settings::Settings;
use super::stream::Session;

/// SQLSTATE of a slot that another connection holds.
const OBJECT_IN_USE: &str = "55006";

/// What became of START_REPLICATION.
pub enum Started {
    /// The slot is ours.
    Session(Box<Session>),
    /// Another walpost, or the walsender of a connection that is gone, holds it: wait.
    InUse(Box<Replication>, String),
}

/// Starts streaming from where the server itself knows that the slot stands.
///
/// # Errors
/// [`SourceError`]: the slot is not there or can't be used.
pub async fn start(
    settings: &Settings,
    mut connection: Replication,
) -> Result<Started, SourceError> {
    let command = format!(
        "START_REPLICATION SLOT {} LOGICAL 0/0 (proto_version '1', publication_names {}, messages 'true')",
        quoted(&settings.slot),
        literal(&quoted(&settings.publication)),
    );
    match connection.command(&command).await? {
        Ok(Answer::CopyBoth) => {
            Ok(Started::Session(Box::new(Session::new(connection, settings.status_interval))))
        }
        Ok(Answer::Rows(_)) => Err(SourceError::Ended),
        Err(error) if error.code == OBJECT_IN_USE => {
            Ok(Started::InUse(Box::new(connection), error.message.clone()))
        }
        Err(error) => Err(SourceError::Server { context: "the slot can't be read", error }),
    }
}
