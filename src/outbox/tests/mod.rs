//! Rows as PostgreSQL sends them, and what becomes of them.

mod broken;
mod custom;
mod django;
mod emitted;
mod headers;
mod properties;
mod walpost;

use crate::pgoutput::{Column, Insert, PgTime, Relation, Tuple, Value};
use crate::template::Template;

use super::*;

/// Oids of built-in types.
const BYTEA: u32 = 17;
const INT4: u32 = 23;
const TEXT: u32 = 25;
const JSON: u32 = 114;
const TIMESTAMPTZ: u32 = 1184;
const UUID: u32 = 2950;
const JSONB: u32 = 3802;
const XID8: u32 = 5069;

const ID: &str = "01890000-0000-7000-8000-000000000001";

/// A table: its oid, name and columns.
struct Table {
    oid: u32,
    schema: &'static str,
    name: &'static str,
    columns: Vec<(&'static str, u32)>,
}

impl Table {
    fn walpost() -> Table {
        let columns = vec![
            ("id", UUID),
            ("destination", TEXT),
            ("version", TEXT),
            ("key", TEXT),
            ("headers", JSONB),
            ("body", JSONB),
            ("body_bytes", BYTEA),
            ("created_at", TIMESTAMPTZ),
            ("xid", XID8),
        ];
        Table { oid: 16_400, schema: "walpost", name: "outbox", columns }
    }

    fn relation(&self) -> Relation<'static> {
        let column = |&(name, type_oid): &(&'static str, u32)| Column {
            key: false,
            name,
            type_oid,
            type_modifier: -1,
        };
        Relation {
            oid: self.oid,
            namespace: self.schema,
            name: self.name,
            replica_identity: b'd',
            columns: self.columns.iter().map(column).collect(),
        }
    }

    /// A row: the given columns, all others null.
    fn row(&self, set: &[(&str, &str)]) -> Bytes {
        let mut values = vec![Value::Null; self.columns.len()];
        for (name, text) in set {
            let place = self.columns.iter().position(|(known, _)| known == name).expect(name);
            values[place] = Value::Text(text.as_bytes());
        }
        Bytes::new(self.oid, &values)
    }
}

/// TupleData as it stands in an Insert message.
#[derive(Clone, Debug)]
struct Bytes {
    relation: u32,
    count: u16,
    bytes: Vec<u8>,
}

impl Bytes {
    fn new(relation: u32, values: &[Value<'_>]) -> Bytes {
        let mut bytes = Vec::new();
        for value in values {
            let (kind, content) = match value {
                Value::Null => (b'n', None),
                Value::Unchanged => (b'u', None),
                Value::Text(content) => (b't', Some(content)),
                Value::Binary(content) => (b'b', Some(content)),
            };
            bytes.push(kind);
            if let Some(content) = content {
                bytes.extend((content.len() as u32).to_be_bytes());
                bytes.extend(*content);
            }
        }
        Bytes { relation, count: values.len() as u16, bytes }
    }

    fn insert(&self) -> Insert<'_> {
        let new = Tuple::from_checked(self.count, &self.bytes);
        Insert { relation: self.relation, new }
    }
}

fn template(text: &str) -> Template {
    Template::parse(text).unwrap()
}

/// The defaults of the contract.
fn settings(layout: LayoutKind) -> Settings {
    let destination = match layout {
        LayoutKind::Django => "{destination}",
        _ => "{destination}[.{version}]",
    };
    Settings {
        layout,
        tables: Vec::new(),
        destination: template(destination),
        key: template("{key}"),
        emitted: (template("{destination}[.{version}]"), template("{key}")),
        content_type: None,
        headers: Vec::new(),
        header_style: HeaderStyle::Msg,
        broker_headers: vec![("persistent".into(), "true".into())],
        max_frame_size: 4 << 20,
        logical_prefix: Some("walpost".into()),
        shard: Shard::ALL,
    }
}

fn context() -> Context {
    Context {
        commit_lsn: Lsn(0x16_B374_D848),
        xid: 742,
        commit_time: PgTime(823_176_000_000_000),
        now: PgTime(823_176_000_123_456),
    }
}

/// An outbox that knows `table`.
fn outbox(settings: Settings, table: &Table) -> Outbox {
    let mut outbox = Outbox::new(settings).unwrap();
    outbox.relation(&table.relation()).unwrap();
    outbox
}

fn map(outbox: &mut Outbox, row: &Bytes) -> Row {
    outbox.row(&row.insert(), &context()).unwrap()
}

#[track_caller]
fn message(outbox: &mut Outbox, row: &Bytes) -> Message {
    match map(outbox, row) {
        Row::Message(message, _) => message,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn reason(outbox: &mut Outbox, row: &Bytes) -> UnfitReason {
    match map(outbox, row) {
        Row::Unfit(unfit) => unfit.reason,
        other => panic!("{other:?}"),
    }
}

fn headers(message: &Message) -> Vec<(&str, &str)> {
    message.headers().collect()
}

/// The SEND frame by STOMP 1.2, written down without regard to speed, as the most wordy of the
/// brokers gets it.
fn frame(message: &Message) -> Vec<u8> {
    let escape = |text: &str| {
        text.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r").replace(':', "\\c")
    };
    let mut frame = format!(
        "SEND\ndestination:{}\nreceipt:{}\ncontent-length:{}\n_AMQ_DUPL_ID:{}\n\
         destination-type:MULTICAST\n",
        escape(message.destination()),
        u64::MAX,
        message.body().len(),
        escape(message.id()),
    );
    for (name, value) in message.headers() {
        frame += &format!("{}:{}\n", escape(name), escape(value));
    }
    frame += "\n";
    [frame.as_bytes(), message.body_slice(), b"\0"].concat()
}
