//! Bytes of one XLogData to one message.

use super::error::DecodeError;
use super::messages::{
    Begin, Column, Commit, Delete, Identity, Insert, Logical, Message, Origin, Relation, Truncate,
    Type, Update,
};
use super::reader::Reader;

/// Decodes the content of one XLogData: exactly one message, borrowed from `bytes`.
///
/// Everything is checked here, also each value of a tuple, so that walking it later cannot fail.
///
/// # Errors
/// Whatever is not wholly one message of protocol version 1 (or `M`), bytes behind it included.
pub fn decode(bytes: &[u8]) -> Result<Message<'_>, DecodeError> {
    let &tag = bytes.first().ok_or(DecodeError::Empty)?;
    match tag {
        b'I' => whole(bytes, "Insert", insert),
        b'B' => whole(bytes, "Begin", begin),
        b'C' => whole(bytes, "Commit", commit),
        b'R' => whole(bytes, "Relation", relation),
        b'M' => whole(bytes, "Message", logical),
        b'Y' => whole(bytes, "Type", type_),
        b'O' => whole(bytes, "Origin", origin),
        b'U' => whole(bytes, "Update", update),
        b'D' => whole(bytes, "Delete", delete),
        b'T' => whole(bytes, "Truncate", truncate),
        other => Err(DecodeError::UnknownTag(other)),
    }
}

fn whole<'a>(
    bytes: &'a [u8],
    name: &'static str,
    fields: impl FnOnce(&mut Reader<'a>) -> Result<Message<'a>, DecodeError>,
) -> Result<Message<'a>, DecodeError> {
    let mut reader = Reader::after_tag(name, bytes);
    let message = fields(&mut reader)?;
    reader.end()?;
    Ok(message)
}

fn begin<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    Ok(Message::Begin(Begin {
        commit_lsn: reader.position("commit LSN")?,
        commit_time: reader.time("commit time")?,
        xid: reader.u32("xid")?,
    }))
}

fn commit<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    // PostgreSQL's own subscriber refuses flags here, too: none has ever had a meaning.
    reader.one_of("flags", &[0])?;
    Ok(Message::Commit(Commit {
        commit_lsn: reader.position("commit LSN")?,
        end_lsn: reader.position("end LSN")?,
        commit_time: reader.time("commit time")?,
    }))
}

fn origin<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    // 0/0 where the origin's session did not say what it replays.
    Ok(Message::Origin(Origin { commit_lsn: reader.lsn("LSN")?, name: reader.text("name")? }))
}

fn relation<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let oid = reader.u32("oid")?;
    let namespace = reader.namespace()?;
    let name = reader.text("name")?;
    let replica_identity = reader.one_of("replica identity", b"dnfi")?;
    let count = usize::from(reader.u16("number of columns")?);
    // A column takes ten bytes at least: a count that lies reserves no memory.
    let mut columns = Vec::with_capacity(count.min(reader.remaining() / 10));
    for _ in 0..count {
        columns.push(Column {
            key: reader.u8("column flags")? & 1 == 1,
            name: reader.text("column name")?,
            type_oid: reader.u32("column type")?,
            type_modifier: reader.i32("column type modifier")?,
        });
    }
    Ok(Message::Relation(Relation { oid, namespace, name, replica_identity, columns }))
}

fn type_<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    Ok(Message::Type(Type {
        oid: reader.u32("oid")?,
        namespace: reader.namespace()?,
        name: reader.text("name")?,
    }))
}

fn insert<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let relation = reader.u32("relation")?;
    reader.one_of("kind of tuple", b"N")?;
    Ok(Message::Insert(Insert { relation, new: reader.tuple()? }))
}

fn update<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let relation = reader.u32("relation")?;
    let old = match reader.one_of("kind of tuple", b"NKO")? {
        b'N' => None,
        kind => {
            let old = (identity(kind), reader.tuple()?);
            reader.one_of("kind of tuple", b"N")?;
            Some(old)
        }
    };
    Ok(Message::Update(Update { relation, old, new: reader.tuple()? }))
}

fn delete<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    Ok(Message::Delete(Delete {
        relation: reader.u32("relation")?,
        identity: identity(reader.one_of("kind of tuple", b"KO")?),
        old: reader.tuple()?,
    }))
}

fn identity(kind: u8) -> Identity {
    if kind == b'K' { Identity::Key } else { Identity::Full }
}

fn truncate<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let count = reader.u32("number of relations")? as usize;
    let options = reader.u8("options")?;
    let mut relations = Vec::with_capacity(count.min(reader.remaining() / 4));
    for _ in 0..count {
        relations.push(reader.u32("relation")?);
    }
    Ok(Message::Truncate(Truncate { options, relations }))
}

fn logical<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    // A flag without a known meaning could say that it is not to be published yet.
    let transactional = reader.one_of("flags", &[0, 1])? == 1;
    let lsn = reader.lsn("LSN")?;
    let prefix = reader.text("prefix")?;
    let len = reader.u32("length of content")? as usize;
    let content = reader.bytes("content", len)?;
    Ok(Message::Logical(Logical { transactional, lsn, prefix, content }))
}
