//! Deletes what the inbox need not know any more.

use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, info};

use super::settings::{Handler, Settings};
use crate::store::{Inbox, StoreError};

/// A message that comes again after so long is handled again. Longer than rows of an outbox are kept by
/// default, out of which messages may be replayed.
const KEPT: Duration = Duration::from_secs(30 * 86_400);
/// How often is looked.
const EVERY: Duration = Duration::from_secs(3600);
/// So many rows at a time: nobody waits for long.
const SOME: i64 = 1000;

/// Until it is aborted.
pub(super) async fn run(settings: Arc<Settings>) {
    if let Handler::Print = settings.handler {
        return;
    }
    loop {
        match settings.open_inbox().await {
            Ok(inbox) => match prune(&inbox).await {
                Ok(0) => {}
                Ok(gone) => {
                    info!(queue = settings.queue, gone, "old rows of the inbox are deleted")
                }
                Err(error) => debug!("{error}"),
            },
            Err(error) => debug!("{error}"),
        }
        // Rows grow old by time alone.
        tokio::time::sleep(EVERY).await;
    }
}

async fn prune(inbox: &Inbox) -> Result<u64, StoreError> {
    let mut gone = 0;
    loop {
        let some = inbox.prune(KEPT, SOME).await?;
        gone += some;
        if some < SOME.unsigned_abs() {
            return Ok(gone);
        }
    }
}
