//! Shards: several relays on one table, each with its share of the ordering keys.
//!
//! A row's shard is the hash of its key, or of its destination where it has none: what makes the
//! order of messages is always in one shard. PostgreSQL decides that, by the row filter of each
//! relay's publication; the columns that the filter is over come from here.

use std::fmt;

use super::hashtext::hashtext;
use super::settings::{Columns, LayoutKind};
use crate::template::{Field, Template};

/// A relay's share of the ordering keys: those whose hash modulo `count` is `index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 0, less than `count`.
    pub index: u32,
    /// How many relays share the keys; 1: this one has all.
    pub count: u32,
}

impl Shard {
    /// The only relay: it has every key.
    pub const ALL: Shard = Shard { index: 0, count: 1 };

    /// Whether there is more than one.
    #[must_use]
    pub fn is_sharded(self) -> bool {
        self.count > 1
    }

    /// Whether a message is this relay's. The same is decided by the row filter for rows; an empty
    /// key is none, and with no destination either, the message has a shard all the same.
    #[must_use]
    pub fn takes(self, key: Option<&str>, destination: Option<&str>) -> bool {
        let text = key.filter(|key| !key.is_empty()).or(destination).unwrap_or_default();
        // Not the absolute value: the smallest number has none.
        let hash = hashtext(text).cast_unsigned() & 0x7fff_ffff;
        hash.checked_rem(self.count).is_none_or(|shard| shard == self.index)
    }
}

/// `shard 1 of 4`, counted from 0 as in the settings.
impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {} of {}", self.index, self.count)
    }
}

/// The columns by which rows are divided: the second where the first is null or empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardColumns {
    /// The ordering key's; `None`: no row has a key of its own.
    pub key: Option<String>,
    /// The destination's; `None`: all rows without a key are for one destination.
    pub destination: Option<String>,
}

/// Settings by which rows cannot be divided so that the order holds. [`ShardError::path`] is the
/// setting that says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShardError {
    /// The ordering key is no column.
    #[error(
        "with replication.shard.count over 1 it is one column, such as \"{{key}}\" or \
         \"{{column:NAME}}\", or empty: rows are divided by that column, and '{template}' is none"
    )]
    Key {
        /// The template.
        template: String,
    },
    /// Rows without a key are ordered by what no column holds.
    #[error(
        "with replication.shard.count over 1 it holds {{destination}}, or one other \
         column: rows without a key are divided by that column, and '{template}' has no such"
    )]
    Destination {
        /// The template.
        template: String,
    },
    /// Nothing tells one row from another.
    #[error(
        "all messages are for one destination and have no key, so that there is \
         nothing to divide; write 1, or set outbox.key"
    )]
    Nothing,
}

impl ShardError {
    /// The setting that is wrong.
    #[must_use]
    pub fn path(&self) -> &'static str {
        match self {
            ShardError::Key { .. } => "outbox.key",
            ShardError::Destination { .. } => "outbox.destination",
            ShardError::Nothing => "replication.shard.count",
        }
    }
}

impl ShardColumns {
    /// The columns that hold what the templates make keys and destinations of.
    ///
    /// # Errors
    /// [`ShardError`] where no column does: rows that must keep their order could be two relays'.
    pub fn of(
        layout: &LayoutKind,
        key: &Template,
        destination: &Template,
    ) -> Result<ShardColumns, ShardError> {
        let named = Named::of(layout);
        let wrong = || ShardError::Key { template: key.to_string() };
        let key = match key.only_field() {
            None if key.literal() == Some("") => None,
            // That is what an empty key means, too.
            Some(Field::Destination) => None,
            None => return Err(wrong()),
            // A layout may have no such column: then no row has one.
            Some(field) => named.column(field).ok_or_else(wrong)?.map(str::to_owned),
        };
        let destination = named.divider(destination)?.map(str::to_owned);
        if key.is_none() && destination.is_none() {
            return Err(ShardError::Nothing);
        }
        Ok(ShardColumns { key, destination })
    }
}

/// The layout's names of the columns that templates can ask for by their purpose.
struct Named<'a> {
    id: Option<&'a str>,
    destination: Option<&'a str>,
    version: Option<&'a str>,
    key: Option<&'a str>,
}

