//! Settings of the server that endanger the slot, or those who publish.

use std::fmt;

use super::connect::Store;
use super::error::StoreError;
use super::name::{literal, one_line};

/// `application_name` of every connection of walpost.
pub const APPLICATION_NAME: &str = "walpost";

/// As `SHOW` prints them; any role may see them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotSettings {
    /// `synchronous_standby_names`.
    pub synchronous_standby_names: String,
    /// `idle_replication_slot_timeout`; none: the server has no such setting (before PostgreSQL 18).
    pub idle_replication_slot_timeout: Option<String>,
}

/// One of them is set so that an operator should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hazard<'a> {
    /// walpost counts as a synchronous standby.
    Synchronous(&'a str),
    /// A slot that nobody reads for so long is lost.
    IdleTimeout(&'a str),
}

impl SlotSettings {
    /// Whether a walsender of walpost counts as a synchronous standby. `sync_state` of
    /// `pg_stat_replication` says the same, but to roles with `pg_read_all_stats` only, and only
    /// once something is confirmed.
    ///
    /// The names are compared as PostgreSQL does, whatever the case; a `*` in quotes is one, too. The
    /// other words there (`FIRST`, `ANY`, a number) are never walpost's name.
    #[must_use]
    pub fn is_synchronous(&self) -> bool {
        let mut rest = self.synchronous_standby_names.chars().peekable();
        let mut name = String::new();
        while let Some(c) = rest.next() {
            name.clear();
            match c {
                '*' => name.push('*'),
                '"' => {
                    while let Some(c) = rest.next() {
                        // Two are one that belongs to the name.
                        if c == '"' && rest.next_if_eq(&'"').is_none() {
                            break;
                        }
                        name.push(c);
                    }
                }
                c if ends_name(c) => {}
                c => {
                    name.push(c);
                    while let Some(c) = rest.next_if(|c| !ends_name(*c)) {
                        name.push(c);
                    }
                }
            }
            if name == "*" || name.eq_ignore_ascii_case(APPLICATION_NAME) {
                return true;
            }
        }
        false
    }

    /// What an operator should know of.
    #[must_use]
    pub fn hazards(&self) -> Vec<Hazard<'_>> {
        let names = self.synchronous_standby_names.as_str();
        let synchronous = self.is_synchronous().then_some(Hazard::Synchronous(names));
        let timeout = self.idle_replication_slot_timeout.as_deref();
        let idle = timeout.filter(|timeout| *timeout != "0").map(Hazard::IdleTimeout);
        idle.into_iter().chain(synchronous).collect()
    }
}

/// What ends a name without quotes.
fn ends_name(c: char) -> bool {
    c.is_ascii_whitespace() || matches!(c, ',' | '(' | ')' | '"' | '*')
}

impl fmt::Display for Hazard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hazard::Synchronous(names) => write!(
                f,
                "walpost counts as a synchronous standby (synchronous_standby_names is {}): commits wait \
                 until the broker has taken their messages, and for ever while it is down; name the real \
                 standbys there, or none: ALTER SYSTEM SET synchronous_standby_names = ''; \
                 SELECT pg_reload_conf()",
                one_line(&literal(names))
            ),
            Hazard::IdleTimeout(timeout) => write!(
                f,
                "idle_replication_slot_timeout is {}: a walpost that is away for longer loses its slot, and \
                 with it what was committed meanwhile; max_slot_wal_keep_size limits the WAL instead: \
                 ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf()",
                one_line(&literal(timeout))
            ),
        }
    }
}

impl Store {
    /// The settings as they are now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn slot_settings(&self) -> Result<SlotSettings, StoreError> {
        let sql = "SELECT current_setting('synchronous_standby_names'),
            current_setting('idle_replication_slot_timeout', true)";
        let row = self.one("reading the server's settings", sql, &[]).await?;
        Ok(SlotSettings {
            synchronous_standby_names: row.get(0)?,
            idle_replication_slot_timeout: row.get(1)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn settings(names: &str, timeout: Option<&str>) -> SlotSettings {
        SlotSettings {
            synchronous_standby_names: names.to_owned(),
            idle_replication_slot_timeout: timeout.map(str::to_owned),
        }
    }

    #[test]
    fn the_names_match_as_in_postgresql() {
        let yes = [
            "*",
            "walpost",
            "a, WalPost",
            "\"walpost\"",
            "\"*\"",
            "FIRST 1 (*)",
            "any 2 (a,walpost,b)",
            "2(a,\"WALPOST\")",
            "\"a\"\"\", walpost",
            "a\n,\twalpost\n",
        ];
        let no = [
            "",
            "walpost_standby",
            "a, b",
            "\"walpost \"\"x\"",
            "\"a*\"",
            "\"a, walpost\"",
            "FIRST 1 (replica1, replica2)",
            "\"*\"\"\"",
            "\"walpost \"",
            "\"wal\"\"post\"",
        ];
        for (names, expected) in yes.map(|n| (n, true)).into_iter().chain(no.map(|n| (n, false))) {
            assert_eq!(settings(names, None).is_synchronous(), expected, "{names}");
        }
    }

    #[test]
    fn a_hazard_says_what_is_set_and_what_to_type() {
        let said = |names, timeout| {
            let settings = settings(names, timeout);
            settings.hazards().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(said("", None), Vec::<String>::new());
        assert_eq!(said("a", Some("0")), Vec::<String>::new());
        let both = said("*", Some("1d"));
        assert_eq!(both.len(), 2);
        assert!(both[0].starts_with("idle_replication_slot_timeout is '1d': "), "{both:?}");
        assert!(both[0].contains("SET idle_replication_slot_timeout = 0; "), "{both:?}");
        assert!(both[1].contains("synchronous_standby_names is '*'"), "{both:?}");
        assert!(both[1].contains("ALTER SYSTEM SET synchronous_standby_names = ''"), "{both:?}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_to_its_end(text in r#"[a-z*", ()0-9]{0,40}"#) {
            let _ = settings(&text, None).is_synchronous();
        }

        #[test]
        fn a_star_outside_of_quotes_is_always_seen(before in "[a-z, (]{0,20}", after in r#"[a-z",)*]{0,20}"#) {
            prop_assert!(settings(&(before + "*" + &after), None).is_synchronous());
        }
    }
}
