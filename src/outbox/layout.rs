//! Which column of a relation is what.

use super::message::TableId;
use super::settings::{Columns, LayoutKind, Settings, TableName};
use super::unfit::Shown;
use crate::pgoutput::Relation;

/// The oid of the built-in type `bytea`.
const BYTEA: u32 = 17;

/// What a column is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Id,
    Destination,
    Version,
    Key,
    Headers,
    Body,
    BodyBytes,
    ContentType,
    Status,
}

impl Role {
    /// How many there are.
    pub(super) const COUNT: usize = 9;

    /// Its place in an array of [`Role::COUNT`], and its bit in a set.
    pub(super) fn index(self) -> usize {
        self as usize
    }
}

/// The columns of one outbox table, as its last Relation message described them.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// `schema.name`.
    pub(super) table: String,
    /// The same, for marking; none: it is known neither by its name nor by its oid.
    pub(super) table_id: Option<TableId>,
    /// For each column of a tuple the set of its roles: one column may be several things.
    pub(super) roles: Vec<u16>,
    /// For each role the name of its column and whether it is a `bytea`.
    names: [Option<(String, bool)>; Role::COUNT],
    /// The columns that templates name, and their places in a tuple.
    pub(super) extra: Vec<(String, usize)>,
    /// Only rows with status 1 are published.
    pub(super) scheduled_only: bool,
}

impl Layout {
    /// The name of the column with this role; empty where there is none.
    pub(super) fn column(&self, role: Role) -> &str {
        self.names[role.index()].as_ref().map_or("", |(name, _)| name)
    }

    /// Whether the column with this role is of type `bytea`.
    pub(super) fn is_bytea(&self, role: Role) -> bool {
        self.names[role.index()].as_ref().is_some_and(|&(_, bytea)| bytea)
    }
}

/// An outbox table that lacks columns that the settings need. The relay must stop: rows would be
/// sent without what belongs to them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "table {} does not fit: it has no {}; the columns that arrive are {}",
    Shown(&.table.to_string()), list_missing(.missing), list_present(.present)
)]
pub struct LayoutError {
    /// The table.
    pub table: TableName,
    /// What it lacks.
    pub missing: Vec<Missing>,
    /// The columns that the Relation message names.
    pub present: Vec<String>,
}

/// A column that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Its name.
    pub column: String,
    /// The setting that needs it, as a path in the configuration.
    pub needed_by: String,
}

fn list_missing(missing: &[Missing]) -> String {
    let each = missing.iter().map(|Missing { column, needed_by }| {
        format!("column '{}' ({})", Shown(column), Shown(needed_by))
    });
    each.collect::<Vec<_>>().join(", no ")
}

fn list_present(columns: &[String]) -> String {
    let mut names: Vec<String> =
        columns.iter().take(40).map(|column| Shown(column).to_string()).collect();
    if columns.len() > names.len() {
        names.push("…".to_owned());
    }
    names.join(", ")
}

/// What the settings ask of every outbox table.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    columns: Vec<WantedColumn>,
    scheduled_only: bool,
}

#[derive(Clone, Debug)]
struct WantedColumn {
    name: String,
    purpose: Purpose,
    /// The setting that asks for it; `None` where the table may do without.
    needed_by: Option<String>,
}

#[derive(Clone, Copy, Debug)]
enum Purpose {
    Role(Role),
    /// A template names it.
    Template,
    /// It must be there; streaming does not read it.
    Presence,
}

impl Wanted {
    pub(super) fn new(settings: &Settings) -> Wanted {
        let mut columns = match &settings.layout {
            // All that becomes part of a message is needed: without, say, `key`, rows would go out
            // in the wrong order and nobody would know.
            LayoutKind::Walpost | LayoutKind::Debezium => by_layout(
                "walpost",
                &[
                    ("id", Role::Id),
                    ("destination", Role::Destination),
                    ("version", Role::Version),
                    ("key", Role::Key),
                    ("headers", Role::Headers),
                    ("body", Role::Body),
                    ("body_bytes", Role::BodyBytes),
                ],
            ),
            LayoutKind::Django => django(),
            LayoutKind::Custom(columns) => custom(columns),
        };
        for (path, template) in settings.templates() {
            columns.extend(template.columns().map(|name| WantedColumn {
                name: name.to_owned(),
                purpose: Purpose::Template,
                needed_by: Some(path.clone()),
            }));
        }
        Wanted { columns, scheduled_only: settings.layout == LayoutKind::Django }
    }

