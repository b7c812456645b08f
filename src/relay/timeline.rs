//! A failover, seen from the relay: the server goes on along another timeline, and gives positions a
//! second time. What was published of the rows that it does not have can't be called back; it is named.

use tracing::{debug, info, warn};

use super::pump::Pump;
use crate::lsn::Lsn;
use crate::source::{self, Origin, Session};

/// The server is on another timeline than before.
pub(super) struct Turn {
    before: u32,
    /// Where the timeline of before ended; none: that is not known.
    end: Option<Lsn>,
    /// Whether this process has itself read on the timeline of before.
    lived: bool,
}

/// Whether there was a turn since the last session: this process's (`last`), else the one that the
/// slot's row tells of.
pub(super) async fn turn(
    settings: &source::Settings,
    last: Option<Origin>,
    row: Option<u32>,
    session: &Session,
) -> Option<Turn> {
    let here = session.origin;
    let last = last.filter(|last| last.system_identifier == here.system_identifier);
    let before = last.map(|last| last.timeline).or(row);
    let before = before.filter(|before| *before != here.timeline)?;
    let now = here.timeline;
    let end = match source::switch_point(settings, &session.address, before, here).await {
        Ok(end) => end,
        Err(error) => {
            debug!("where timeline {before} ended can't be read: {error}");
            None
        }
    };
    warn!(
        before,
        now,
        "PostgreSQL is on another timeline: a failover, or a restore; what is not known to be delivered is \
         published again"
    );
    Some(Turn { before, end, lived: last.is_some() })
}

impl Pump {
    /// Says what was published and is not on this server.
    pub(super) fn turned(&mut self, turn: &Turn) {
        let Turn { before, end, lived } = *turn;
        self.engine.table_lost();
        // The ids of what is not on this server may be given to other rows.
        self.engine.forget_marks_from(end.unwrap_or(Lsn::INVALID));
        let Some(end) = end else {
            self.published.take_from(Lsn::INVALID);
            warn!(
                "where timeline {before} ended is not known: rows may be missing here that were published"
            );
            return;
        };
        // These are of transactions that the new timeline does not have, and will be sent again with
        // whatever else has no receipt.
        let unreceipted = self.engine.unreceipted_from(end);
        if unreceipted > 0 {
            warn!(
                "{unreceipted} messages on their way to the broker are of rows that this server does not have"
            );
        }
        match self.published.take_from(end) {
            Some(orphans) => {
                let number = if orphans.at_least { "at least " } else { "" };
                let (from, to) = orphans.range;
                let unnamed = orphans.messages - orphans.ids.len();
                let before_them = match unnamed {
                    0 => String::new(),
                    _ => format!(", and {unnamed} before them"),
                };
                warn!(
                    "timeline {before} ended at {end} on this server, and {number}{} messages were published of \
                     rows committed at LSN {from} to {to}, which it does not have: {}{before_them}",
                    orphans.messages,
                    orphans.ids.join(" "),
                );
            }
            None if lived => {
                info!(
                    "timeline {before} ended at {end}; this server has the rows of all that was published"
                );
            }
            None => warn!(
                "timeline {before} ended at {end} on this server: it does not have rows that were committed \
                 there later; this walpost was started since and can't say whether some were published"
            ),
        }
    }
}
