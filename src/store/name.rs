//! Names of tables, and names and texts as they are written into SQL.
//!
//! A name goes as a parameter wherever PostgreSQL takes one; utility statements (`CREATE
//! PUBLICATION`) take none, so there it is quoted, always.

use std::fmt;

use postgres_protocol::escape::{escape_identifier, escape_literal};

/// A table by schema and name, as they stand in the catalogs: unquoted, case kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    /// The schema, for example `walpost`.
    pub schema: String,
    /// The table within it, for example `outbox`.
    pub name: String,
}

impl TableName {
    /// From its two parts.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        TableName { schema: schema.into(), name: name.into() }
    }

    /// As SQL: both parts quoted.
    #[must_use]
    pub fn quoted(&self) -> String {
        format!("{}.{}", ident(&self.schema), ident(&self.name))
    }
}

impl From<(String, String)> for TableName {
    fn from((schema, name): (String, String)) -> Self {
        TableName { schema, name }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", one_line(&self.schema), one_line(&self.name))
    }
}

/// A name as a quoted SQL identifier.
#[must_use]
pub fn ident(name: &str) -> String {
    escape_identifier(name)
}

/// A text as a SQL literal, right under either setting of `standard_conforming_strings`.
#[must_use]
pub fn literal(text: &str) -> String {
    escape_literal(text).trim_start().to_owned()
}

/// Several tables, quoted and separated by commas.
#[must_use]
pub fn quoted_list(tables: &[TableName]) -> String {
    tables.iter().map(TableName::quoted).collect::<Vec<_>>().join(", ")
}

/// A text from the server or the configuration with its control characters made visible, so that
/// it can neither break a log line nor end a SQL comment.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn identifiers_are_always_quoted() {
        assert_eq!(TableName::new("walpost", "outbox").quoted(), r#""walpost"."outbox""#);
        assert_eq!(TableName::new("My.Shop", r#"a"b"#).quoted(), r#""My.Shop"."a""b""#);
        assert_eq!(ident(r"back\slash"), r#""back\slash""#);
        assert_eq!(ident("x; DROP TABLE y --"), r#""x; DROP TABLE y --""#);
    }

    #[test]
    fn literals_survive_quotes_and_backslashes() {
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"a\'b"), r"E'a\\''b'");
    }

    proptest! {
        #[test]
        fn a_quoted_name_holds_no_lone_quote(name in "\\PC{0,12}") {
            let quoted = ident(&name);
            let inside = &quoted[1..quoted.len() - 1];
            prop_assert_eq!(inside.replace("\"\"", "").matches('"').count(), 0);
            prop_assert_eq!(inside.replace("\"\"", "\""), name);
        }

        #[test]
        fn one_line_is_one_line(text in "(?s).{0,24}") {
            let shown = one_line(&text);
            prop_assert!(!shown.contains(char::is_control));
        }
    }
}
