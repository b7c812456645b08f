//! Messages as lines that a person can check against the scenario that was recorded.

use std::collections::HashMap;

use crate::lsn::Lsn;
use crate::pgoutput::*;

/// Oids from here on belong to what users have made, and differ from server to server.
const FIRST_USER_OID: u32 = 16384;

/// Renders a stream, message by message.
pub(super) struct Renderer {
    /// Leaves out what differs from run to run: positions, times, xids and users' oids.
    pub(super) stable: bool,
    names: HashMap<u32, String>,
}

impl Renderer {
    pub(super) fn new(stable: bool) -> Self {
        Renderer { stable, names: HashMap::new() }
    }

    fn volatile(&self, value: impl ToString) -> String {
        if self.stable { "*".to_owned() } else { value.to_string() }
    }

    fn oid(&self, oid: u32) -> String {
        if oid < FIRST_USER_OID { oid.to_string() } else { self.volatile(oid) }
    }

    fn name(&self, oid: u32) -> &str {
        self.names.get(&oid).map_or("UNKNOWN", String::as_str)
    }

    pub(super) fn line(&mut self, lsn: Lsn, message: &Message<'_>) -> String {
        let text = match message {
            Message::Begin(begin) => format!(
                "begin commit_lsn={} time={} xid={}",
                self.volatile(begin.commit_lsn),
                self.volatile(begin.commit_time.0),
                self.volatile(begin.xid)
            ),
            Message::Commit(commit) => format!(
                "commit commit_lsn={} end_lsn={} time={}",
                self.volatile(commit.commit_lsn),
                self.volatile(commit.end_lsn),
                self.volatile(commit.commit_time.0)
            ),
            // The scenario sets these two itself: they are the same everywhere.
            Message::Origin(origin) => {
                format!("  origin {} commit_lsn={}", origin.name, origin.commit_lsn)
            }
            Message::Relation(relation) => self.relation(relation),
            Message::Type(described) => format!(
                "  type {} {}.{}",
                self.oid(described.oid),
                described.namespace,
                described.name
            ),
            Message::Insert(insert) => {
                format!("  insert {}: {}", self.name(insert.relation), tuple(&insert.new))
            }
            Message::Update(update) => {
                let old = update.old.as_ref();
                let old = old.map(|(kind, old)| format!("{kind:?} {} -> ", tuple(old)));
                let old = old.unwrap_or_default();
                format!("  update {}: {old}{}", self.name(update.relation), tuple(&update.new))
            }
            Message::Delete(delete) => {
                let name = self.name(delete.relation);
                format!("  delete {name}: {:?} {}", delete.identity, tuple(&delete.old))
            }
            Message::Truncate(truncate) => {
                let names = truncate.relations.iter().map(|oid| self.name(*oid));
                let names = names.collect::<Vec<_>>().join(", ");
                format!("  truncate options={} {names}", truncate.options)
            }
            Message::Logical(logical) => format!(
                "  message transactional={} lsn={} prefix={:?} {}",
                logical.transactional,
                self.volatile(logical.lsn),
                logical.prefix,
                content(logical.content)
            ),
        };
        format!("{} {text}", self.volatile(lsn))
    }

    fn relation(&mut self, relation: &Relation<'_>) -> String {
        let name = format!("{}.{}", relation.namespace, relation.name);
        self.names.insert(relation.oid, name.clone());
        let columns = relation.columns.iter().map(|column| {
            let key = if column.key { "*" } else { "" };
            let modifier = column.type_modifier;
            format!("{key}{} {}({modifier})", column.name, self.oid(column.type_oid))
        });
        let columns = columns.collect::<Vec<_>>().join(", ");
        let identity = char::from(relation.replica_identity);
        format!("  relation {} {name} identity={identity} [{columns}]", self.oid(relation.oid))
    }
}

fn tuple(tuple: &Tuple<'_>) -> String {
    let values = tuple.values().map(|value| match value {
        Value::Null => "NULL".to_owned(),
        Value::Unchanged => "UNCHANGED".to_owned(),
        Value::Text(text) => content(text),
        Value::Binary(bytes) => format!("binary {}", content(bytes)),
    });
    format!("({})", values.collect::<Vec<_>>().join(", "))
}

/// A long value by its beginning, its length and a checksum (FNV-1a).
fn content(bytes: &[u8]) -> String {
    if bytes.len() <= 200 {
        return match std::str::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => format!("{text:?}"),
            _ => format!("\"{}\"", bytes.escape_ascii()),
        };
    }
    let sum = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("\"{}\"... {} bytes, sum {sum:016x}", bytes[..20].escape_ascii(), bytes.len())
}
