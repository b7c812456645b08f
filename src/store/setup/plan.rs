//! The judgement: what is to be made, what does not fit. Pure, so that every case is a test.

use super::SetupSettings;
use super::findings::Findings;
use super::misfit::Misfit;
use super::sharding;
use crate::config::Failover;
use crate::lsn::Lsn;
use crate::store::name::{TableName, one_line};
use crate::store::publication::{PublicationState, PublishedTable};
use crate::store::schema::{self, SchemaState};
use crate::store::slot::SlotState;
use crate::store::table::TableState;

/// The first `server_version_num` with failover slots.
const FAILOVER_SLOTS: u32 = 170_000;

/// What is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Upgrade the schema from this version (0: install it); none: leave it.
    pub upgrade_from: Option<i32>,
    /// What to do about the publication.
    pub publication: PublicationStep,
    /// Whether to make the slot.
    pub create_slot: bool,
    /// Whether standbys are to keep a copy of it, where it is made.
    pub failover: bool,
    /// Whether standbys are to keep a copy of the slot that is there, and do not.
    pub make_failover: bool,
    /// What an operator should know beside.
    pub notes: Vec<String>,
}

/// What to do about the publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicationStep {
    /// It is there and fits.
    Nothing,
    /// Make it, with all outbox tables.
    Create(Vec<PublishedTable>),
    /// Add these.
    Add(Vec<PublishedTable>),
}

impl Plan {
    /// The plan for a database of which nothing is known: make everything.
    #[must_use]
    pub fn from_nothing(settings: &SetupSettings) -> Plan {
        Plan {
            upgrade_from: Some(0),
            publication: PublicationStep::Create(sharding::unseen(settings)),
            create_slot: true,
            failover: settings.failover == Failover::True,
            make_failover: false,
            notes: Vec::new(),
        }
    }

    /// Whether nothing is to be made.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.upgrade_from.is_none()
            && self.publication == PublicationStep::Nothing
            && !self.create_slot
            && !self.make_failover
    }

    /// Whether a table is added while the slot exists, so that older rows of it never come.
    #[must_use]
    pub fn adds_to_live_slot(&self, findings: &Findings) -> bool {
        matches!(self.publication, PublicationStep::Add(_)) && findings.slot.is_some()
    }
}

/// Whether this is the table that the schema `walpost` brings.
#[must_use]
pub fn is_own_outbox(table: &TableName) -> bool {
    table.schema == "walpost" && table.name == "outbox"
}

/// Compares what is there with what is wanted. The plan holds what can be made without losing
/// anything; it may be carried out only where nothing is a misfit.
#[must_use]
pub fn judge(findings: &Findings, settings: &SetupSettings) -> (Plan, Vec<Misfit>) {
    let mut misfits = Vec::new();
    let mut notes = Vec::new();
    if findings.server.wal_level != "logical" {
        misfits.push(Misfit::WalLevel(findings.server.wal_level.clone()));
    }
    let upgrade_from = judge_schema(findings.schema, &mut notes);
    for (table, state) in &findings.tables {
        let database = &findings.server.database;
        misfits.extend(judge_table(table, state.as_ref(), upgrade_from, database));
    }
    let wanted = sharding::wanted(findings, settings, &mut misfits);
    let publication = match &findings.publication {
        None => {
            // To drop a slot that is not ours is nobody's remedy.
            let ours = |slot: &SlotState| {
                let database = Some(findings.server.database.as_str());
                slot.plugin.as_deref() == Some("pgoutput") && slot.database.as_deref() == database
            };
            if findings.slot.as_ref().is_some_and(ours) {
                let (publication, slot) = (settings.publication.clone(), settings.slot.clone());
                misfits.push(Misfit::PublicationMissing(publication, slot));
            }
            PublicationStep::Create(wanted)
        }
        Some(state) => {
            judge_publication(state, findings, settings, &wanted, &mut misfits, &mut notes)
        }
    };
    let create_slot = judge_slot(findings, settings, &mut misfits);
    let failover = judge_failover(findings.server.version, settings.failover, &mut misfits);
    let make_failover = failover && findings.slot.as_ref().is_some_and(|slot| !slot.failover);
    let plan = Plan { upgrade_from, publication, create_slot, failover, make_failover, notes };
    (plan, misfits)
}

/// Whether standbys are to keep a copy of the slot.
fn judge_failover(version: u32, wanted: Failover, misfits: &mut Vec<Misfit>) -> bool {
    let can = version >= FAILOVER_SLOTS;
    match wanted {
        Failover::False => false,
        Failover::Auto => can,
        Failover::True => {
            if !can {
                misfits.push(Misfit::NoFailoverSlots(version / 10_000));
            }
            can
        }
    }
}

