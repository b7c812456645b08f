//! Timelines: at a promotion PostgreSQL begins a new one, and gives the positions behind the last
//! one's end a second time, to other rows.

use super::command::{Answer, Origin, Replication};
use super::connect::connect;
use super::error::SourceError;
use super::settings::Settings;
use crate::lsn::Lsn;
use crate::net::Address;

/// Which server this is, and the timeline that it writes on.
pub(super) async fn identify(connection: &mut Replication) -> Result<Origin, SourceError> {
    let row = row(connection, "IDENTIFY_SYSTEM").await?;
    let column = |at: usize| row.get(at)?.as_deref();
    let origin = || {
        Some(Origin {
            system_identifier: column(0)?.parse().ok()?,
            timeline: column(1)?.parse().ok()?,
        })
    };
    origin().ok_or_else(|| SourceError::Unexpected("no answer to IDENTIFY_SYSTEM".to_owned()))
}

/// Where the timeline `before` ended on the way to that of the server at `address`; none: it is no
/// ancestor. Positions from there on that were read on `before` are those of rows that this server
/// does not have.
///
/// # Errors
/// [`SourceError`]: also where another server has come there meanwhile.
pub async fn switch_point(
    settings: &Settings,
    address: &Address,
    before: u32,
    now: Origin,
) -> Result<Option<Lsn>, SourceError> {
    // A connection of its own: what comes may be anything, since operators name restore points.
    let settings = Settings { hosts: vec![address.clone()], ..settings.clone() };
    let mut connection = connect(&settings).await?;
    if connection.origin != now {
        return Err(SourceError::OtherServer(connection.address.to_string()));
    }
    let row = row(&mut connection, &format!("TIMELINE_HISTORY {}", now.timeline)).await?;
    Ok(row.get(1).and_then(|content| end_of(before, content.as_deref()?)))
}

/// A history file has a line for each timeline that came before: its number, where it ended, why.
fn end_of(timeline: u32, history: &str) -> Option<Lsn> {
    history.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let number: u32 = fields.next()?.parse().ok()?;
        (number == timeline).then(|| fields.next()?.parse().ok())?
    })
}

async fn row(
    connection: &mut Replication,
    command: &str,
) -> Result<Vec<Option<String>>, SourceError> {
    match connection.command(command).await? {
        Ok(Answer::Rows(rows)) => Ok(rows.into_iter().next().unwrap_or_default()),
        Ok(Answer::CopyBoth) => Err(SourceError::Unexpected("CopyBothResponse".to_owned())),
        Err(error) => Err(SourceError::Server { context: "asking for the timeline", error }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_each_ancestor_is_in_the_history() {
        let history = "1\t0/3000148\tno recovery target specified\n\n\
            # a comment\n2\t1/A000000\tat restore point \"x 3\"\n";
        assert_eq!(end_of(1, history), Some(Lsn(0x300_0148)));
        assert_eq!(end_of(2, history), Some(Lsn(0x1_0A00_0000)));
        assert_eq!(end_of(3, history), None);
        assert_eq!(end_of(1, ""), None);
    }
}
