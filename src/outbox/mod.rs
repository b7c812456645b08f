//! The outbox: which relations are outboxes, and what their rows become.
//!
//! Pure: a row in, a [`Message`] out, or the reason why it is none. The columns of a table are
//! looked up once, when its Relation message comes; see [`Outbox::relation`]. A row that cannot
//! be a message is [`Row::Unfit`], and the caller must not pass over it.

mod emitted;
mod hash;
mod hashtext;
mod headers;
mod kept;
mod layout;
mod message;
mod row;
mod row_headers;
mod settings;
mod shard;
mod time;
mod unfit;

#[cfg(test)]
mod tests;

use hashbrown::HashMap;

pub use hashtext::hashtext;
pub use layout::{LayoutError, Missing};
pub use message::{Headers, Message, TableId};
pub use settings::{
    Columns, HeaderStyle, LayoutKind, Settings, SettingsError, TableName, WaitingColumns,
};
pub use shard::{Shard, ShardColumns, ShardError};
pub use unfit::{SkipReason, Unfit, UnfitReason};

use crate::lsn::Lsn;
use crate::pgoutput::{Insert, Logical, PgTime, Relation, Value};
use crate::template::Field;
use emitted::Emitted;
use headers::Plan;
use layout::{Layout, Wanted};
use row::{Fields, Rules, Scratch};

/// The outbox tables of one replication session.
#[derive(Debug)]
pub struct Outbox {
    tables: Vec<TableName>,
    wanted: Wanted,
    rules: Rules,
    logical_prefix: Option<String>,
    shard: Shard,
    /// Of outbox tables, whatever they are called when a row is written, and their places in `tables`.
    oids: Vec<(u32, Option<u16>)>,
    /// By oid; `None`: not an outbox.
    relations: HashMap<u32, Option<Layout>>,
    scratch: Scratch,
    /// What there is of the last row that was unfit.
    salvaged: Option<Message>,
}

/// What a row's transaction and the clock add to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// `{lsn}`: the LSN of the commit record.
    pub commit_lsn: Lsn,
    /// `{xid}`: the transaction id.
    pub xid: u32,
    /// `{commit_time}`: when it was committed.
    pub commit_time: PgTime,
    /// `{now}` and the sent time of the header styles: the wall clock.
    pub now: PgTime,
}

/// What a row is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// A message to be sent, and how many headers that the row may not set it has lost.
    Message(Message, Dropped),
    /// A message that cannot be sent. Nothing past it may be confirmed until it is kept elsewhere.
    Unfit(Unfit),
    /// No message at all.
    Skipped(SkipReason),
}

/// How many headers of a row were dropped because only walpost may set them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped(pub usize);

/// A row that does not go with the Relation messages of its session: the stream is not what we
/// take it for, and nothing of it may be confirmed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// No Relation message came for it.
    #[error("a row of relation {oid} came before the description of that relation")]
    UnknownRelation {
        /// The relation's oid.
        oid: u32,
    },
    /// More or fewer values than the relation has columns.
    #[error("a row of {table} does not have the {columns} values that its description promised")]
    Columns {
        /// `schema.name`.
        table: String,
        /// How many columns it has.
        columns: usize,
    },
}

