//! The section `outbox`: which rows are messages, and what becomes of them.

use std::time::Duration;

use super::problem::quote;
use super::section::Section;
use super::values::{self, Choice, TableRef, choice};
use super::{DAY, SECOND};
use crate::outbox::{Columns, HeaderStyle, LayoutKind};
use crate::template::{Field, Template};

/// Which rows are messages, and what becomes of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbox {
    /// How the tables look.
    pub layout: Layout,
    /// The outbox tables; empty: the layout's own.
    pub tables: Vec<TableRef>,
    /// Which column is what, in the layout `custom`.
    pub columns: Columns,
    /// Template of the STOMP destination.
    pub destination: String,
    /// Template of the ordering key; empty: the destination is the key.
    pub key: String,
    /// The content type of every body; `None`: `application/json`, and
    /// `application/octet-stream` for a bytea body; empty: none is sent. A row's own header wins.
    pub content_type: Option<String>,
    /// Headers of every message: name and template.
    pub headers: Vec<(String, String)>,
    /// The header names that say id, destination, type and time.
    pub header_style: HeaderStyle,
    /// The prefix read from `pg_logical_emit_message`; `None`: such messages are passed over.
    pub logical_messages: Option<String>,
    /// Whether the first start also publishes the rows already waiting.
    pub backfill: bool,
    /// What happens to a row after its receipt.
    pub after_publish: AfterPublish,
    /// How long delivered rows are kept; `None`: for good.
    pub retention: Option<Duration>,
}

choice! {
    /// How the outbox tables look.
    Layout {
        /// `walpost.outbox`.
        Walpost = "walpost",
        /// django-outbox-pattern's `published`.
        Django = "django",
        /// Debezium's outbox event router.
        Debezium = "debezium",
        /// Any table, by `outbox.columns`.
        Custom = "custom",
    }
}

impl Choice for HeaderStyle {
    const ALL: &'static [Self] = &[HeaderStyle::Msg, HeaderStyle::Dop, HeaderStyle::None];

    fn spelling(self) -> &'static str {
        match self {
            HeaderStyle::Msg => "msg",
            HeaderStyle::Dop => "dop",
            HeaderStyle::None => "none",
        }
    }
}

choice! {
    /// What happens to a row after its receipt.
    AfterPublish {
        /// Nothing.
        Keep = "keep",
        /// Its status says so.
        Mark = "mark",
        /// It is deleted.
        Delete = "delete",
    }
}

const JSON: &str = "application/json";

pub(super) fn read(section: &mut Section<'_>) -> Outbox {
    let layout = section.choice("layout", Layout::Walpost);
    let django = layout == Layout::Django;
    let destination = if django { "{destination}" } else { "{destination}[.{version}]" };
    let outbox = Outbox {
        layout,
        tables: section.list("tables", &[], values::table),
        columns: read_columns(section),
        destination: section.value("destination", destination, values::template),
        key: section.optional("key", "{key}", values::template).unwrap_or_default(),
        content_type: match section.optional("content_type", JSON, values::text) {
            Some(text) if text == JSON => None,
            other => Some(other.unwrap_or_default()),
        },
        headers: section.map("headers", &[], check_template),
        header_style: section.choice("header_style", HeaderStyle::Msg),
        logical_messages: section.optional("logical_messages", "walpost", values::text),
        backfill: read_backfill(section, layout),
        after_publish: section.choice("after_publish", layout.after_publish()),
        retention: read_retention(section, layout),
    };
    check_custom(section, &outbox);
    if outbox.after_publish == AfterPublish::Mark && outbox.layout != Layout::Django {
        section.problem(
            "after_publish",
            "'mark' needs the status column of the layout django; write keep or delete",
        );
    }
    outbox
}

impl Outbox {
    /// Which column is what.
    #[must_use]
    pub fn layout_kind(&self) -> LayoutKind {
        match self.layout {
            Layout::Walpost => LayoutKind::Walpost,
            Layout::Django => LayoutKind::Django,
            Layout::Debezium => LayoutKind::Debezium,
            Layout::Custom => LayoutKind::Custom(self.columns.clone()),
        }
    }
}