/// Which version to upgrade from, if any.
fn judge_schema(found: SchemaState, notes: &mut Vec<String>) -> Option<i32> {
    let newest = schema::newest();
    match found {
        SchemaState::Version(version) if version < newest => Some(version),
        SchemaState::Version(version) => {
            if version > newest {
                notes.push(format!(
                    "schema walpost is of version {version}, made by a newer walpost (this one \
                     knows {newest})"
                ));
            }
            None
        }
        SchemaState::Unreadable => {
            notes.push(
                "the version of schema walpost cannot be read: GRANT USAGE ON SCHEMA walpost and \
                 SELECT ON walpost.schema_version to this role"
                    .to_owned(),
            );
            None
        }
    }
}

/// Whether rows of the table will reach the slot.
fn judge_table(
    table: &TableName,
    state: Option<&TableState>,
    upgrade_from: Option<i32>,
    database: &str,
) -> Option<Misfit> {
    // The steps that make walpost.outbox have not been taken yet.
    let to_be_made = is_own_outbox(table) && upgrade_from.is_some_and(|version| version < 2);
    match state {
        None if to_be_made => None,
        None => Some(Misfit::TableMissing(table.clone(), database.to_owned())),
        Some(_) if to_be_made => Some(Misfit::ForeignOutbox(table.clone())),
        Some(state) if !state.is_table => Some(Misfit::NoTable(table.clone())),
        Some(state) if !state.logged => Some(Misfit::NotLogged(table.clone())),
        Some(_) => None,
    }
}

/// Whether every insert into every table, whole, is published under the table's own name; of a shard,
/// every one of its own.
fn judge_publication(
    state: &PublicationState,
    findings: &Findings,
    settings: &SetupSettings,
    wanted: &[PublishedTable],
    misfits: &mut Vec<Misfit>,
    notes: &mut Vec<String>,
) -> PublicationStep {
    let name = &settings.publication;
    if !state.insert {
        let others = [
            (state.update, "update, "),
            (state.delete, "delete, "),
            (state.truncate, "truncate, "),
        ];
        let kept = others.iter().filter(|(on, _)| *on).map(|(_, operation)| *operation).collect();
        misfits.push(Misfit::NoInserts(name.clone(), kept));
    }
    let mut missing = Vec::new();
    for ((table, found), covered) in findings.tables.iter().zip(wanted) {
        if found.as_ref().is_some_and(|found| found.partitioned) && !state.via_root {
            misfits.push(Misfit::NotViaRoot(name.clone(), table.clone()));
            continue;
        }
        match state.table(table) {
            // FOR ALL TABLES leaves out only what is no logged table, which is a misfit already.
            None if state.all_tables => {}
            None => missing.push(covered.clone()),
            Some(published) => {
                let filter = published.row_filter.as_ref();
                misfits.extend(sharding::judge_filter(state, filter, covered, wanted, settings));
                if published.columns.is_some() {
                    misfits.push(Misfit::ColumnList(name.clone(), table.clone()));
                }
            }
        }
    }
    let others = state.tables.iter().filter(|p| !settings.tables.contains(&p.table)).count();
    if others > 0 {
        notes.push(format!(
            "publication {} also covers {others} table(s) that are no outbox: walpost reads past \
             them, which costs time",
            one_line(name)
        ));
    }
    if missing.is_empty() { PublicationStep::Nothing } else { PublicationStep::Add(missing) }
}

/// Whether the slot is to be made.
fn judge_slot(findings: &Findings, settings: &SetupSettings, misfits: &mut Vec<Misfit>) -> bool {
    let (name, capacity) = (&settings.slot, findings.capacity);
    match &findings.slot {
        None => {
            if capacity.walsenders >= capacity.max_walsenders {
                misfits.push(Misfit::NoFreeWalsender(capacity.max_walsenders));
            }
            if capacity.slots >= capacity.max_slots {
                misfits.push(Misfit::NoFreeSlot(capacity.max_slots));
            }
            true
        }
        Some(slot) => {
            misfits.extend(judge_existing_slot(name, slot, &findings.server.database));
            false
        }
    }
}

/// Whether the slot that is there can be read by walpost.
fn judge_existing_slot(name: &str, slot: &SlotState, database: &str) -> Option<Misfit> {
    let name = name.to_owned();
    if slot.plugin.as_deref() != Some("pgoutput") {
        return Some(Misfit::SlotPlugin(name, slot.plugin.clone()));
    }
    if let Some(other) = slot.database.as_deref().filter(|other| *other != database) {
        return Some(Misfit::SlotDatabase(name, other.to_owned()));
    }
    if slot.temporary {
        return Some(Misfit::SlotTemporary(name));
    }
    if slot.two_phase {
        return Some(Misfit::SlotTwoPhase(name));
    }
    let reason = slot.lost()?.to_owned();
    Some(Misfit::SlotLost(name, reason, slot.confirmed_flush_lsn.unwrap_or(Lsn::INVALID)))
}