impl<'a> Named<'a> {
    fn of(layout: &'a LayoutKind) -> Named<'a> {
        let own = Named {
            id: Some("id"),
            destination: Some("destination"),
            version: Some("version"),
            key: Some("key"),
        };
        match layout {
            LayoutKind::Walpost | LayoutKind::Debezium => own,
            LayoutKind::Django => Named { key: None, ..own },
            LayoutKind::Custom(Columns { id, destination, version, key, .. }) => Named {
                id: id.as_deref(),
                destination: destination.as_deref(),
                version: version.as_deref(),
                key: key.as_deref(),
            },
        }
    }

    /// The column that holds the field, if the layout has it; `None`: no column could.
    fn column(&self, field: Field<'a>) -> Option<Option<&'a str>> {
        match field {
            Field::Id => Some(self.id),
            Field::Destination => Some(self.destination),
            Field::Version => Some(self.version),
            Field::Key => Some(self.key),
            Field::Column(name) => Some(Some(name)),
            Field::Lsn | Field::Xid | Field::CommitTime | Field::Now => None,
        }
    }

    /// The column that tells one destination from another; `None`: there is one only.
    fn divider(&self, template: &'a Template) -> Result<Option<&'a str>, ShardError> {
        let wrong = || ShardError::Destination { template: template.to_string() };
        if template.fields().any(|field| field == Field::Destination) {
            return Ok(self.destination);
        }
        let mut fields = template.fields();
        let Some(first) = fields.next() else { return Ok(None) };
        if fields.any(|other| other != first) {
            return Err(wrong());
        }
        self.column(first).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn template(text: &str) -> Template {
        Template::parse(text).unwrap()
    }

    fn columns(
        layout: &LayoutKind,
        key: &str,
        destination: &str,
    ) -> (Option<String>, Option<String>) {
        let found = ShardColumns::of(layout, &template(key), &template(destination)).unwrap();
        (found.key, found.destination)
    }

    fn named(key: &str, destination: &str) -> (Option<String>, Option<String>) {
        let some = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        (some(key), some(destination))
    }

    const USUAL: &str = "{destination}[.{version}]";

    #[test]
    fn columns_follow_layout_and_templates() {
        let walpost = LayoutKind::Walpost;
        for (key, destination, found) in [
            ("{key}", USUAL, named("key", "destination")),
            ("[{key}]", USUAL, named("key", "destination")),
            ("", USUAL, named("", "destination")),
            ("{destination}", USUAL, named("", "destination")),
            ("{id}", USUAL, named("id", "destination")),
            ("{column:tenant}", USUAL, named("tenant", "destination")),
            ("{key}", "/queue/all", named("key", "")),
            ("{key}", "/topic/{column:topic}", named("key", "topic")),
        ] {
            assert_eq!(columns(&walpost, key, destination), found, "{key} {destination}");
        }
        let django = columns(&LayoutKind::Django, "{key}", "{destination}");
        assert_eq!(django, named("", "destination"));
        let custom = LayoutKind::Custom(Columns {
            id: Some("event".into()),
            destination: Some("topic".into()),
            key: Some("aggregate".into()),
            ..Columns::default()
        });
        assert_eq!(columns(&custom, "{key}", "{destination}"), named("aggregate", "topic"));
        assert_eq!(columns(&custom, "{id}", "{destination}"), named("event", "topic"));
    }

    #[test]
    fn what_would_break_the_order_is_refused() {
        let refused = |key: &str, destination: &str| {
            let layout =
                LayoutKind::Custom(Columns { id: Some("id".into()), ..Columns::default() });
            ShardColumns::of(&layout, &template(key), &template(destination)).unwrap_err()
        };
        for key in ["{key}/{version}", "k-{key}", "all", "{xid}"] {
            assert_eq!(refused(key, "d"), ShardError::Key { template: key.to_owned() });
        }
        for destination in ["{column:a}/{column:b}", "{commit_time}"] {
            let template = destination.to_owned();
            assert_eq!(refused("{id}", destination), ShardError::Destination { template });
        }
        assert_eq!(refused("{key}", "/queue/all"), ShardError::Nothing);
    }

    #[test]
    fn a_key_wins_over_the_destination_and_an_empty_one_is_none() {
        let owner = |key, destination| {
            (0..7).find(|&index| Shard { index, count: 7 }.takes(key, destination)).unwrap()
        };
        assert_eq!(owner(None, Some("/queue/a")), owner(Some(""), Some("/queue/a")));
        assert_eq!(owner(Some("k"), Some("/queue/a")), owner(Some("k"), Some("/queue/b")));
        assert_ne!(owner(None, Some("/queue/a")), owner(None, Some("/queue/c")));
    }

    proptest! {
        #[test]
        fn every_message_is_one_shards(
            key in prop::option::of(".{0,40}"),
            destination in prop::option::of(".{0,40}"),
            count in 1u32..9,
        ) {
            let takes = |&index: &u32| {
                Shard { index, count }.takes(key.as_deref(), destination.as_deref())
            };
            prop_assert_eq!((0..count).filter(takes).count(), 1);
        }
    }
}
