//! The slot held against its row in `walpost.relay`: a slot that was never made is told from one that
//! was lost, and a database that was copied or restored from the one that the row speaks of.

use std::fmt;
use std::time::Duration;

use super::first_start::FirstStart;
use crate::store::name::{literal, one_line};
use crate::store::{RelayGap, RelayRow, RelayState, Server, SlotState, Store, StoreError};

/// What there is; a relay may go on from it, or make what is missing.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    /// The slot.
    pub(super) slot: SlotStanding,
    /// Whether there is a table for the row.
    pub(super) table: bool,
    /// The row.
    pub(super) row: Option<RelayRow>,
    /// The slot was made before and is lost.
    pub(super) lost: Option<Lost>,
}

impl Standing {
    /// A lost slot is an error unless it may be made again.
    pub(super) fn allowed(self, remake_lost: bool) -> Result<Self, Unfit> {
        match self.lost {
            Some(lost) if !remake_lost => Err(Unfit::Lost(Box::new(lost))),
            _ => Ok(self),
        }
    }
}

/// Whether the slot is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SlotStanding {
    /// It is not.
    Missing,
    /// Its WAL or its publication is gone: nothing can be read from it any more.
    Invalidated,
    /// It is.
    There,
}

/// What was made before and does not fit any more. The text says what an operator can do.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Unfit {
    /// The slot was there, and is not any more.
    #[error("{0}")]
    Lost(Box<Lost>),
    /// The row came with a dump, or the cluster was upgraded.
    #[error(
        "the row of slot {} in walpost.relay is of another database (system identifier {}, database oid \
         {}; this one has {}, {}): a dump was restored here, or the server was upgraded; 'walpost init \
         --adopt' takes it over, and says what that assumes (docs/operations.md, 'Another database')",
        one_line(.slot), .row.system_identifier, .row.database_oid, .here.system_identifier,
        .here.database_oid
    )]
    OtherCluster {
        /// The slot.
        slot: String,
        /// The row.
        row: RelayRow,
        /// The server.
        here: Box<Server>,
    },
}

/// A slot that is gone, and what is known of the gap.
#[derive(Clone, Debug)]
pub struct Lost {
    slot: String,
    /// Why it can't be read, where it is still there.
    reason: Option<String>,
    gap: RelayGap,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Lost { slot, reason, gap } = self;
        let ago = humantime::format_duration(Duration::from_secs(gap.ago.as_secs()));
        match reason {
            None => write!(f, "slot {} does not exist any more: ", one_line(slot))?,
            Some(reason) => {
                write!(f, "slot {} is lost ({}): ", one_line(slot), one_line(reason))?;
            }
        }
        match gap.confirmed_lsn {
            Some(lsn) => write!(f, "it was confirmed up to {lsn} at least, ")?,
            None => f.write_str("how far it was confirmed is not known, ")?,
        }
        write!(f, "the WAL ends at {} now", gap.end_of_wal)?;
        if let Some(bytes) = gap.bytes {
            write!(f, ", {bytes} bytes on")?;
        }
        write!(
            f,
            "; what was committed since {} UTC ({ago} ago) may not be published. Either publish those rows \
             out of the table: 'walpost run --recover' (docs/operations.md, 'The slot is lost'), or accept \
             the gap: ",
            gap.since,
        )?;
        let name = one_line(&literal(slot));
        if reason.is_some() {
            write!(f, "SELECT pg_drop_replication_slot({name}); ")?;
        }
        write!(
            f,
            "DELETE FROM walpost.relay WHERE slot = {name}, then walpost init with outbox.backfill: false"
        )
    }
}

/// Why it could not be looked at, or what does not fit.
pub(super) enum LookError {
    Store(StoreError),
    Unfit(Unfit),
}

impl From<StoreError> for LookError {
    fn from(error: StoreError) -> Self {
        LookError::Store(error)
    }
}

