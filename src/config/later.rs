//! What the configuration can say and this version does not do yet.
//!
//! Such a key is known and its value is checked. A value that would change what the relay does
//! is refused rather than passed over. When a version learns one of them, its line goes.

use super::problem::{Origin, Problem};
use super::reader::Reader;
use super::{Config, Layout};

/// A setting of a later version.
struct Later {
    path: &'static str,
    /// Whether the value asks for what is not there.
    asked: fn(&Config) -> bool,
    /// What to do in its place.
    instead: &'static str,
}

const fn later(path: &'static str, asked: fn(&Config) -> bool, instead: &'static str) -> Later {
    Later { path, asked, instead }
}

const LATER: &[Later] = &[later(
    "outbox.layout",
    |c| c.outbox.layout == Layout::Debezium,
    "write walpost, django or custom",
)];

/// Reports every setting that asks for what this version does not do.
pub(super) fn refuse(config: &Config, reader: &mut Reader) {
    for Later { path, asked, instead } in LATER {
        let (origin, shown) = match reader.line(path) {
            Some(line) => (line.origin.clone(), line.value.clone().unwrap_or_default()),
            None => (Origin::Default, String::new()),
        };
        if asked(config) {
            let value = if shown.is_empty() { String::new() } else { format!("{shown} ") };
            let text = format!("{value}is not in this version; {instead}");
            reader.problems.push(Problem { path: (*path).to_owned(), text, origin });
        }
    }
}

/// Settings of which this version does a part.
const PARTLY: [&str; 1] = ["outbox.layout"];

/// Whether this version does nothing with the setting, whatever its value.
pub(super) fn is_later(path: &str) -> bool {
    LATER.iter().any(|later| later.path == path) && !PARTLY.contains(&path)
}
