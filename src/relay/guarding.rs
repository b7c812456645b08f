//! The guard at work: whether a relay may go on with the publication and the tables as they are, and what
//! follows where they have changed.

use super::first_start::FirstStart;
use super::pump::Request;
use super::stop::Stop;
use crate::store::guard::{Guard, KeptGuard, Verdict};
use crate::store::setup::{self, SetupError};
use crate::store::{Class, Store, StoreError};

/// What the guard goes by in a session.
#[derive(Clone, Debug)]
pub(super) struct Guarded {
    kept: Option<KeptGuard>,
}

impl Guarded {
    /// The first transaction id that was not given yet when the publication changed, while older ones are
    /// open.
    pub(super) fn unsettled(&self) -> Option<u64> {
        self.kept.as_ref()?.unsettled
    }

    /// Whether a change of the publication is not over yet: nothing is certified meanwhile.
    pub(super) fn is_unsettled(&self) -> bool {
        self.kept.as_ref().is_none_or(|kept| kept.unsettled.is_some())
    }
}

/// What was found.
#[derive(Default)]
pub(super) struct Finding {
    /// What the pump is to do; none: it may go on.
    pub(super) request: Option<Request>,
    /// What was waited for has ended.
    pub(super) settled: bool,
}

/// What the row says. None: it is another session's.
pub(super) async fn known(
    store: &Store,
    slot: &str,
    epoch: i64,
) -> Result<Option<Guarded>, StoreError> {
    let kept = store.kept_guard(slot, Some(epoch)).await?;
    Ok(kept.map(|kept| Guarded { kept }))
}

/// What the guard says at the beginning of a session.
pub(super) enum Entry {
    /// Go on; what was found is what was kept, or nothing was kept.
    Same(KeptGuard),
    /// Rows may be missing: what is not known to be delivered is published again.
    Recover(KeptGuard, String),
    /// An operator must act.
    Stop(Stop),
}

/// Looks before a session reads anything. With `told`, an operator has said that what may be missing is
/// to be published; `settled`: what was open when the publication changed has ended.
pub(super) async fn enter(
    store: &Store,
    wanted: &FirstStart,
    told: bool,
    settled: bool,
) -> Result<Entry, StoreError> {
    if let Some(stop) = misfit(store, wanted).await? {
        return Ok(Entry::Stop(stop));
    }
    let kept = store.kept_guard(&wanted.source.slot, None).await?.flatten();
    // The ids first: whoever begins later finds the publication as it is found here.
    let (next, _) = store.transaction_ids().await?;
    let Some(found) = store.guard(&wanted.setup.publication, &wanted.setup.tables).await? else {
        return Ok(Entry::Stop(vanished(wanted)));
    };
    let verdict = match &kept {
        Some(kept) => found.since(&kept.found, &wanted.setup.publication),
        None => Verdict::Same,
    };
    let unsettled = kept.as_ref().and_then(|kept| kept.unsettled);
    let decoded = kept.as_ref().map_or(0, |kept| kept.decoded);
    let mut fresh = Vec::new();
    if let Some(kept) = &kept {
        fresh.clone_from(&kept.fresh);
        fresh.extend(found.added(&kept.found));
    }
    Ok(match verdict {
        Verdict::Same if settled => {
            let why = "transactions have ended that were open when the publication changed";
            Entry::Recover(KeptGuard { found, unsettled: None, decoded, fresh }, why.to_owned())
        }
        Verdict::Same if told => {
            let why = "an operator has asked for it".to_owned();
            Entry::Recover(KeptGuard { found, unsettled, decoded, fresh }, why)
        }
        Verdict::Same => Entry::Same(KeptGuard { found, unsettled, decoded, fresh }),
        Verdict::Recover { why, unsettled: open } => {
            let unsettled = if open { Some(next) } else { unsettled };
            Entry::Recover(KeptGuard { found, unsettled, decoded, fresh }, why)
        }
        Verdict::Stop(why) if told => {
            Entry::Recover(KeptGuard { found, unsettled: Some(next), decoded, fresh }, why)
        }
        Verdict::Stop(why) => Entry::Stop(changed(&why)),
    })
}

/// Looks while a session goes on.
pub(super) async fn look(
    store: &Store,
    wanted: &FirstStart,
    guarded: Option<&Guarded>,
) -> Result<Finding, StoreError> {
    if let Some(stop) = misfit(store, wanted).await? {
        // Without the publication the slot is lost, and whoever opens the next session says so.
        let slot = store.slot(&wanted.setup.slot).await?;
        let gone = store.publication_oid(&wanted.setup.publication).await?.is_none()
            || slot.is_none_or(|slot| slot.lost().is_some());
        let request = if gone { Request::Reopen } else { Request::Halt(stop) };
        return Ok(Finding { request: Some(request), settled: false });
    }
    let Some(kept) = guarded.and_then(|guarded| guarded.kept.as_ref()) else {
        return Ok(Finding::default());
    };
    let found: Option<Guard> = store.guard(&wanted.setup.publication, &wanted.setup.tables).await?;
    let Some(found) = found else {
        let request = Some(Request::Halt(vanished(wanted)));
        return Ok(Finding { request, settled: false });
    };
    let request = match found.since(&kept.found, &wanted.setup.publication) {
        Verdict::Same => None,
        // The next session finds the same, and what is missing.
        Verdict::Recover { .. } => Some(Request::Reopen),
        Verdict::Stop(why) => Some(Request::Halt(changed(&why))),
    };
    let settled = match kept.unsettled {
        Some(next) if request.is_none() => store.transaction_ids().await?.1 >= next,
        _ => false,
    };
    Ok(Finding { request, settled })
}

/// Something does not fit, whatever it was before.
async fn misfit(store: &Store, wanted: &FirstStart) -> Result<Option<Stop>, StoreError> {
    match setup::check(store, &wanted.setup).await {
        Ok(_) => Ok(None),
        Err(SetupError::Store(error) | SetupError::Denied(error)) => Err(error),
        Err(error) if error.class() == Class::Operator => Ok(Some(Stop::for_good(
            error,
            "then 'walpost run --recover' publishes what was passed over",
        ))),
        Err(_) => Ok(None),
    }
}

fn changed(why: &str) -> Stop {
    Stop::for_good(
        format_args!("{why}: rows committed meanwhile may not have been published"),
        "'walpost run --recover' publishes whatever is not known to be delivered, then goes on \
         (docs/operations.md, 'The publication changed')",
    )
}

fn vanished(wanted: &FirstStart) -> Stop {
    let publication = crate::store::name::one_line(&wanted.setup.publication);
    changed(&format!("publication {publication} or an outbox table is not there"))
}
