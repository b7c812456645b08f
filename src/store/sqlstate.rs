//! What a SQLSTATE means for a relay: the one place that decides.
//!
//! The codes are those of PostgreSQL's appendix "PostgreSQL Error Codes". They hold for the SQL
//! and the replication connection alike, and do not change with the server's language.

/// What to do about an error of PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It may pass by itself: connect again and retry, with growing pauses.
    Retry,
    /// Retrying alone mends nothing: somebody must change a right, a setting or an object.
    Operator,
    /// The server shuts down, or is not up yet: close the connections at once (a walsender that
    /// is not released holds up a fast shutdown), come back after a pause.
    ShuttingDown,
}

/// The class of a SQLSTATE (five characters; anything else is [`Class::Retry`]).
///
/// An unknown code is retried: nothing is confirmed meanwhile, so that it costs time, not events.
#[must_use]
pub fn class(code: &str) -> Class {
    match code {
        // admin_shutdown; cannot_connect_now (starting up, shutting down, in recovery)
        "57P01" | "57P03" => Class::ShuttingDown,
        // object_in_use: the slot is active elsewhere, which is how a standby waits
        "55006" => Class::Retry,
        // lock_not_available
        "55P03" => Class::Retry,
        // read_only_sql_transaction: the primary was demoted under us
        "25006" => Class::Retry,
        // configuration_limit_exceeded: no free replication slot
        "53400" => Class::Operator,
        // database_dropped
        "57P04" => Class::Operator,
        // undefined_file: the WAL that the slot needs is gone
        "58P01" => Class::Operator,
        // data_corrupted, index_corrupted
        "XX001" | "XX002" => Class::Operator,
        _ => class_of_group(code.get(..2).unwrap_or_default()),
    }
}

/// Whether the server refused the login itself (class 28: unknown role, wrong password, no line in
/// `pg_hba.conf`). Worth a few retries, since passwords are rotated, before an operator is called.
#[must_use]
pub fn is_login(code: &str) -> bool {
    code.starts_with("28")
}

/// By the first two characters, where no code of its own says otherwise.
fn class_of_group(group: &str) -> Class {
    match group {
        // Feature not supported; invalid grantor; data exception; constraint; invalid authorization;
        // no such database, schema; syntax, missing object or privilege; with check option
        "0A" | "0L" | "0P" | "22" | "23" | "28" | "3D" | "3F" | "42" | "44" => Class::Operator,
        // Program limit exceeded; object not in prerequisite state (a lost slot, wal_level);
        // configuration file
        "54" | "55" | "F0" => Class::Operator,
        // 08 connection, 40 rollback, 53 resources, 57 intervention, 58 system, XX internal, unknown
        _ => Class::Retry,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_code_has_its_class() {
        let expected = [
            (Class::ShuttingDown, &["57P01", "57P03"][..]),
            (Class::Operator, &["28P01", "28000", "42501", "42704", "42P01", "3D000", "55000"]),
            (Class::Operator, &["53400", "58P01", "57P04", "0A000", "22023", "F0000"]),
            (Class::Retry, &["08006", "40001", "40P01", "53300", "55006", "55P03", "57014"]),
            (Class::Retry, &["57P02", "57P05", "25006", "58030", "XX000", "ZZ999", "", "4"]),
        ];
        for (wanted, codes) in expected {
            for code in codes {
                assert_eq!(class(code), wanted, "{code}");
            }
        }
    }

    #[test]
    fn only_class_28_is_a_login() {
        assert!(is_login("28P01") && is_login("28000"));
        assert!(!is_login("42501") && !is_login("08P01"));
    }

    proptest! {
        #[test]
        fn any_text_has_a_class(code in ".{0,6}") {
            let _ = class(&code);
        }
    }
}