impl Outbox {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`SettingsError`] names the setting that cannot be meant.
    pub fn new(settings: Settings) -> Result<Outbox, SettingsError> {
        settings.check()?;
        let headers = Plan::new(&settings)?;
        let transaction_in_templates = settings.templates().any(|(_, template)| {
            let of_transaction =
                |field| matches!(field, Field::Lsn | Field::Xid | Field::CommitTime);
            template.fields().any(of_transaction)
        });
        Ok(Outbox {
            tables: settings.tables(),
            wanted: Wanted::new(&settings),
            rules: Rules {
                destination: settings.destination,
                key: settings.key,
                emitted: settings.emitted,
                headers,
                max_frame_size: settings.max_frame_size,
                transaction_in_templates,
            },
            logical_prefix: settings.logical_prefix,
            shard: settings.shard,
            oids: Vec::new(),
            relations: HashMap::new(),
            scratch: Scratch::default(),
            salvaged: None,
        })
    }

    /// The tables that are outboxes, whether they exist or not.
    #[must_use]
    pub fn tables(&self) -> &[TableName] {
        &self.tables
    }

    /// The names and oids of the outbox tables: rows that are written while one has another name are its
    /// own.
    pub fn know(&mut self, oids: Vec<(String, u32)>) {
        let oids = oids.into_iter();
        self.oids =
            oids.map(|(name, oid)| (oid, self.place(|table| table.to_string() == name))).collect();
    }

    fn place(&self, is: impl Fn(&TableName) -> bool) -> Option<u16> {
        self.tables.iter().position(is).and_then(|place| u16::try_from(place).ok())
    }

    /// Forgets all relations: a new session sends them again.
    pub fn clear(&mut self) {
        self.relations.clear();
    }

    /// Takes in a Relation message. It replaces what was known of the relation.
    ///
    /// # Errors
    /// [`LayoutError`] where an outbox table lacks columns: an operator must act.
    pub fn relation(&mut self, relation: &Relation<'_>) -> Result<(), LayoutError> {
        self.relations.remove(&relation.oid);
        let named =
            |table: &TableName| table.schema == relation.namespace && table.name == relation.name;
        let by_oid = self.oids.iter().find(|(oid, _)| *oid == relation.oid);
        let is_outbox = by_oid.is_some() || self.tables.iter().any(named);
        let place = self.place(named).or(by_oid.and_then(|(_, place)| *place));
        let layout = is_outbox.then(|| self.wanted.find(relation, place)).transpose()?;
        self.relations.insert(relation.oid, layout);
        Ok(())
    }

    /// Makes a message of an inserted row.
    ///
    /// # Errors
    /// [`RowError`] where the row does not go with the Relation messages before it.
    pub fn row(&mut self, insert: &Insert<'_>, context: &Context) -> Result<Row, RowError> {
        let Some(layout) = known(&self.relations, insert.relation)? else {
            return Ok(Row::Skipped(SkipReason::OtherTable));
        };
        let Some(fields) = row::fields(layout, &insert.new) else {
            return Err(RowError::Columns {
                table: layout.table.clone(),
                columns: layout.roles.len(),
            });
        };
        if layout.scheduled_only && !row::is_scheduled(&fields) {
            return Ok(Row::Skipped(SkipReason::Status));
        }
        let (rules, scratch) = (&self.rules, &mut self.scratch);
        let composed = row::compose(rules, layout, &insert.new, &fields, context, scratch);
        self.salvaged = composed.is_err().then(|| row::salvage(layout, &fields, scratch));
        scratch.shrink();
        Ok(match composed {
            Ok((message, dropped)) => Row::Message(message, dropped),
            Err(reason) => unfit(layout, &fields, reason),
        })
    }

    /// What there is of the message of the row that [`row`](Self::row) or [`truncated`](Self::truncated) has
    /// just called unfit.
    pub fn salvaged(&mut self) -> Option<Message> {
        self.salvaged.take()
    }

    /// What a logical message is: one of `walpost.emit`, or none for us. One under our prefix that nobody can
    /// read is unfit rather than passed over, in one of the shards.
    pub fn logical(&mut self, message: &Logical<'_>, context: &Context) -> Row {
        if !self.is_own_logical(message.prefix) {
            return Row::Skipped(SkipReason::OtherPrefix);
        }
        if !message.transactional {
            return Row::Skipped(SkipReason::NonTransactional);
        }
        let emitted = Emitted::read(message.content);
        if !self.takes(emitted.as_ref().ok()) {
            return Row::Skipped(SkipReason::OtherShard);
        }
        let (rules, scratch) = (&self.rules, &mut self.scratch);
        let (emitted, composed) = match emitted {
            Ok(emitted) => {
                let composed = row::compose_emitted(rules, &emitted, context, scratch);
                (Some(emitted), composed)
            }
            Err(reason) => {
                scratch.clear();
                (None, Err(reason))
            }
        };
        let row = match composed {
            Ok((message, dropped)) => Row::Message(message, dropped),
            Err(reason) => {
                let whole = row::salvage_emitted(emitted.as_ref(), message.content, scratch);
                self.salvaged = Some(whole);
                unfit_emitted(message.prefix, emitted.as_ref(), reason)
            }
        };
        self.scratch.shrink();
        row
    }

    /// What a transactional logical message is that was too long to be read, with the beginning of its content.
    pub fn truncated_logical(&mut self, prefix: &str, beginning: &[u8]) -> Row {
        if !self.is_own_logical(prefix) {
            return Row::Skipped(SkipReason::OtherPrefix);
        }
        let emitted = Emitted::read(beginning).ok();
        if !self.takes(emitted.as_ref()) {
            return Row::Skipped(SkipReason::OtherShard);
        }
        let id = emitted.as_ref().map(Emitted::id).unwrap_or_default();
        self.salvaged = Some(Message::nothing_but(id, None));
        unfit_emitted(prefix, emitted.as_ref(), UnfitReason::TooLong)
    }

    fn takes(&self, emitted: Option<&Emitted<'_>>) -> bool {
        let (key, destination) =
            (emitted.and_then(Emitted::key), emitted.map(Emitted::destination));
        !self.shard.is_sharded() || self.shard.takes(key, destination)
    }

    fn is_own_logical(&self, prefix: &str) -> bool {
        self.logical_prefix.as_deref() == Some(prefix)
    }

    /// What a row is that was too long to be read: `values` are its leading ones.
    ///
    /// # Errors
    /// [`RowError::UnknownRelation`] where no Relation message came for it.
    pub fn truncated(&mut self, relation: u32, values: &[Value<'_>]) -> Result<Row, RowError> {
        let Some(layout) = known(&self.relations, relation)? else {
            return Ok(Row::Skipped(SkipReason::OtherTable));
        };
        let fields = row::leading_fields(layout, values);
        if layout.scheduled_only && !row::is_scheduled(&fields) {
            return Ok(Row::Skipped(SkipReason::Status));
        }
        let id = row::id_for_report(&fields).unwrap_or_default();
        self.salvaged = Some(Message::nothing_but(&id, layout.table_id));
        Ok(unfit(layout, &fields, UnfitReason::TooLong))
    }
}

fn known(relations: &HashMap<u32, Option<Layout>>, oid: u32) -> Result<Option<&Layout>, RowError> {
    relations.get(&oid).map(Option::as_ref).ok_or(RowError::UnknownRelation { oid })
}

/// A logical message under our prefix.
fn unfit_emitted(prefix: &str, emitted: Option<&Emitted<'_>>, reason: UnfitReason) -> Row {
    Row::Unfit(Unfit {
        table: format!("pg_logical_emit_message('{prefix}')"),
        id: emitted.map(|emitted| emitted.id().to_owned()).filter(|id| !id.is_empty()),
        reason,
    })
}

fn unfit(layout: &Layout, fields: &Fields<'_>, reason: UnfitReason) -> Row {
    Row::Unfit(Unfit { table: layout.table.clone(), id: row::id_for_report(fields), reason })
}
