//! The effective configuration as YAML that may be shown to anybody.

use std::fmt::Write as _;

use super::later;
use super::problem::Origin;

/// One line of the effective configuration.
#[derive(Debug)]
pub(super) struct Line {
    pub path: String,
    /// The value as YAML, secrets hidden; `None` for a section's own line.
    pub value: Option<String>,
    pub origin: Origin,
}

/// Comments begin in this column, unless a value is longer.
const COMMENTS: usize = 60;

/// Prints the lines as YAML; a comment after each value says where it came from. What is printed
/// can be read again, apart from the hidden secrets.
pub(super) fn yaml(lines: &[Line]) -> String {
    let widest =
        lines.iter().map(|line| text_of(line).chars().count()).filter(|width| *width < COMMENTS);
    let column = widest.max().unwrap_or(0) + 2;
    let mut out = String::new();
    for line in lines {
        let text = text_of(line);
        // Writing into a String cannot fail.
        let _ = match line.value {
            Some(_) if later::is_later(&line.path) => {
                writeln!(out, "{text:<column$}# {}; not in this version", line.origin)
            }
            Some(_) => writeln!(out, "{text:<column$}# {}", line.origin),
            None => writeln!(out, "{text}"),
        };
    }
    out
}

fn text_of(line: &Line) -> String {
    let depth = line.path.matches('.').count();
    let key = line.path.rsplit('.').next().unwrap_or_default();
    let indent = "  ".repeat(depth);
    match line.value.as_deref() {
        None | Some("") => format!("{indent}{key}:"),
        Some(value) => format!("{indent}{key}: {value}"),
    }
}

/// A text as a YAML scalar: in quotes unless any YAML parser takes it for the text, number or
/// boolean that it is.
pub(super) fn scalar(text: &str) -> String {
    let first = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '/');
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./+@?=:,%".contains(c));
    let is_null = matches!(text, "null" | "Null" | "NULL");
    let is_fraction = text.contains('.') && text.parse::<f64>().is_ok();
    if first && plain && !text.ends_with(':') && !is_null && !is_fraction {
        text.to_owned()
    } else {
        serde_json::Value::from(text).to_string()
    }
}

/// A list of texts in flow style.
pub(super) fn list(items: &[String]) -> String {
    let items: Vec<String> =
        items.iter().map(|item| serde_json::Value::from(item.as_str()).to_string()).collect();
    format!("[{}]", items.join(", "))
}

/// A map of texts in flow style.
pub(super) fn map(items: &[(String, String)]) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let items: Vec<String> =
        items.iter().map(|(key, value)| format!("{}: {}", scalar(key), quoted(value))).collect();
    format!("{{{}}}", items.join(", "))
}
