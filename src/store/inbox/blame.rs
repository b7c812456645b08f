//! Whose fault it is that a message could not be handled.

use super::super::error::StoreError;

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The message's, or the function's: it would fail again.
    Message,
    /// Of the moment: a deadlock, a lock that was not had. Some attempts more, then the message's.
    Moment,
    /// The server's, which is down or full: it is waited for, however long.
    Server,
}

/// Whose fault it is. Of an error of class 42 (something is missing, or not allowed) the inbox itself is
/// to be looked at, too.
#[must_use]
pub fn blame(error: &StoreError) -> Blame {
    match error {
        StoreError::Server { code, .. } => of_code(code),
        StoreError::Answer { .. } => Blame::Message,
        _ => Blame::Server,
    }
}

fn of_code(code: &str) -> Blame {
    match code {
        // out_of_memory: what is too large for the server always will be
        "53200" => Blame::Moment,
        // query_canceled: the time limit
        "57014" => Blame::Message,
        // lock_not_available; read_only_sql_transaction: the primary was demoted under us
        "55P03" => Blame::Moment,
        "25006" => Blame::Server,
        _ => match code.get(..2).unwrap_or_default() {
            // Connection; resources; intervention of an operator; system; the login
            "08" | "53" | "57" | "58" | "28" => Blame::Server,
            // Rolled back; internal
            "40" | "XX" => Blame::Moment,
            _ => Blame::Message,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_its_blame() {
        for (blame, codes) in [
            (
                Blame::Message,
                &["P0001", "23505", "22P02", "42P01", "57014", "54000", "38000", "2F003"][..],
            ),
            (Blame::Moment, &["40001", "40P01", "55P03", "53200", "XX000"]),
            (
                Blame::Server,
                &["08006", "53100", "53300", "57P01", "57P03", "58030", "25006", "28P01"],
            ),
        ] {
            for code in codes {
                assert_eq!(of_code(code), blame, "{code}");
            }
        }
    }
}
