//! Who holds up the creation of a slot.
//!
//! A slot's first snapshot is consistent only once every transaction that was running has ended,
//! in any database of the cluster; one session left open over lunch is enough to wait for ever.

use std::fmt;
use std::time::Duration;

use tokio_postgres::types::Type;

use super::connect::Store;
use super::error::StoreError;
use super::name::one_line;

/// A transaction that must end before a slot can be made. What it runs is not shown: statements
/// hold data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocker {
    /// The server process; none: a prepared transaction, which has none.
    pub pid: Option<i32>,
    /// The name of the prepared transaction.
    pub prepared: Option<String>,
    /// Its role.
    pub user: Option<String>,
    /// Its database; any database of the cluster counts.
    pub database: Option<String>,
    /// `application_name`.
    pub application: Option<String>,
    /// What it is doing (`idle in transaction`, `active`); none where our role may not see it
    /// (`pg_read_all_stats` may).
    pub state: Option<String>,
    /// For how long it has been open.
    pub open_for: Option<Duration>,
    /// Whether it is the one being waited for just now.
    pub waited_for: bool,
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.pid, &self.prepared) {
            (Some(pid), _) => write!(f, "pid {pid}")?,
            (None, Some(gid)) => write!(f, "prepared transaction '{}'", one_line(gid))?,
            (None, None) => f.write_str("a transaction without a process")?,
        }
        let facts = [
            ("user ", &self.user),
            ("database ", &self.database),
            ("application ", &self.application),
            ("", &self.state),
        ];
        let mut before = " (";
        for (label, fact) in facts {
            if let Some(fact) = fact.as_deref().filter(|fact| !fact.is_empty()) {
                write!(f, "{before}{label}{}", one_line(fact))?;
                before = ", ";
            }
        }
        if let Some(open_for) = self.open_for {
            let seconds = Duration::from_secs(open_for.as_secs());
            write!(f, "{before}open for {}", humantime::format_duration(seconds))?;
            before = ", ";
        }
        f.write_str(if before == ", " { ")" } else { "" })
    }
}

/// Every running transaction with a transaction id holds a lock on it, which anyone may see;
/// `pg_stat_activity` hides its details from other roles. Transactions that began after the slot's
/// creation are left out, unless they are being waited for already (the wait has three phases).
const BLOCKERS: &str = "WITH creator AS (
        SELECT a.query_start, pg_blocking_pids($1) AS pids,
            (SELECT l.transactionid FROM pg_locks l WHERE l.pid = $1
                AND l.locktype = 'transactionid' AND NOT l.granted LIMIT 1) AS waited_for
        FROM pg_stat_activity a WHERE a.pid = $1
    ), holder AS (
        SELECT l.pid, bool_or(l.transactionid = c.waited_for) AS waited_for,
            max(p.gid) AS gid, max(p.owner) AS owner, max(p.database) AS database,
            max(p.prepared) AS prepared, max(c.query_start) AS query_start,
            coalesce(bool_or(l.pid = ANY (c.pids)), false) AS blocks
        FROM creator c
            JOIN pg_locks l ON l.locktype = 'transactionid' AND l.granted
                AND l.mode = 'ExclusiveLock' AND l.pid IS DISTINCT FROM $1
            LEFT JOIN pg_prepared_xacts p
                ON l.pid IS NULL AND p.transaction = l.transactionid
        WHERE c.waited_for IS NOT NULL
        GROUP BY l.pid, p.gid
    )
    SELECT h.pid, h.gid, coalesce(a.usename, h.owner)::text,
        coalesce(a.datname, h.database)::text, a.application_name, a.state,
        extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, h.prepared))::float8,
        coalesce(h.waited_for, false) OR h.blocks
    FROM holder h LEFT JOIN pg_stat_activity a ON a.pid = h.pid
    WHERE coalesce(h.waited_for, false) OR h.blocks
        OR coalesce(a.xact_start, h.prepared) <= h.query_start
    ORDER BY 8 DESC, 7 DESC NULLS LAST LIMIT 20";

impl Store {
    /// Who holds up the slot creation that runs in the server process `creator`; the one waited
    /// for just now comes first, at most 20. Empty where it does not wait for a transaction.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn slot_blockers(&self, creator: i32) -> Result<Vec<Blocker>, StoreError> {
        let what = "asking who holds up the slot";
        let rows = self.rows(what, BLOCKERS, &[(&creator, Type::INT4)]).await?;
        let blocker = |row: &super::query::Fields| {
            let open_for: Option<f64> = row.get(6)?;
            Ok(Blocker {
                pid: row.get(0)?,
                prepared: row.get(1)?,
                user: row.get(2)?,
                database: row.get(3)?,
                application: row.get(4)?,
                state: row.get(5)?,
                open_for: open_for.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
                waited_for: row.get(7)?,
            })
        };
        rows.iter().map(blocker).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocker_is_named_with_what_is_known() {
        let mut blocker = Blocker {
            pid: Some(4711),
            prepared: None,
            user: Some("app".to_owned()),
            database: Some("shop".to_owned()),
            application: Some(String::new()),
            state: Some("idle in transaction".to_owned()),
            open_for: Some(Duration::from_millis(192_400)),
            waited_for: true,
        };
        assert_eq!(
            blocker.to_string(),
            "pid 4711 (user app, database shop, idle in transaction, open for 3m 12s)"
        );
        blocker = Blocker {
            pid: None,
            prepared: Some("x\n1".to_owned()),
            user: None,
            database: None,
            application: None,
            state: None,
            open_for: None,
            waited_for: false,
        };
        assert_eq!(blocker.to_string(), r"prepared transaction 'x\n1'");
    }
}