    /// Finds the columns in `relation`, which is the outbox table at `place`.
    pub(super) fn find(
        &self,
        relation: &Relation<'_>,
        place: Option<u16>,
    ) -> Result<Layout, LayoutError> {
        let mut layout = Layout {
            table: format!("{}.{}", relation.namespace, relation.name),
            table_id: place.map(|place| TableId { place, oid: relation.oid }),
            roles: vec![0; relation.columns.len()],
            names: Default::default(),
            extra: Vec::new(),
            scheduled_only: self.scheduled_only,
        };
        let mut missing = Vec::new();
        for WantedColumn { name, purpose, needed_by } in &self.columns {
            let place = relation.columns.iter().position(|column| column.name == name);
            match (place, purpose) {
                (Some(place), Purpose::Role(role)) => {
                    let bytea = relation.columns[place].type_oid == BYTEA;
                    layout.roles[place] |= 1 << role.index();
                    layout.names[role.index()] = Some((name.clone(), bytea));
                }
                (Some(place), Purpose::Template) => {
                    if !layout.extra.iter().any(|&(_, known)| known == place) {
                        layout.extra.push((name.clone(), place));
                    }
                }
                (Some(_), Purpose::Presence) => {}
                (None, _) => missing.extend(needed_by.iter().map(|needed_by| Missing {
                    column: name.clone(),
                    needed_by: needed_by.clone(),
                })),
            }
        }
        if missing.is_empty() {
            return Ok(layout);
        }
        let (schema, name) = (relation.namespace.to_owned(), relation.name.to_owned());
        let present = relation.columns.iter().map(|column| column.name.to_owned()).collect();
        Err(LayoutError { table: TableName { schema, name }, missing, present })
    }
}

fn by_layout(layout: &str, columns: &[(&str, Role)]) -> Vec<WantedColumn> {
    let wanted = |&(name, role): &(&str, Role)| WantedColumn {
        name: name.to_owned(),
        purpose: Purpose::Role(role),
        needed_by: Some(format!("outbox.layout {layout}")),
    };
    columns.iter().map(wanted).collect()
}

/// The table of django-outbox-pattern. `headers` came with its version 3; the default templates use no
/// version, and it has no ordering key.
fn django() -> Vec<WantedColumn> {
    let mut columns = by_layout(
        "django",
        &[
            ("id", Role::Id),
            ("destination", Role::Destination),
            ("body", Role::Body),
            ("status", Role::Status),
        ],
    );
    columns.extend([("version", Role::Version), ("headers", Role::Headers)].map(|(name, role)| {
        WantedColumn { name: name.to_owned(), purpose: Purpose::Role(role), needed_by: None }
    }));
    columns
}

fn custom(columns: &Columns) -> Vec<WantedColumn> {
    let named = [
        ("id", Purpose::Role(Role::Id), &columns.id),
        ("destination", Purpose::Role(Role::Destination), &columns.destination),
        ("version", Purpose::Role(Role::Version), &columns.version),
        ("key", Purpose::Role(Role::Key), &columns.key),
        ("headers", Purpose::Role(Role::Headers), &columns.headers),
        ("body", Purpose::Role(Role::Body), &columns.body),
        ("content_type", Purpose::Role(Role::ContentType), &columns.content_type),
        ("created_at", Purpose::Presence, &columns.created_at),
    ];
    let wanted = named.into_iter().filter_map(|(setting, purpose, column)| {
        let needed_by = Some(format!("outbox.columns.{setting}"));
        Some(WantedColumn { name: column.clone()?, purpose, needed_by })
    });
    wanted.collect()
}
