//! Why the relay ended.

use std::fmt;

/// The relay ended for another reason than being told to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// An operator must act; exit status 3.
    ForGood {
        /// What and where.
        what: String,
        /// How to mend it.
        remedy: String,
    },
    /// The work could not be done; exit status 1.
    Failed(String),
}

impl Stop {
    pub(super) fn for_good(what: impl fmt::Display, remedy: impl fmt::Display) -> Self {
        Stop::ForGood { what: what.to_string(), remedy: remedy.to_string() }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::ForGood { what, remedy } => write!(f, "{what}; {remedy}"),
            Stop::Failed(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Stop {}
