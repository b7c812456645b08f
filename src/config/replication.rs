//! The section `replication`: the slot, the publication, and what happens when they are gone.

use std::time::Duration;

use super::section::Section;
use super::values::{self, choice};
use crate::outbox::Shard;

/// What is read from PostgreSQL, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replication {
    /// The logical replication slot. One relay at a time holds it.
    pub slot: String,
    /// The publication with the outbox tables.
    pub publication: String,
    /// Whether `run` makes what is missing on the first start, as `init` would.
    pub create: bool,
    /// Whether the slot is a failover slot.
    pub failover: Failover,
    /// The longest time between two standby status updates.
    pub status_interval: Duration,
    /// What to do when the slot is gone.
    pub on_slot_lost: OnSlotLost,
    /// This relay's share of the ordering keys.
    pub shard: Shard,
}

choice! {
    /// Whether the slot is copied to standbys (PostgreSQL 17 and later).
    Failover {
        /// Where the server can.
        Auto = "auto",
        /// Always; a server that cannot is an error.
        True = "true",
        /// Never.
        False = "false",
    }
}

choice! {
    /// What to do when the relay row is there and the slot is not.
    OnSlotLost {
        /// Stop with status 3.
        Halt = "halt",
        /// Make the slot anew and publish again what the certified snapshot does not cover.
        Recover = "recover",
    }
}

pub(super) fn read(section: &mut Section<'_>) -> Replication {
    let replication = Replication {
        slot: section.value("slot", "walpost", values::slot),
        publication: section.value("publication", "walpost", values::identifier),
        create: section.boolean("create", true),
        failover: section.choice("failover", Failover::Auto),
        status_interval: section.duration("status_interval", "10s", super::MS_100..=super::HOUR),
        on_slot_lost: section.choice("on_slot_lost", OnSlotLost::Halt),
        shard: section.section("shard", |section| Shard {
            index: section.number("index", 0, 0..=1023),
            count: section.number("count", 1, 1..=1024),
        }),
    };
    let Shard { index, count } = replication.shard;
    if index >= count {
        section.problem(
            "shard.index",
            format!("{index} is no share of {count}; the first is 0, the last {}", count - 1),
        );
    }
    replication
}
