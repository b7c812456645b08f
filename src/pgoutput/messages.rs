//! The messages of pgoutput protocol version 1, borrowed from the bytes they came in.

use super::tuple::Tuple;
use crate::lsn::Lsn;
use crate::pgtime::PgTime;

/// One message of the stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Message<'a> {
    /// `B`: a transaction begins.
    Begin(Begin),
    /// `C`: it is committed.
    Commit(Commit),
    /// `O`: the transaction came from another node.
    Origin(Origin<'a>),
    /// `R`: what a relation looks like; sent before its first row and after each change of it.
    Relation(Relation<'a>),
    /// `Y`: a type that is not built in.
    Type(Type<'a>),
    /// `I`: a row was inserted.
    Insert(Insert<'a>),
    /// `U`: a row was updated; the publication asks for none, but one made by hand may send them.
    Update(Update<'a>),
    /// `D`: a row was deleted; as for updates.
    Delete(Delete<'a>),
    /// `T`: relations were truncated.
    Truncate(Truncate),
    /// `M`: `pg_logical_emit_message`.
    Logical(Logical<'a>),
}

/// `B`. These three together identify a transaction; see `docs/design.md`, rule 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Begin {
    /// The LSN of the transaction's commit record.
    pub commit_lsn: Lsn,
    /// When it was committed; for a transaction replayed from another node, when it was there.
    pub commit_time: PgTime,
    /// The transaction id (32 bits, without epoch).
    pub xid: u32,
}

/// `C`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The LSN of the commit record, as in [`Begin::commit_lsn`].
    pub commit_lsn: Lsn,
    /// The position just past the commit record: what may be confirmed.
    pub end_lsn: Lsn,
    /// When it was committed.
    pub commit_time: PgTime,
}

/// `O`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The commit LSN on the origin.
    pub commit_lsn: Lsn,
    /// The origin's name.
    pub name: &'a str,
}

/// `R`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation<'a> {
    /// The relation's oid, by which rows refer to it.
    pub oid: u32,
    /// The schema; empty on the wire for `pg_catalog`, filled in here.
    pub namespace: &'a str,
    /// The relation's name.
    pub name: &'a str,
    /// `relreplident` of `pg_class`: `d` default, `n` nothing, `f` full, `i` index.
    pub replica_identity: u8,
    /// The columns in the order in which tuples carry them.
    pub columns: Vec<Column<'a>>,
}

/// A column of a [`Relation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column<'a> {
    /// Whether the column is part of the replica identity.
    pub key: bool,
    /// Its name.
    pub name: &'a str,
    /// The oid of its type.
    pub type_oid: u32,
    /// `atttypmod`.
    pub type_modifier: i32,
}

/// `Y`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Type<'a> {
    /// The type's oid.
    pub oid: u32,
    /// The schema; empty on the wire for `pg_catalog`, filled in here.
    pub namespace: &'a str,
    /// The type's name.
    pub name: &'a str,
}

/// `I`.
#[derive(Clone, Debug, PartialEq)]
pub struct Insert<'a> {
    /// The oid of a relation that was described before.
    pub relation: u32,
    /// The row.
    pub new: Tuple<'a>,
}

/// How much of an old row an update or a delete carries; the table's replica identity decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// `K`: the columns of the key; the others are null.
    Key,
    /// `O`: every column (`REPLICA IDENTITY FULL`).
    Full,
}

/// `U`.
#[derive(Clone, Debug, PartialEq)]
pub struct Update<'a> {
    /// The oid of a relation that was described before.
    pub relation: u32,
    /// The row before the update: with a key identity only where the key has changed.
    pub old: Option<(Identity, Tuple<'a>)>,
    /// The row after the update.
    pub new: Tuple<'a>,
}

/// `D`.
#[derive(Clone, Debug, PartialEq)]
pub struct Delete<'a> {
    /// The oid of a relation that was described before.
    pub relation: u32,
    /// What [`Delete::old`] holds.
    pub identity: Identity,
    /// The old row or its key.
    pub old: Tuple<'a>,
}

/// `T`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truncate {
    /// Bits. 1: CASCADE, 2: RESTART IDENTITY.
    pub options: u8,
    /// The oids of the truncated relations.
    pub relations: Vec<u32>,
}

/// `M`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logical<'a> {
    /// Whether it belongs to the surrounding transaction.
    pub transactional: bool,
    /// The end of its WAL record: the row written next can have the same LSN.
    pub lsn: Lsn,
    /// Its prefix.
    pub prefix: &'a str,
    /// Its content.
    pub content: &'a [u8],
}
