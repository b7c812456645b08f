//! A YAML file as a tree of texts, each with the line it stands on.
//!
//! Scalars stay text until the key that reads them says what they are, so that `min_version: 1.2`
//! and `persistent: true` need no quotes.

use std::sync::Arc;

use yaml_rust2::Event;
use yaml_rust2::parser::{Parser, Tag};
use yaml_rust2::scanner::TScalarStyle;

use super::problem::{Origin, Problem};

/// Deeper nesting is refused: the deepest key of the configuration is six levels down.
const DEEPEST: usize = 16;

/// A value and where it was written. Not `Debug`, for it may hold a secret.
#[derive(Clone)]
pub(super) struct Node {
    pub value: Value,
    pub origin: Origin,
}

/// What a node holds.
#[derive(Clone)]
pub(super) enum Value {
    /// A key with nothing after it, `~` or `null`.
    Null,
    /// Any scalar.
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key of a map with its value.
#[derive(Clone)]
pub(super) struct Entry {
    pub key: String,
    pub origin: Origin,
    pub node: Node,
}

/// Parses one YAML document. `file` names it in origins; an empty one is an empty map.
///
/// What is outside a configuration's needs (anchors, tags, several documents, keys that are no
/// text) is a problem rather than a guess. So is a key given twice.
pub(super) fn parse(file: &Arc<str>, text: &str) -> Result<Node, Vec<Problem>> {
    let mut builder =
        Builder { file, open: Vec::new(), root: None, documents: 0, problems: Vec::new() };
    let mut parser = Parser::new_from_str(text);
    loop {
        let next = parser.next_token();
        let result = match next {
            Ok((Event::StreamEnd, _)) => break,
            Ok((event, mark)) => builder.event(event, mark.line()),
            Err(error) => {
                let (info, column) = (error.info(), error.marker().col() + 1);
                let text = format!("is no YAML: {info} in column {column}; {SIGNS}");
                Err(builder.problem(error.marker().line(), text))
            }
        };
        if let Err(problem) = result {
            builder.problems.push(problem);
            return Err(builder.problems);
        }
    }
    if !builder.problems.is_empty() {
        return Err(builder.problems);
    }
    let empty = Node { value: Value::Null, origin: builder.at(0) };
    Ok(builder.root.unwrap_or(empty))
}

/// Turns a JSON value (of an environment variable) into nodes that all come from `origin`.
pub(super) fn from_json(json: serde_json::Value, origin: &Origin) -> Node {
    let value = match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::String(text) => Value::Text(text),
        serde_json::Value::Array(items) => {
            Value::List(items.into_iter().map(|item| from_json(item, origin)).collect())
        }
        serde_json::Value::Object(map) => Value::Map(
            map.into_iter()
                .map(|(key, item)| Entry {
                    key,
                    origin: origin.clone(),
                    node: from_json(item, origin),
                })
                .collect(),
        ),
        scalar => Value::Text(scalar.to_string()),
    };
    Node { value, origin: origin.clone() }
}

/// A list or map whose end has not come yet.
struct Open {
    line: usize,
    kind: Kind,
}

enum Kind {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, key: Option<(String, usize)> },
}

struct Builder<'a> {
    file: &'a Arc<str>,
    open: Vec<Open>,
    root: Option<Node>,
    documents: usize,
    problems: Vec<Problem>,
}

impl Builder<'_> {
    fn event(&mut self, event: Event, line: usize) -> Result<(), Problem> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(self.problem(
                        line,
                        "holds a second document; keep one, without '---' between",
                    ));
                }
                Ok(())
            }
            Event::Alias(_) => Err(self.problem(line, ANCHORS)),
            Event::Scalar(text, style, anchor, tag) => {
                self.plain_yaml(anchor, tag.as_ref(), line)?;
                self.place(scalar(text, style), line)
            }
            Event::SequenceStart(anchor, tag) => {
                self.plain_yaml(anchor, tag.as_ref(), line)?;
                self.enter(line, Kind::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.plain_yaml(anchor, tag.as_ref(), line)?;
                self.enter(line, Kind::Map { entries: Vec::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { line, kind: Kind::List(items) }) => {
                    self.place(Value::List(items), line)
                }
                Some(Open { line, kind: Kind::Map { entries, .. } }) => {
                    self.place(Value::Map(entries), line)
                }
                None => Ok(()),
            },
        }
    }

    /// Opens a list or a map, unless it stands where a key must.
    fn enter(&mut self, line: usize, kind: Kind) -> Result<(), Problem> {
        if self.open.len() >= DEEPEST {
            return Err(self.problem(line, "is nested too deeply"));
        }
        if let Some(Open { kind: Kind::Map { key: None, .. }, .. }) = self.open.last() {
            return Err(self.problem(line, "has a list or a map where a key must be"));
        }
        self.open.push(Open { line, kind });
        Ok(())
    }

    /// Puts a finished value where it belongs: as the next key, the value of the last key, the
    /// next item, or the root.
    fn place(&mut self, value: Value, line: usize) -> Result<(), Problem> {
        let node = Node { value, origin: self.at(line) };
        match self.open.last_mut().map(|open| &mut open.kind) {
            None => self.root = Some(node),
            Some(Kind::List(items)) => items.push(node),
            Some(Kind::Map { entries, key }) => match (key.take(), node.value) {
                (None, Value::Text(text)) => *key = Some((text, line)),
                (None, _) => return Err(self.problem(line, "has an empty key")),
                (Some((name, key_line)), value) => {
                    let twice = entries
                        .iter()
                        .find(|entry| entry.key == name)
                        .map(|entry| entry.origin.clone());
                    let origin = Origin::Line { file: Arc::clone(self.file), line: key_line };
                    // The mark of an empty value or a section may lie on a later line.
                    let at = match value {
                        Value::Text(_) => node.origin,
                        _ => origin.clone(),
                    };
                    entries.push(Entry {
                        key: name.clone(),
                        origin,
                        node: Node { value, origin: at },
                    });
                    if let Some(first) = twice {
                        let text = format!(
                            "the key '{name}' stands here again (first: {first}); keep one"
                        );
                        let problem = self.problem(key_line, text);
                        self.problems.push(problem);
                    }
                }
            },
        }
        Ok(())
    }

    fn plain_yaml(&self, anchor: usize, tag: Option<&Tag>, line: usize) -> Result<(), Problem> {
        match tag {
            _ if anchor > 0 => Err(self.problem(line, ANCHORS)),
            Some(_) => Err(self.problem(
                line,
                "has a YAML tag ('!…'); put the value in quotes or leave the tag out",
            )),
            None => Ok(()),
        }
    }

    fn at(&self, line: usize) -> Origin {
        Origin::Line { file: Arc::clone(self.file), line }
    }

    fn problem(&self, line: usize, text: impl Into<String>) -> Problem {
        Problem { path: String::new(), text: text.into(), origin: self.at(line) }
    }
}

const SIGNS: &str = "a value that begins with a sign needs quotes";

const ANCHORS: &str =
    "has a YAML anchor or alias ('&…', '*…'); write the value out, or put it in quotes";

fn scalar(text: String, style: TScalarStyle) -> Value {
    match (style, text.as_str()) {
        (TScalarStyle::Plain, "" | "~" | "null" | "Null" | "NULL") => Value::Null,
        _ => Value::Text(text),
    }
}
