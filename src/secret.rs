//! Passwords and passcodes, held so that they never show.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer};

/// What stands in the place of a secret wherever one would be printed.
pub const HIDDEN: &str = "***";

/// A text that never shows: `Debug` and `Display` print `***`, and its memory is wiped when it
/// is dropped.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes `text` into custody.
    #[must_use]
    pub fn new(text: String) -> Secret {
        Secret(SecretString::from(text))
    }

    /// The secret itself. Call it only where the bytes go to the peer that must see them.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Whether there is nothing to hide.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }
}

impl Default for Secret {
    fn default() -> Secret {
        Secret::new(String::new())
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }
}

/// Compares settings with settings; not in constant time, so not for what a stranger sends.
impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        String::deserialize(deserializer).map(Secret::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_format_shows_it(text in "[a-z0-9]{4,40}") {
            let secret = Secret::new(text.clone());
            for shown in [format!("{secret}"), format!("{secret:?}"), format!("{secret:#?}"), format!("{:>60}", secret)] {
                prop_assert!(!shown.contains(&text), "{shown}");
            }
            prop_assert_eq!(secret.expose(), text);
        }
    }

    #[test]
    fn it_is_read_from_a_string() {
        let secret: Secret = serde_json::from_str("\"hunter2\"").unwrap();
        assert_eq!(secret, Secret::from("hunter2"));
        assert!(!secret.is_empty());
        assert!(Secret::default().is_empty());
    }
}
