//! Values that may stand in a file of their own: `passcode` and its twin `passcode_file`.

use std::fs::File;
use std::io::{self, Read as _};

use super::problem::Origin;
use super::section::{Given, Section};
use super::show;
use crate::secret::{HIDDEN, Secret};

/// A file with a password in it is not longer than this, in bytes.
const LONGEST_FILE: u64 = 64 * 1024;

/// A text and where it came from.
pub(super) struct Found {
    pub text: String,
    pub origin: Origin,
    /// Whether it was read from the file that the twin names; that key is shown already.
    pub from_file: bool,
}

impl Section<'_> {
    /// The text of `key`, or of the file that `twin` names. Where both are given the one of the
    /// stronger source wins (environment over file); both from the same source are a problem.
    ///
    /// A key that is given with nothing after it yields an empty text, unless its twin is given.
    /// Whoever calls shows `key`, unless the text is the file's.
    pub(super) fn text_or_file(&mut self, key: &str, twin: &str) -> Option<Found> {
        self.know(key);
        self.know(twin);
        let value = self.scalar(key);
        let path = self.scalar(twin).filter(|given| given.text.is_some());
        let is_set = value.as_ref().is_some_and(|given| given.text.is_some());
        match (value, path) {
            (Some(value), Some(path)) if is_set && value.origin.rank() == path.origin.rank() => {
                let text = format!("stands beside {key} ({}); keep one of the two", value.origin);
                self.problem_at(twin, text, path.origin);
                None
            }
            (Some(value), Some(path)) if !is_set || value.origin.rank() < path.origin.rank() => {
                self.open_twin(twin, path)
            }
            (Some(Given { text, origin }), _) => {
                Some(Found { text: text.unwrap_or_default(), origin, from_file: false })
            }
            (None, Some(path)) => self.open_twin(twin, path),
            (None, None) => None,
        }
    }

    /// A secret that may be empty.
    pub(super) fn secret(&mut self, key: &str, twin: &str, default: &str) -> Secret {
        match self.text_or_file(key, twin) {
            Some(Found { text, from_file: true, .. }) => Secret::new(text),
            Some(Found { text, origin, .. }) => self.hidden(key, Secret::new(text), origin),
            None => self.hidden(key, Secret::from(default), Origin::Default),
        }
    }

    /// A secret that can stand in a file only.
    pub(super) fn secret_file(&mut self, twin: &str) -> Option<Secret> {
        self.know(twin);
        match self.scalar(twin) {
            Some(given) if given.text.is_some() => {
                self.open_twin(twin, given).map(|found| Secret::new(found.text))
            }
            other => {
                let origin = other.map_or(Origin::Default, |given| given.origin);
                self.line(twin, Some(String::new()), origin);
                None
            }
        }
    }

    fn hidden(&mut self, key: &str, secret: Secret, origin: Origin) -> Secret {
        let shown = if secret.is_empty() { String::new() } else { show::scalar(HIDDEN) };
        self.line(key, Some(shown), origin);
        secret
    }

    fn open_twin(&mut self, twin: &str, given: Given) -> Option<Found> {
        let Given { text, origin } = given;
        let path = text.unwrap_or_default();
        self.line(twin, Some(show::scalar(&path)), origin.clone());
        match read(&path) {
            Ok(text) if text.is_empty() => {
                self.problem_at(twin, format!("the file '{path}' is empty"), origin);
                None
            }
            Ok(text) => Some(Found { text, origin, from_file: true }),
            Err(error) => {
                self.problem_at(twin, format!("cannot read '{path}': {error}"), origin);
                None
            }
        }
    }
}

/// A file's text without the newline at its end.
fn read(path: &str) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LONGEST_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST_FILE {
        return Err(io::Error::other("it is longer than 64 KiB"));
    }
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}
