//! The versions of STOMP.

use std::fmt;

/// A version of STOMP that this client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// 1.0: no escaping, no heart-beats.
    V1_0,
    /// 1.1: `\\`, `\n` and `\c` in headers; heart-beats.
    V1_1,
    /// 1.2: `\r` too; lines may end in CR LF.
    V1_2,
}

impl Version {
    /// All of them, oldest first.
    pub const ALL: [Version; 3] = [Version::V1_0, Version::V1_1, Version::V1_2];

    /// As the `version` header writes it: `1.2`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Version::V1_0 => "1.0",
            Version::V1_1 => "1.1",
            Version::V1_2 => "1.2",
        }
    }

    /// The version that a `version` header names; `None` for one that is not spoken here.
    #[must_use]
    pub fn parse(text: &str) -> Option<Version> {
        Version::ALL.into_iter().find(|version| version.as_str() == text.trim())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
