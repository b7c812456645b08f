//! What is wrong with a configuration, and where it was written.

use std::fmt;
use std::sync::Arc;

use crate::secret::HIDDEN;

/// Where a setting came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A line of a configuration file.
    Line {
        /// The file, as the operator named it.
        file: Arc<str>,
        /// The line, from 1; 0 stands for the file as a whole.
        line: usize,
    },
    /// An environment variable or a command-line flag, by its name.
    Named(Arc<str>),
}

impl Origin {
    /// Which of two sources wins: flags and variables over the file, the file over defaults.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Origin::Default => 0,
            Origin::Line { .. } => 1,
            Origin::Named(_) => 2,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::Line { file, line: 0 } => f.write_str(file),
            Origin::Line { file, line } => write!(f, "{file}:{line}"),
            Origin::Named(name) => f.write_str(name),
        }
    }
}

/// One thing that is wrong. Its `Display` is one line: which key, what is wrong with it and how
/// to mend it, and where it was written. It never contains the value of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, as in `broker.hosts`; empty where the problem is not about one key.
    pub path: String,
    /// What is wrong and how to mend it.
    pub text: String,
    /// Where it was written.
    pub origin: Origin,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { path, text, origin } = self;
        match (path.as_str(), origin) {
            ("", Origin::Default) => f.write_str(text),
            ("", _) => write!(f, "{origin}: {text}"),
            (_, Origin::Default) => write!(f, "{path}: {text}"),
            _ => write!(f, "{path}: {text} ({origin})"),
        }
    }
}

/// Everything that is wrong with a configuration, in the order of the file's lines; what came
/// from the environment follows. Its `Display` is one line a problem.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The problems; at least one.
    pub problems: Vec<Problem>,
}

impl ConfigError {
    pub(super) fn new(mut problems: Vec<Problem>) -> ConfigError {
        problems.sort_by_key(|problem| match problem.origin {
            Origin::Line { line, .. } => line,
            _ => usize::MAX,
        });
        ConfigError { problems }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

/// A value as an error quotes it: in double quotes, control characters escaped, cut off where it
/// is long. What stands before an `@` may be a user's password and is hidden.
pub(super) fn quote(text: &str) -> String {
    const LONGEST: usize = 60;
    let text = match text.rsplit_once('@') {
        Some((_, host)) => &format!("{HIDDEN}@{host}"),
        None => text,
    };
    let cut: String = text.chars().take(LONGEST).collect();
    if cut.len() < text.len() { format!("{:?}…", cut) } else { format!("{cut:?}") }
}
