//! The other direction: messages to bytes, written from PostgreSQL's documentation.

use crate::pgoutput::*;

pub(super) fn encode_values(values: &[Value<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for value in values {
        let (kind, content) = match value {
            Value::Null => (b'n', None),
            Value::Unchanged => (b'u', None),
            Value::Text(content) => (b't', Some(content)),
            Value::Binary(content) => (b'b', Some(content)),
        };
        out.push(kind);
        if let Some(content) = content {
            out.extend((content.len() as u32).to_be_bytes());
            out.extend(*content);
        }
    }
    out
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend(text.as_bytes());
    out.push(0);
}

fn put_namespace(out: &mut Vec<u8>, namespace: &str) {
    put_text(out, if namespace == "pg_catalog" { "" } else { namespace });
}

fn put_tuple(out: &mut Vec<u8>, kind: u8, tuple: &Tuple<'_>) {
    out.push(kind);
    out.extend((tuple.len() as u16).to_be_bytes());
    out.extend(encode_values(&tuple.values().collect::<Vec<_>>()));
}

fn put_old(out: &mut Vec<u8>, identity: Identity, tuple: &Tuple<'_>) {
    put_tuple(out, if identity == Identity::Key { b'K' } else { b'O' }, tuple);
}

pub(super) fn encode(message: &Message<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    match message {
        Message::Begin(begin) => {
            out.push(b'B');
            out.extend(begin.commit_lsn.0.to_be_bytes());
            out.extend(begin.commit_time.0.to_be_bytes());
            out.extend(begin.xid.to_be_bytes());
        }
        Message::Commit(commit) => {
            out.extend([b'C', 0]);
            out.extend(commit.commit_lsn.0.to_be_bytes());
            out.extend(commit.end_lsn.0.to_be_bytes());
            out.extend(commit.commit_time.0.to_be_bytes());
        }
        Message::Origin(origin) => {
            out.push(b'O');
            out.extend(origin.commit_lsn.0.to_be_bytes());
            put_text(&mut out, origin.name);
        }
        Message::Relation(relation) => put_relation(&mut out, relation),
        Message::Type(described) => {
            out.push(b'Y');
            out.extend(described.oid.to_be_bytes());
            put_namespace(&mut out, described.namespace);
            put_text(&mut out, described.name);
        }
        Message::Insert(insert) => {
            out.push(b'I');
            out.extend(insert.relation.to_be_bytes());
            put_tuple(&mut out, b'N', &insert.new);
        }
        Message::Update(update) => {
            out.push(b'U');
            out.extend(update.relation.to_be_bytes());
            if let Some((identity, old)) = &update.old {
                put_old(&mut out, *identity, old);
            }
            put_tuple(&mut out, b'N', &update.new);
        }
        Message::Delete(delete) => {
            out.push(b'D');
            out.extend(delete.relation.to_be_bytes());
            put_old(&mut out, delete.identity, &delete.old);
        }
        Message::Truncate(truncate) => {
            out.push(b'T');
            out.extend((truncate.relations.len() as u32).to_be_bytes());
            out.push(truncate.options);
            out.extend(truncate.relations.iter().flat_map(|oid| oid.to_be_bytes()));
        }
        Message::Logical(logical) => {
            out.extend([b'M', u8::from(logical.transactional)]);
            out.extend(logical.lsn.0.to_be_bytes());
            put_text(&mut out, logical.prefix);
            out.extend((logical.content.len() as u32).to_be_bytes());
            out.extend(logical.content);
        }
    }
    out
}

fn put_relation(out: &mut Vec<u8>, relation: &Relation<'_>) {
    out.push(b'R');
    out.extend(relation.oid.to_be_bytes());
    put_namespace(out, relation.namespace);
    put_text(out, relation.name);
    out.push(relation.replica_identity);
    out.extend((relation.columns.len() as u16).to_be_bytes());
    for column in &relation.columns {
        out.push(u8::from(column.key));
        put_text(out, column.name);
        out.extend(column.type_oid.to_be_bytes());
        out.extend(column.type_modifier.to_be_bytes());
    }
}
