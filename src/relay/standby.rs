//! Waiting for a slot that somebody else holds.

use std::time::Duration;

use tracing::debug;

use crate::store::{ConnectSettings, Store, StoreError};

/// How often the slot is looked at.
const LOOK_EACH: Duration = Duration::from_millis(250);
/// How often the slot is tried where it cannot be looked at.
const TRY_EACH: Duration = Duration::from_secs(5);

/// Looks at the slot over SQL. To try it instead costs the server an error in its log each time.
pub(super) struct Standby<'a> {
    sql: &'a ConnectSettings,
    slot: &'a str,
    store: Option<Store>,
}

impl<'a> Standby<'a> {
    /// Connects when it first waits.
    pub(super) fn new(sql: &'a ConnectSettings, slot: &'a str) -> Self {
        Standby { sql, slot, store: None }
    }

    /// Until the slot should be tried: nobody holds it any more, or nobody can tell.
    pub(super) async fn wait(&mut self) {
        loop {
            tokio::time::sleep(LOOK_EACH).await;
            let was_connected = self.store.is_some();
            match self.holder().await {
                Ok(Some(Some(_))) => {}
                Ok(Some(None)) => return,
                // It is gone, and trying says so.
                Ok(None) => return tokio::time::sleep(TRY_EACH).await,
                Err(error) => {
                    debug!("nobody can tell who holds the slot: {error}");
                    self.store = None;
                    // With the server perhaps: then the replication connection is lost, too.
                    if was_connected {
                        return;
                    }
                    return tokio::time::sleep(TRY_EACH).await;
                }
            }
        }
    }

    async fn holder(&mut self) -> Result<Option<Option<i32>>, StoreError> {
        let store = match self.store.take() {
            Some(store) => store,
            None => Store::connect(self.sql).await?,
        };
        self.store.insert(store).holder(self.slot).await
    }
}
