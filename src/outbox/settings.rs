//! What an operator sets about the outbox.

use std::fmt;

use super::shard::Shard;
use crate::template::{Field, Template};

/// How rows become messages. Names and meaning are those of the configuration file.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `outbox.layout`, and `outbox.columns` with it.
    pub layout: LayoutKind,
    /// `outbox.tables`; empty: the layout's own.
    pub tables: Vec<TableName>,
    /// `outbox.destination`. `{destination}` in a template is always the row's column.
    pub destination: Template,
    /// `outbox.key`; where it comes out empty, the destination is the ordering key.
    pub key: Template,
    /// The same two for messages of `walpost.emit`, which have a destination and a version of their own
    /// whatever the layout is.
    pub emitted: (Template, Template),
    /// `outbox.content_type`; `None`: `application/json`, and `application/octet-stream` for
    /// bodies out of a `bytea` column. Empty: none is sent.
    pub content_type: Option<String>,
    /// `outbox.headers`. One that comes out empty is not sent; so an empty template takes a
    /// header of the style or of the broker's away.
    pub headers: Vec<(String, Template)>,
    /// `outbox.header_style`.
    pub header_style: HeaderStyle,
    /// `broker.headers`.
    pub broker_headers: Vec<(String, String)>,
    /// `broker.max_frame_size`, in bytes; frames over 4 GiB are refused whatever it says.
    pub max_frame_size: usize,
    /// `outbox.logical_messages`; `None`: none are read.
    pub logical_prefix: Option<String>,
    /// `replication.shard`.
    pub shard: Shard,
}

/// `outbox.layout`: which column is what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayoutKind {
    /// walpost's own table.
    Walpost,
    /// The table of django-outbox-pattern.
    Django,
    /// Debezium's outbox; not in this version.
    Debezium,
    /// Any table.
    Custom(Columns),
}

/// The columns that tell which rows of a table wait, and in which order they were made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WaitingColumns {
    /// The message id.
    pub id: Option<String>,
    /// When the row was made.
    pub created_at: Option<String>,
    /// The inserting transaction, of type `xid8`.
    pub xid: Option<String>,
    /// The status of layout `django`.
    pub status: Option<String>,
}

/// `outbox.columns`: the names of the columns in layout `custom`. `None`: there is no such column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// The message id; needed.
    pub id: Option<String>,
    /// Needed where the destination's template has `{destination}` in it.
    pub destination: Option<String>,
    /// For `{version}`.
    pub version: Option<String>,
    /// For `{key}`.
    pub key: Option<String>,
    /// A JSON object (`jsonb`, `json` or text).
    pub headers: Option<String>,
    /// Of any type; `bytea` is sent as raw bytes, all others as PostgreSQL prints them.
    pub body: Option<String>,
    /// Wins over `outbox.content_type` where it is neither null nor empty.
    pub content_type: Option<String>,
    /// When the row was made; not used in streaming, but it must be there.
    pub created_at: Option<String>,
}

/// `outbox.header_style`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderStyle {
    /// `msg-id`, `msg-destination`, `msg-type`, `msg-sent-time`.
    Msg,
    /// The same with the prefix `dop-`, and `dop-correlation-id`.
    Dop,
    /// None.
    None,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableName {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
}

/// Settings that cannot be meant. Each text begins with the path of the setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// `debezium`.
    #[error("outbox.layout: 'debezium' is not in this version")]
    Debezium,
    /// Layout `custom` has no table of its own.
    #[error("outbox.tables: layout 'custom' needs at least one table")]
    NoTables,
    /// Layout `custom` without an id.
    #[error("outbox.columns.id: layout 'custom' needs the column that holds the message id")]
    NoIdColumn,
    /// Layout `custom` without what the template asks for.
    #[error("outbox.columns.destination: the template '{template}' of outbox.destination needs it")]
    NoDestinationColumn {
        /// The template.
        template: String,
    },
    /// A template that gives every row an empty destination.
    #[error("outbox.destination: it is empty")]
    NoDestination,
    /// A header that would break the frame or its receipt.
    #[error("{path}: the header '{name}' is walpost's own and can't be set")]
    Forbidden {
        /// `outbox.headers` or `broker.headers`.
        path: &'static str,
        /// The header.
        name: String,
    },
    /// A header that no frame can carry.
    #[error("{path}: the header '{name}' can't be sent (empty name, or a NUL)")]
    Header {
        /// `outbox.headers`, `outbox.content_type` or `broker.headers`.
        path: &'static str,
        /// The header, with control characters escaped.
        name: String,
    },
    /// A header named twice.
    #[error("{path}: the header '{name}' is there twice")]
    Twice {
        /// `outbox.headers` or `broker.headers`.
        path: &'static str,
        /// The header.
        name: String,
    },
}

impl Settings {
    /// The columns that tell which rows wait.
    #[must_use]
    pub fn waiting_columns(&self) -> WaitingColumns {
        let named = |name: &str| Some(name.to_owned());
        match &self.layout {
            LayoutKind::Walpost | LayoutKind::Debezium => WaitingColumns {
                id: named("id"),
                created_at: named("created_at"),
                xid: named("xid"),
                status: None,
            },
            LayoutKind::Django => WaitingColumns {
                id: named("id"),
                created_at: named("added"),
                xid: None,
                status: named("status"),
            },
            LayoutKind::Custom(columns) => WaitingColumns {
                id: columns.id.clone(),
                created_at: columns.created_at.clone(),
                ..WaitingColumns::default()
            },
        }
    }

    /// The tables that are outboxes.
    #[must_use]
    pub fn tables(&self) -> Vec<TableName> {
        let own = |schema: &str, name: &str| {
            vec![TableName { schema: schema.to_owned(), name: name.to_owned() }]
        };
        match self.layout {
            _ if !self.tables.is_empty() => self.tables.clone(),
            LayoutKind::Walpost => own("walpost", "outbox"),
            LayoutKind::Django => own("public", "published"),
            LayoutKind::Debezium => own("public", "outbox"),
            LayoutKind::Custom(_) => Vec::new(),
        }
    }

    /// Every template, with the path of its setting.
    pub(super) fn templates(&self) -> impl Iterator<Item = (String, &Template)> {
        let headers = self.headers.iter();
        [("outbox.destination".to_owned(), &self.destination), ("outbox.key".to_owned(), &self.key)]
            .into_iter()
            .chain(headers.map(|(name, template)| (format!("outbox.headers.{name}"), template)))
    }

    /// Checks all but the headers.
    pub(super) fn check(&self) -> Result<(), SettingsError> {
        if self.destination.literal() == Some("") {
            return Err(SettingsError::NoDestination);
        }
        match &self.layout {
            LayoutKind::Walpost | LayoutKind::Django => Ok(()),
            LayoutKind::Debezium => Err(SettingsError::Debezium),
            LayoutKind::Custom(_) if self.tables.is_empty() => Err(SettingsError::NoTables),
            LayoutKind::Custom(Columns { id: None, .. }) => Err(SettingsError::NoIdColumn),
            LayoutKind::Custom(Columns { destination: None, .. })
                if self.destination.fields().any(|field| field == Field::Destination) =>
            {
                Err(SettingsError::NoDestinationColumn { template: self.destination.to_string() })
            }
            LayoutKind::Custom(_) => Ok(()),
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

impl LayoutKind {
    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            LayoutKind::Walpost => "walpost",
            LayoutKind::Django => "django",
            LayoutKind::Debezium => "debezium",
            LayoutKind::Custom(_) => "custom",
        }
    }
}