/// Looks at slot and row.
pub(super) async fn look(store: &Store, wanted: &FirstStart) -> Result<Standing, LookError> {
    let slot = wanted.setup.slot.as_str();
    let standing = |state: Option<&SlotState>| match state {
        None => SlotStanding::Missing,
        Some(state) if state.lost().is_some() => SlotStanding::Invalidated,
        Some(_) => SlotStanding::There,
    };
    if !store.has_relay_table().await? {
        let slot = standing(store.slot(slot).await?.as_ref());
        return Ok(Standing { slot, table: false, row: None, lost: None });
    }
    // The row first: a slot that another one makes meanwhile is there after its row.
    let row = store.relay_row(slot).await?;
    if let Some(row) = row {
        let here = store.server().await?;
        if (row.system_identifier, row.database_oid) != (here.system_identifier, here.database_oid)
        {
            let (slot, here) = (slot.to_owned(), Box::new(here));
            return Err(LookError::Unfit(Unfit::OtherCluster { slot, row, here }));
        }
    }
    let state = store.slot(slot).await?;
    let mut there = standing(state.as_ref());
    let mut reason = state.as_ref().and_then(SlotState::lost).map(str::to_owned);
    let publication = &wanted.setup.publication;
    let kept = store.kept_guard(slot, None).await?.flatten();
    // That it had once: a name that is misspelt is another matter.
    let had = kept.as_ref().and_then(|kept| kept.found.oid_of(publication));
    if let Some(had) = had.filter(|_| there == SlotStanding::There) {
        let has = store.publication_oid(publication).await?;
        if has.as_deref() != Some(had) {
            // Nor if it was made again: what was written meanwhile was written without it.
            there = SlotStanding::Invalidated;
            let what = if has.is_some() { "was dropped and made anew" } else { "is gone" };
            reason = Some(format!("publication {} {what}", one_line(publication)));
        }
    }
    if there == SlotStanding::There
        && let Some(lag) = store.lag(slot).await?
        && lag.confirmed_flush_lsn.is_some_and(|confirmed| confirmed > lag.insert_lsn)
    {
        // Whatever is committed before the WAL gets there would be passed over.
        there = SlotStanding::Invalidated;
        reason = Some("it stands past the end of the WAL: it is another server's".to_owned());
    }
    let mut lost = None;
    if there != SlotStanding::There && row.is_some_and(|row| row.state != RelayState::Creating) {
        lost = store.relay_gap(slot).await?.map(|gap| Lost { slot: slot.to_owned(), reason, gap });
    }
    Ok(Standing { slot: there, table: true, row, lost })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::Lsn;

    #[test]
    fn a_lost_slot_is_told_with_its_gap_and_both_ways_on() {
        let mut gap = RelayGap {
            confirmed_lsn: Some(Lsn(0x1000)),
            since: "2026-01-01 00:00:00".to_owned(),
            ago: Duration::from_millis(61_400),
            end_of_wal: Lsn(0x1800),
            bytes: Some(2048),
        };
        let lost = |slot: &str, gap| Lost { slot: slot.to_owned(), reason: None, gap };
        let text = lost("it's", gap.clone()).to_string();
        let facts = [
            "0/1000 at least, ",
            "since 2026-01-01 00:00:00 UTC (1m 1s ago)",
            "0/1800 now, 2048 bytes on;",
        ];
        assert!(facts.iter().all(|fact| text.contains(fact)), "{text}");
        assert!(text.contains("'walpost run --recover' (docs"), "{text}");
        assert!(text.contains("WHERE slot = 'it''s', then walpost init with"), "{text}");
        let invalidated = Lost { reason: Some("wal_removed".to_owned()), ..lost("s", gap.clone()) };
        let text = invalidated.to_string();
        assert!(text.starts_with("slot s is lost (wal_removed): "), "{text}");
        assert!(text.contains("gap: SELECT pg_drop_replication_slot('s'); DELETE"), "{text}");
        (gap.confirmed_lsn, gap.bytes) = (None, None);
        let text = lost("s", gap).to_string();
        assert!(text.contains("is not known") && !text.contains("bytes"), "{text}");
    }
}
