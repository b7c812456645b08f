//! Where settings come from, before they are read.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use super::problem::{ConfigError, Origin, Problem};
use super::reader::{PREFIX, Variable};

/// A configuration file is not longer than this, in bytes.
const LONGEST_FILE: u64 = 1024 * 1024;

const BYTE_ORDER_MARK: char = '\u{feff}';

/// Everything that settings are read from. Flags win over environment variables, those over the
/// file, the file over the defaults.
#[derive(Default)]
pub struct Sources {
    pub(super) file: Option<(String, String)>,
    pub(super) variables: Vec<Variable>,
    pub(super) near_misses: Vec<String>,
    pub(super) problems: Vec<Problem>,
}

impl Sources {
    /// Reads a YAML file.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is longer than 1 MiB, or is not UTF-8.
    pub fn file(self, path: &Path) -> Result<Sources, ConfigError> {
        let name = path.display().to_string();
        match read(path) {
            Ok(text) => Ok(self.text(&name, text)),
            Err(error) => {
                let origin = Origin::Line { file: Arc::from(name), line: 0 };
                let text = format!("cannot read the configuration: {error}");
                Err(ConfigError::new(vec![Problem { path: String::new(), text, origin }]))
            }
        }
    }

    /// Takes YAML text; `name` stands for its file in errors.
    #[must_use]
    pub fn text(mut self, name: &str, text: String) -> Sources {
        self.file = Some((name.to_owned(), text));
        self
    }

    /// The name of the YAML file, if there is one.
    #[must_use]
    pub fn file_name(&self) -> Option<&str> {
        self.file.as_ref().map(|(name, _)| name.as_str())
    }

    /// Takes what begins with `WALPOST__` from an environment.
    #[must_use]
    pub fn environment(
        mut self,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Sources {
        let mut ours: Vec<(String, OsString)> = variables
            .into_iter()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, _)| name.starts_with("WALPOST_"))
            .collect();
        ours.sort();
        for (name, value) in ours {
            if !name.starts_with(PREFIX) {
                self.near_misses.push(name);
                continue;
            }
            match value.into_string() {
                Ok(value) => self.variables.extend(Variable::environment(&name, value)),
                Err(_) => self.problems.push(Problem {
                    path: String::new(),
                    text: "is not UTF-8".to_owned(),
                    origin: Origin::Named(name.into()),
                }),
            }
        }
        self
    }

    /// Takes a command-line flag that sets the key of that path, as in `log.format`.
    #[must_use]
    pub fn flag(mut self, name: &str, path: &str, value: &str) -> Sources {
        self.variables.insert(0, Variable::flag(name, path, value.to_owned()));
        self
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LONGEST_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST_FILE {
        return Err(io::Error::other("it is longer than 1 MiB"));
    }
    // Some editors put it in front.
    if text.starts_with(BYTE_ORDER_MARK) {
        text.remove(0);
    }
    Ok(text)
}
