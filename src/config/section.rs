//! Reads the keys of one section: each call names a key, its default and its kind, and so is
//! the one place that says what the key is.
//!
//! Nothing stops at the first problem: a value that does not fit is reported and replaced by its
//! default, and the reading goes on.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::problem::{Origin, quote};
use super::reader::{Reader, Unknown};
use super::show::{self, Line};
use super::tree::{Entry, Node, Value, from_json};
use super::values::{self, Choice};

/// A scalar as it was given.
pub(super) struct Given {
    /// `None`: the key is there with nothing after it.
    pub text: Option<String>,
    pub origin: Origin,
}

/// A section that is being read.
pub(super) struct Section<'r> {
    pub(super) reader: &'r mut Reader,
    path: String,
    entries: Vec<Entry>,
}

impl<'r> Section<'r> {
    pub(super) fn new(reader: &'r mut Reader, path: String, entries: Vec<Entry>) -> Section<'r> {
        Section { reader, path, entries }
    }

    /// Ends the reading: what nobody took is unknown.
    pub(super) fn finish(self) {
        for entry in self.entries {
            let path = join(&self.path, &entry.key);
            self.reader.unknown.push(Unknown { path, origin: entry.origin });
        }
    }

    /// A section inside this one.
    pub(super) fn section<T>(&mut self, key: &str, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        let path = self.know(key);
        let (mut entries, mut origin) = (Vec::new(), Origin::Default);
        if let Some(node) = self.written(key) {
            origin = node.origin.clone();
            entries = self.map_of(key, node);
        }
        if let Some(node) = self.reader.variable(&path) {
            origin = node.origin.clone();
            let node = self.json(key, node);
            for entry in self.map_of(key, node) {
                entries.retain(|other| other.key != entry.key);
                entries.push(entry);
            }
        }
        self.line(key, None, origin);
        let mut section = Section::new(self.reader, path, entries);
        let value = read(&mut section);
        section.finish();
        value
    }

    /// A list of sections. They are read for their problems, not shown one by one.
    pub(super) fn sections<T>(
        &mut self,
        key: &str,
        read: impl Fn(&mut Section<'_>) -> T,
    ) -> Vec<T> {
        let path = self.know(key);
        let Some(node) = self.take(key) else {
            self.line(key, Some("[]".to_owned()), Origin::Default);
            return Vec::new();
        };
        let origin = node.origin.clone();
        let items = self.list_of(key, node);
        let shown = if items.is_empty() { "[]" } else { "[…]" };
        self.line(key, Some(shown.to_owned()), origin);
        let lines = self.reader.lines.len();
        let mut values = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            let name = format!("{key}[{index}]");
            // For the problems with what it has not.
            self.line(&name, None, item.origin.clone());
            let entries = self.map_of(&name, item);
            let mut section = Section::new(self.reader, format!("{path}[{index}]"), entries);
            values.push(read(&mut section));
            section.finish();
        }
        self.reader.lines.truncate(lines);
        values
    }

    /// A value that cannot be empty.
    pub(super) fn value<T: Default>(
        &mut self,
        key: &str,
        default: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> T {
        self.know(key);
        let by_default = || parse(default).unwrap_or_default();
        let given = self.scalar(key);
        let Some(Given { text, origin }) = given else {
            self.line(key, Some(show::scalar(default)), Origin::Default);
            return by_default();
        };
        let result = match &text {
            Some(text) => parse(text).map_err(|complaint| format!("{} {complaint}", quote(text))),
            None if default.is_empty() => Err("is needed, but nothing stands here".to_owned()),
            None => Err(format!("is empty; leave the key out for the default, {default}")),
        };
        self.line(key, Some(show::scalar(text.as_deref().unwrap_or_default())), origin.clone());
        result.unwrap_or_else(|complaint| {
            self.problem_at(key, complaint, origin);
            by_default()
        })
    }

    /// A value that may be empty; `default` may be empty, too.
    pub(super) fn optional<T>(
        &mut self,
        key: &str,
        default: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.know(key);
        let given = self.scalar(key);
        let (text, origin) = match given {
            Some(Given { text, origin }) => (text.unwrap_or_default(), origin),
            None => (default.to_owned(), Origin::Default),
        };
        self.line(
            key,
            Some(if text.is_empty() { String::new() } else { show::scalar(&text) }),
            origin.clone(),
        );
        if text.is_empty() {
            return None;
        }
        match parse(&text) {
            Ok(value) => Some(value),
            Err(complaint) => {
                self.problem_at(key, format!("{} {complaint}", quote(&text)), origin);
                parse(default).ok()
            }
        }
    }

    /// A value whose default (`default`, in words) hangs on other keys: `None` where it is left
    /// out or empty.
    pub(super) fn decided<T>(
        &mut self,
        key: &str,
        default: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.optional(key, "", parse);
        if value.is_none() {
            self.reader.lines.pop();
            self.line(key, Some(show::scalar(default)), Origin::Default);
        }
        value
    }

    /// A text that must not be empty.
    pub(super) fn text(&mut self, key: &str, default: &str) -> String {
        self.value(key, default, values::text)
    }

    pub(super) fn boolean(&mut self, key: &str, default: bool) -> bool {
        self.value(key, if default { "true" } else { "false" }, values::boolean)
    }

    pub(super) fn duration(
        &mut self,
        key: &str,
        default: &str,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        self.value(key, default, |text| values::duration(text, &range))
    }

    /// A size in bytes.
    pub(super) fn size(&mut self, key: &str, default: &str, range: RangeInclusive<u64>) -> u64 {
        self.value(key, default, |text| values::size(text, &range))
    }

    /// A whole number; the range must fit into `T`.
    pub(super) fn number<T: TryFrom<u64> + Default>(
        &mut self,
        key: &str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> T {
        let value = self.value(key, &default.to_string(), |text| values::number(text, &range));
        T::try_from(value).unwrap_or_default()
    }

    /// One of a few words.
    pub(super) fn choice<T: Choice>(&mut self, key: &str, default: T) -> T {
        self.value(key, default.spelling(), |text| T::parse(text).map(Some)).unwrap_or(default)
    }

    /// A list. A variable gives it as one JSON value or with commas between. Where an item is wrong
    /// the default takes the list's place.
    pub(super) fn list<T>(
        &mut self,
        key: &str,
        default: &[&str],
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        self.know(key);
        let by_default = || default.iter().filter_map(|item| parse(item).ok()).collect();
        let Some(node) = self.take(key) else {
            let items: Vec<String> = default.iter().map(|item| (*item).to_owned()).collect();
            self.line(key, Some(show::list(&items)), Origin::Default);
            return by_default();
        };
        let origin = node.origin.clone();
        let (mut texts, mut values) = (Vec::new(), Vec::new());
        let problems = self.reader.problems.len();
        for (index, item) in self.list_of(key, node).into_iter().enumerate() {
            let Value::Text(text) = item.value else {
                let key = format!("{key}[{index}]");
                self.problem_at(&key, "is no text".to_owned(), item.origin);
                continue;
            };
            match parse(&text) {
                Ok(value) => values.push(value),
                Err(complaint) => {
                    self.problem_at(key, format!("{} {complaint}", quote(&text)), item.origin);
                }
            }
            texts.push(text);
        }
        self.line(key, Some(show::list(&texts)), origin);
        if self.reader.problems.len() > problems { by_default() } else { values }
    }

    /// A map of texts. A variable gives it as one JSON value. `check` sees each key and value.
    pub(super) fn map(
        &mut self,
        key: &str,
        default: &[(&str, &str)],
        check: impl Fn(&str, &str) -> Result<(), String>,
    ) -> Vec<(String, String)> {
        self.know(key);
        let Some(node) = self.take(key) else {
            let items: Vec<_> = default
                .iter()
                .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
                .collect();
            self.line(key, Some(show::map(&items)), Origin::Default);
            return items;
        };
        let origin = node.origin.clone();
        let node = self.json(key, node);
        let mut items = Vec::new();
        for Entry { key: name, node, .. } in self.map_of(key, node) {
            let Value::Text(text) = node.value else {
                self.problem_at(&join(key, &name), "is no text".to_owned(), node.origin);
                continue;
            };
            if let Err(complaint) = check(&name, &text) {
                self.problem_at(key, complaint, node.origin);
            }
            items.push((name, text));
        }
        self.line(key, Some(show::map(&items)), origin);
        items
    }

    /// Reports a problem with a key that was read already; where nobody set it, the section's
    /// place is named.
    pub(super) fn problem(&mut self, key: &str, text: impl Into<String>) {
        let origin = self.reader.origin(&join(&self.path, key));
        self.problem_at(key, text.into(), origin);
    }

    /// Whether somebody set the key, which was read already.
    pub(super) fn is_given(&self, key: &str) -> bool {
        self.reader.line(&join(&self.path, key)).is_some_and(|line| line.origin != Origin::Default)
    }

    pub(super) fn problem_at(&mut self, key: &str, text: String, origin: Origin) {
        let path = join(&self.path, key);
        self.reader.problems.push(super::Problem { path, text, origin });
    }

    /// Adds the line that shows a key.
    pub(super) fn line(&mut self, key: &str, value: Option<String>, origin: Origin) {
        self.reader.lines.push(Line { path: join(&self.path, key), value, origin });
    }

    /// Notes that there is such a key, and gives its path.
    pub(super) fn know(&mut self, key: &str) -> String {
        let path = join(&self.path, key);
        self.reader.know(&path);
        path
    }

    /// The key's scalar, if it is given at all.
    pub(super) fn scalar(&mut self, key: &str) -> Option<Given> {
        let Node { value, origin } = self.take(key)?;
        match value {
            Value::Null => Some(Given { text: None, origin }),
            Value::Text(text) if text.is_empty() => Some(Given { text: None, origin }),
            Value::Text(text) => Some(Given { text: Some(text), origin }),
            Value::List(_) | Value::Map(_) => {
                self.problem_at(key, "takes one value, not a list or a map".to_owned(), origin);
                None
            }
        }
    }

    fn take(&mut self, key: &str) -> Option<Node> {
        let from_file = self.written(key);
        self.reader.variable(&join(&self.path, key)).or(from_file)
    }

    fn written(&mut self, key: &str) -> Option<Node> {
        let index = self.entries.iter().position(|entry| entry.key == key)?;
        Some(self.entries.remove(index).node)
    }

    fn map_of(&mut self, key: &str, node: Node) -> Vec<Entry> {
        match node.value {
            Value::Null => Vec::new(),
            Value::Map(entries) => entries,
            Value::Text(_) | Value::List(_) => {
                self.problem_at(
                    key,
                    "takes keys with values below it, not a single value or a list".to_owned(),
                    node.origin,
                );
                Vec::new()
            }
        }
    }

    fn list_of(&mut self, key: &str, node: Node) -> Vec<Node> {
        let node = match (&node.origin, &node.value) {
            (Origin::Named(_), Value::Text(text)) if !is_json(text) => {
                let items = text.split(',').map(|item| Value::Text(item.trim().to_owned()));
                let origin = &node.origin;
                let items = items.map(|value| Node { value, origin: origin.clone() }).collect();
                Node { value: Value::List(items), origin: node.origin }
            }
            _ => self.json(key, node),
        };
        match node.value {
            Value::Null => Vec::new(),
            Value::List(items) => items,
            Value::Text(_) | Value::Map(_) => {
                self.problem_at(key, "takes a list; write [first, second]".to_owned(), node.origin);
                Vec::new()
            }
        }
    }

    /// A variable's text as the JSON value that it must be; any other node as it is.
    fn json(&mut self, key: &str, node: Node) -> Node {
        let (Origin::Named(_), Value::Text(text)) = (&node.origin, &node.value) else {
            return node;
        };
        match serde_json::from_str(text) {
            Ok(json) => from_json(json, &node.origin),
            Err(error) => {
                // The parser's own words name a place and a kind, never the text.
                let place = format!("line {} column {}", error.line(), error.column());
                self.problem_at(
                    key,
                    format!("takes one JSON value; this is none ({place})"),
                    node.origin.clone(),
                );
                Node { value: Value::Null, origin: node.origin }
            }
        }
    }
}

/// Whether a variable's text is meant as a JSON list or map, and not as `[::1]:61613,…`.
fn is_json(text: &str) -> bool {
    let text = text.trim();
    text.starts_with('{') || (text.starts_with('[') && text.ends_with(']'))
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