/// What a layout does unless it is told otherwise.
impl Layout {
    pub(super) fn after_publish(self) -> AfterPublish {
        if self == Layout::Django { AfterPublish::Mark } else { AfterPublish::Keep }
    }

    pub(super) fn backfill(self) -> bool {
        matches!(self, Layout::Walpost | Layout::Django)
    }

    pub(super) fn retention(self) -> Option<Duration> {
        (self == Layout::Walpost).then_some(DAY * 7)
    }
}

fn read_columns(section: &mut Section<'_>) -> Columns {
    const NAMES: [&str; 8] =
        ["id", "destination", "version", "key", "headers", "body", "content_type", "created_at"];
    let map = section.map("columns", &[], |name, column| {
        if !NAMES.contains(&name) {
            return Err(format!(
                "{} is nothing that a column can hold; choose from {}",
                quote(name),
                NAMES.join(", ")
            ));
        }
        values::identifier(column)
            .map(drop)
            .map_err(|complaint| format!("{} {complaint}", quote(column)))
    });
    let mut columns = Columns::default();
    for (name, column) in map {
        let place = match name.as_str() {
            "id" => &mut columns.id,
            "destination" => &mut columns.destination,
            "version" => &mut columns.version,
            "key" => &mut columns.key,
            "headers" => &mut columns.headers,
            "body" => &mut columns.body,
            "content_type" => &mut columns.content_type,
            "created_at" => &mut columns.created_at,
            _ => continue,
        };
        *place = Some(column);
    }
    columns
}

fn read_backfill(section: &mut Section<'_>, layout: Layout) -> bool {
    let default = layout.backfill();
    let words = if default { "true" } else { "false" };
    section.decided("backfill", words, values::boolean).unwrap_or(default)
}

/// `never` keeps the rows of a layout that would delete them by default.
fn read_retention(section: &mut Section<'_>, layout: Layout) -> Option<Duration> {
    let default = layout.retention();
    let words = if default.is_some() { "7d" } else { "never" };
    let given = section.decided("retention", words, |text| match text {
        "never" => Ok(None),
        _ => values::duration(text, &(SECOND..=DAY * 3660)).map(Some),
    });
    given.unwrap_or(default)
}

fn check_template(name: &str, value: &str) -> Result<(), String> {
    check_header(name, value)?;
    let complain = |complaint| format!("the value of {} {complaint}", quote(name));
    values::template(value).map(drop).map_err(complain)
}

pub(super) fn check_header(name: &str, value: &str) -> Result<(), String> {
    values::header_name(name).map_err(|complaint| format!("{} {complaint}", quote(name)))?;
    values::text(value)
        .map(drop)
        .map_err(|complaint| format!("the value of {} {complaint}", quote(name)))
}

fn check_custom(section: &mut Section<'_>, outbox: &Outbox) {
    if outbox.layout != Layout::Custom {
        if outbox.columns != Columns::default() {
            section.problem(
                "columns",
                "is for the layout custom only; leave it out or set outbox.layout",
            );
        }
        return;
    }
    if outbox.tables.is_empty() {
        section.problem("tables", "is needed by the layout custom; write [schema.table]");
    }
    if outbox.retention.is_some() && outbox.columns.created_at.is_none() {
        let text =
            "needs to know how old a row is; name that column in outbox.columns: {created_at: …}";
        section.problem("retention", text);
    }
    if outbox.columns.id.is_none() {
        section.problem("columns", "names no column for the message id; write {id: …}");
    }
    if outbox.columns.destination.is_none() && uses_destination(&outbox.destination) {
        section.problem("columns", "names no column for the destination; name one, or set outbox.destination to a template without {destination}");
    }
}

fn uses_destination(template: &str) -> bool {
    Template::parse(template)
        .is_ok_and(|template| template.fields().any(|field| field == Field::Destination))
}
