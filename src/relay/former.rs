//! A former primary: a failover has left it behind, and it accepts writes still, or again. What is committed there
//! is nobody's who has followed the failover, so walpost does not go back to it unseen.

use std::time::Duration;

use tracing::{debug, warn};

use super::stop::Stop;
use crate::source::{self, Origin, Session};

/// How long another host of the url may take to answer. The slot is held meanwhile.
const PATIENCE: Duration = Duration::from_secs(2);
const REMEDY: &str = "shut the former primary down, and make it a standby (pg_rewind) before it comes back; if \
    it is the one to go on with, shut the other down, then start walpost again (docs/operations.md, 'A failover')";

/// Refuses a server that is on an older timeline than the last session (`last`), than the slot's row
/// (`row`), or than another host of the url that accepts writes. The server itself can't know: its row is as
/// old as it is.
pub(super) async fn check(
    settings: &source::Settings,
    session: &Session,
    last: Option<Origin>,
    row: Option<u32>,
) -> Result<(), Stop> {
    let (address, here) = (&session.address, session.origin);
    let last = last.filter(|last| last.system_identifier == here.system_identifier);
    let read = last.map(|last| last.timeline).max(row);
    if let Some(read) = read.filter(|read| *read > here.timeline) {
        return Err(Stop::for_good(
            format!(
                "{address} is on timeline {}, and walpost has read on timeline {read} before: a former primary \
                 accepts writes, or an older state was restored",
                here.timeline
            ),
            REMEDY,
        ));
    }
    // Those before it were asked first, and did not accept writes.
    let behind = settings.hosts.iter().skip_while(|host| *host != address).skip(1);
    for host in behind {
        let alone = source::Settings { hosts: vec![host.clone()], ..settings.clone() };
        let there = match tokio::time::timeout(PATIENCE, source::connect(&alone)).await {
            Ok(Ok(connection)) => connection.origin,
            Ok(Err(error)) => {
                debug!(%host, "is no second primary: {error}");
                continue;
            }
            Err(_) => {
                debug!(%host, "does not answer: whether it is a second primary is not known");
                continue;
            }
        };
        if there.system_identifier != here.system_identifier {
            continue;
        }
        if there.timeline > here.timeline {
            return Err(Stop::for_good(
                format!(
                    "{address} accepts writes on timeline {}, and {host} on timeline {}: {address} is a former \
                     primary",
                    here.timeline, there.timeline
                ),
                REMEDY,
            ));
        }
        if there.timeline < here.timeline {
            warn!(
                "{host} accepts writes on timeline {}, too: it is a former primary, and what is committed there \
                 is not published; shut it down",
                there.timeline
            );
        }
    }
    Ok(())
}
