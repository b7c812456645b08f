//! What is known while a configuration is read: variables, problems, and what to show.

use std::cell::Cell;
use std::sync::Arc;

use super::problem::{ConfigError, Origin, Problem};
use super::section::Section;
use super::show::Line;
use super::tree::{Node, Value};

/// How the name of every variable begins.
pub(super) const PREFIX: &str = "WALPOST__";

/// A value from outside the file: an environment variable or a command-line flag.
pub(super) struct Variable {
    name: Arc<str>,
    /// The key it sets, spelled as in a variable: `BROKER__HOSTS`.
    key: String,
    value: String,
    used: Cell<bool>,
}

impl Variable {
    /// An environment variable that begins with [`PREFIX`].
    pub(super) fn environment(name: &str, value: String) -> Option<Variable> {
        let key = name.strip_prefix(PREFIX)?.to_owned();
        Some(Variable { name: name.into(), key, value, used: Cell::new(false) })
    }

    /// A flag that sets the key of that path.
    pub(super) fn flag(name: &str, path: &str, value: String) -> Variable {
        Variable { name: name.into(), key: variable_key(path), value, used: Cell::new(false) }
    }

    fn origin(&self) -> Origin {
        Origin::Named(Arc::clone(&self.name))
    }
}

/// A key that nobody knows.
pub(super) struct Unknown {
    pub path: String,
    pub origin: Origin,
}

/// Gathers all that is found while the sections are read, so that one pass gives the values,
/// every problem, and what `config show` prints.
pub(super) struct Reader {
    variables: Vec<Variable>,
    pub(super) problems: Vec<Problem>,
    pub(super) lines: Vec<Line>,
    pub(super) unknown: Vec<Unknown>,
    known: Vec<String>,
}

impl Reader {
    /// `variables` in the order in which they win.
    pub(super) fn new(variables: Vec<Variable>, problems: Vec<Problem>) -> Reader {
        Reader { variables, problems, lines: Vec::new(), unknown: Vec::new(), known: Vec::new() }
    }

    /// Reads the whole tree with `read`.
    pub(super) fn read<T>(
        &mut self,
        root: Option<Node>,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        let entries = match root.map(|node| (node.value, node.origin)) {
            None | Some((Value::Null, _)) => Vec::new(),
            Some((Value::Map(entries), _)) => entries,
            Some((_, origin)) => {
                let text =
                    "is no configuration; it begins with keys such as 'postgres:' and 'broker:'"
                        .to_owned();
                self.problems.push(Problem { path: String::new(), text, origin });
                Vec::new()
            }
        };
        let mut section = Section::new(self, String::new(), entries);
        let value = read(&mut section);
        section.finish();
        value
    }

    /// Notes that there is such a key.
    pub(super) fn know(&mut self, path: &str) {
        self.known.push(path.to_owned());
    }

    /// What a flag or a variable says about the key; the first one wins.
    pub(super) fn variable(&self, path: &str) -> Option<Node> {
        let key = variable_key(path);
        let mut found = None;
        for variable in self.variables.iter().filter(|variable| variable.key == key) {
            variable.used.set(true);
            found = found.or(Some(variable));
        }
        found.map(|variable| Node {
            value: if variable.value.is_empty() {
                Value::Null
            } else {
                Value::Text(variable.value.clone())
            },
            origin: variable.origin(),
        })
    }

    /// The line that shows the key.
    pub(super) fn line(&self, path: &str) -> Option<&Line> {
        self.lines.iter().rev().find(|line| line.path == path)
    }

    /// Where the key was written, else the nearest section around it.
    pub(super) fn origin(&self, path: &str) -> Origin {
        let mut path = path;
        loop {
            match self.line(path) {
                Some(line) if line.origin != Origin::Default => return line.origin.clone(),
                _ if path.contains('.') => path = split(path).0,
                _ => return Origin::Default,
            }
        }
    }

    /// Turns unknown keys and unused variables into problems, and ends the reading.
    ///
    /// `near_misses` are variables that begin with `WALPOST_` and one underscore only: an error
    /// where they spell a known key, for they would be passed over in silence.
    pub(super) fn finish(mut self, near_misses: &[String]) -> Result<Vec<Line>, ConfigError> {
        for Unknown { path, origin } in std::mem::take(&mut self.unknown) {
            let text = match self.nearest(&path) {
                Some(known) => format!("unknown key; did you mean {known}?"),
                None => format!("unknown key; here can stand {}", self.siblings(&path).join(", ")),
            };
            self.problems.push(Problem { path, text, origin });
        }
        for variable in self.variables.iter().filter(|variable| !variable.used.get()) {
            let text = self.unknown_variable(&variable.key);
            self.problems.push(Problem { path: String::new(), text, origin: variable.origin() });
        }
        for name in near_misses {
            let squashed = squash(name.trim_start_matches("WALPOST"));
            if let Some(known) = self.known.iter().find(|known| squash(known) == squashed) {
                let text = format!("is not read; write {}", variable_name(known));
                self.problems.push(Problem {
                    path: String::new(),
                    text,
                    origin: Origin::Named(name.as_str().into()),
                });
            }
        }
        if self.problems.is_empty() { Ok(self.lines) } else { Err(ConfigError::new(self.problems)) }
    }

    fn unknown_variable(&self, key: &str) -> String {
        let path = key.to_lowercase().replace("__", ".");
        if let Some(exact) = self.known.iter().find(|known| **known == path) {
            return format!("unknown variable; write it in capitals: {}", variable_name(exact));
        }
        let whole = self.known.iter().find(|known| {
            let below = path.strip_prefix(known.as_str()).is_some_and(|rest| rest.starts_with('.'));
            below && !self.known.iter().any(|other| is_child(other, known))
        });
        if let Some(whole) = whole {
            return format!(
                "unknown variable; {whole} is set as a whole, by {}",
                variable_name(whole)
            );
        }
        match self.nearest(&path) {
            Some(known) => format!("unknown variable; did you mean {}?", variable_name(known)),
            None => "unknown variable; 'walpost config show' prints every key".to_owned(),
        }
    }

    /// The known key that the operator most likely meant: one of the same section that is
    /// spelled alike, else the same name in another section.
    fn nearest(&self, path: &str) -> Option<&str> {
        let (parent, name) = split(path);
        let alike = self.known.iter().filter(|known| known.contains('[') == path.contains('['));
        let alike = alike.map(|known| {
            let (known_parent, known_name) = split(known);
            let distance = if known_parent != parent && known_name == name {
                1
            } else if known_parent != parent {
                strsim::damerau_levenshtein(path, known)
            } else {
                let beginning = known_name.starts_with(name) || name.starts_with(known_name);
                let longest = if beginning { 2 } else { usize::MAX };
                strsim::damerau_levenshtein(name, known_name).min(longest)
            };
            (distance, known.as_str())
        });
        let alike = alike.filter(|(distance, _)| *distance <= 1 + name.len() / 3);
        alike.min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
    }

    fn siblings(&self, path: &str) -> Vec<&str> {
        let (parent, _) = split(path);
        let mut names: Vec<&str> = Vec::new();
        for known in &self.known {
            let (known_parent, name) = split(known);
            if known_parent == parent && !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

/// `broker.tls.enabled` into `broker.tls` and `enabled`.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

fn is_child(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent).is_some_and(|rest| rest.starts_with('.'))
}

fn squash(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

fn variable_key(path: &str) -> String {
    path.to_uppercase().replace('.', "__")
}

/// The environment variable of a key.
pub(super) fn variable_name(path: &str) -> String {
    format!("{PREFIX}{}", variable_key(path))
}
