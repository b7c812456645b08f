//! The statements of the inbox.

use tokio_postgres::types::Type;

use super::InboxTable;

/// Queue and message id.
pub(super) const ID: [Type; 2] = [Type::TEXT, Type::TEXT];

/// `$1` queue, `$2` message id, `$3` destination, `$4` headers, `$5` body as JSON, `$6` body as
/// bytes, `$7` whether it is handled again, `$8` and `$9` the function's arguments.
pub(super) const MESSAGE: [Type; 9] = [
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::BYTEA,
    Type::BOOL,
    Type::TEXT,
    Type::TEXT,
];

/// Whether the role may use a table; no row: there is none.
pub(super) const TABLE: &str = "SELECT pg_catalog.has_schema_privilege(n.oid, 'USAGE')
        AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
        AND pg_catalog.has_table_privilege(c.oid, 'INSERT')
        AND pg_catalog.has_table_privilege(c.oid, 'UPDATE'),
        pg_catalog.quote_ident(current_user)
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname || '.' || c.relname = $1 AND c.relkind IN ('r', 'p')";

/// A function by its name as an operator writes it.
pub(super) const FUNCTION: &str = "SELECT
        pg_catalog.format('%I.%I', n.nspname, p.proname), pg_catalog.quote_ident(n.nspname),
        pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE'),
        pg_catalog.quote_ident(current_user)
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE p.oid = pg_catalog.to_regprocedure($1 || '(jsonb, jsonb)') AND p.prokind = 'f'";

/// Old rows of a queue, some of them.
pub(super) const PRUNE: &str = "WITH gone AS (DELETE FROM walpost.inbox WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM walpost.inbox
        WHERE queue = $1 AND received_at < pg_catalog.now() - pg_catalog.make_interval(secs => $2)
        LIMIT $3)) RETURNING 1)
    SELECT pg_catalog.count(*) FROM gone";

/// Those of one table.
pub(super) struct Sql {
    /// A row: the message is known.
    pub(super) known: String,
    /// Common table expressions, the last of which, `new`, has a row if the message is to be handled.
    new: &'static str,
}

const WALPOST: &str = "new AS (
    INSERT INTO walpost.inbox AS kept (queue, message_id, destination, headers, body, body_bytes)
    VALUES ($1, $2, $3, $4::jsonb, $5::jsonb, $6)
    ON CONFLICT (queue, message_id) DO UPDATE SET received_at = pg_catalog.clock_timestamp() WHERE $7
    RETURNING 1)";

/// `msg_id` is not unique before 2.x: a lock of the transaction stands for it, so that two consumers
/// with the same message do not both find it new.
pub(super) const LOCK: &str =
    "SELECT FROM pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended($1, 0))";

/// What the predecessor's callback has failed with (status -1) was dead-lettered; if it comes back it is
/// to be handled.
const RECEIVED: &str = "again AS (
    UPDATE public.received SET status = 2, headers = $4::jsonb, body = $8::jsonb
    WHERE msg_id = $2 AND (status = -1 OR $7)
    RETURNING 1),
made AS (
    INSERT INTO public.received (id, msg_id, headers, body, added, expires_at, retry, status)
    SELECT pg_catalog.gen_random_uuid(), $2, $4::jsonb, $8::jsonb, pg_catalog.now(),
        pg_catalog.now() + interval '1 day', 0, 2
    WHERE NOT EXISTS (SELECT FROM public.received WHERE msg_id = $2)
    RETURNING 1),
new AS (SELECT 1 FROM again UNION SELECT 1 FROM made)";

impl Sql {
    pub(super) fn of(table: InboxTable) -> Sql {
        match table {
            InboxTable::Walpost => Sql {
                known: "SELECT FROM walpost.inbox WHERE queue = $1 AND message_id = $2".to_owned(),
                new: WALPOST,
            },
            InboxTable::Received => Sql {
                known: "SELECT FROM public.received
                    WHERE msg_id = $2 AND status <> -1 AND $1 IS NOT NULL LIMIT 1"
                    .to_owned(),
                new: RECEIVED,
            },
        }
    }

    /// Puts the message in; the number of rows that are new.
    pub(super) fn keep(&self) -> String {
        format!("WITH {} SELECT pg_catalog.count(*) FROM new", self.new)
    }

    /// The same, and calls the function for a new one. Whatever that returns, rows or nothing, does not
    /// count; MATERIALIZED has it called even if it says of itself that it changes nothing.
    pub(super) fn call(&self, function: &str) -> String {
        format!(
            "WITH {}, done AS MATERIALIZED (SELECT {function}($8::jsonb, $9::jsonb) FROM new)
             SELECT (SELECT pg_catalog.count(*) FROM new) + 0 * (SELECT pg_catalog.count(*) FROM done)",
            self.new
        )
    }
}
