//! Putting messages in.

use std::borrow::Cow;

use tokio_postgres::types::{PgLsn, Type};
use tracing::warn;

use super::row::{Micros, ascii, clean, headers_json, int, is_untranslatable, seconds};
use super::{Held, KeptState, NewRow, ours};
use crate::lsn::Lsn;
use crate::store::connect::Store;
use crate::store::error::StoreError;
use crate::store::marking::{Holder, MarkedTable};

const WHAT: &str = "keeping refused messages in walpost.undelivered";

impl Store {
    /// Keeps messages, in the order given, in one transaction; dead ones are marked in their tables with it. What
    /// came from the slot and is kept already is left as it is; so is what was read from a table and is kept
    /// already: the same id, of the same table, with the same body or discarded.
    ///
    /// `Some`: the end of the WAL after the COMMIT. `None`: the slot is not ours, nothing was written.
    ///
    /// # Errors
    /// [`StoreError`]: what is kept is not known; the same again does no harm.
    pub async fn keep(
        &self,
        holder: Holder<'_>,
        rows: &[NewRow],
        marks: &[MarkedTable],
    ) -> Result<Option<Lsn>, StoreError> {
        match self.keep_marking(holder, rows, marks).await {
            Err(error) if is_untranslatable(&error) => {
                let rows: Vec<NewRow> = rows.iter().map(NewRow::in_ascii).collect();
                self.keep_marking(holder, &rows, marks).await
            }
            kept => kept,
        }
    }

    async fn keep_marking(
        &self,
        holder: Holder<'_>,
        rows: &[NewRow],
        marks: &[MarkedTable],
    ) -> Result<Option<Lsn>, StoreError> {
        let dead = rows.iter().filter(|row| row.state() == KeptState::Dead);
        let tables = dead.filter_map(|row| row.table.as_ref());
        let tables = tables.map(|(oid, name)| (*oid, name.as_str()));
        let marked = match self.dead_marks(marks, tables).await {
            Ok(targets) if targets.is_empty() => Ok(None),
            Ok(targets) => self.keep_rows(holder, rows, &targets.given_up("kept")).await.map(Some),
            Err(error) => Err(error),
        };
        match marked {
            Ok(Some(kept)) => Ok(kept),
            Ok(None) => self.keep_rows(holder, rows, "").await,
            // Keeping them comes before telling their table.
            Err(error) if is_of_marks(&error) && !self.is_closed() => {
                warn!("dead letters are kept, and not marked in their table: {error}");
                self.keep_rows(holder, rows, "").await
            }
            Err(error) => Err(error),
        }
    }

    async fn keep_rows(
        &self,
        holder: Holder<'_>,
        rows: &[NewRow],
        and: &str,
    ) -> Result<Option<Lsn>, StoreError> {
        let sql = format!(
            "{ours}, given AS (SELECT * FROM unnest($1::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                $9::bytea[], $10::text[], $11::integer[], $12::float8[], $13::pg_lsn[], $14::bigint[],
                $15::timestamptz[], $16::pg_lsn[], $17::bigint[], $18::oid[], $19::text[], $20::boolean[]) WITH ORDINALITY
                AS given(state, message_id, destination, key, headers, body, error, attempts, next_in, lsn, xid,
                    commit_time, change_lsn, place, table_oid, table_name, unfit, nth)),
            kept AS (INSERT INTO walpost.undelivered (slot, state, message_id, destination, key, headers, body,
                    error, attempts, next_attempt_at, lsn, xid, commit_time, change_lsn, place, table_oid,
                    table_name, unfit)
                SELECT $2, state, message_id, destination, key, headers::jsonb, body, error, attempts,
                    now() + next_in * interval '1 second', lsn, xid, commit_time, change_lsn, place, table_oid,
                    table_name, unfit
                FROM given CROSS JOIN ours WHERE held AND (lsn IS NOT NULL OR NOT EXISTS (
                    SELECT FROM walpost.undelivered AS there WHERE there.slot = $2
                        AND hashtextextended(there.message_id, 0) = hashtextextended(given.message_id, 0)
                        AND there.message_id = given.message_id
                        AND there.table_oid IS NOT DISTINCT FROM given.table_oid
                        AND (there.state = 'discarded' OR there.body IS NOT DISTINCT FROM given.body)))
                ORDER BY nth
                ON CONFLICT (slot, lsn, xid, commit_time, change_lsn, place) WHERE lsn IS NOT NULL DO NOTHING
                RETURNING state, message_id, attempts, table_oid){and}
            SELECT held FROM ours",
            ours = ours()
        );
        let held = Held::new(holder);
        let columns = Columns::of(rows);
        let mut params = held.params((&columns.state, Type::TEXT_ARRAY));
        params.extend([
            (&columns.message_id as _, Type::TEXT_ARRAY),
            (&columns.destination as _, Type::TEXT_ARRAY),
            (&columns.key as _, Type::TEXT_ARRAY),
            (&columns.headers as _, Type::TEXT_ARRAY),
            (&columns.body as _, Type::BYTEA_ARRAY),
            (&columns.error as _, Type::TEXT_ARRAY),
            (&columns.attempts as _, Type::INT4_ARRAY),
            (&columns.next_in as _, Type::FLOAT8_ARRAY),
            (&columns.lsn as _, Type::PG_LSN_ARRAY),
            (&columns.xid as _, Type::INT8_ARRAY),
            (&columns.commit_time as _, Type::TIMESTAMPTZ_ARRAY),
            (&columns.change_lsn as _, Type::PG_LSN_ARRAY),
            (&columns.place as _, Type::INT8_ARRAY),
            (&columns.table_oid as _, Type::OID_ARRAY),
            (&columns.table_name as _, Type::TEXT_ARRAY),
            (&columns.unfit as _, Type::BOOL_ARRAY),
        ]);
        // Both are under way at once, in this order: the second is answered after the commit of the first.
        let kept = self.one(WHAT, &sql, &params);
        let (kept, end) = futures_util::future::join(kept, self.end_of_wal(WHAT)).await;
        if kept?.get(0)? { end.map(Some) } else { Ok(None) }
    }
}

/// Whether it may work without marks.
fn is_of_marks(error: &StoreError) -> bool {
    error.code().is_some() && !is_untranslatable(error)
}

impl NewRow {
    /// The same for a database whose encoding lacks some letter: those of the broker's words, say. What was
    /// read from the database itself, it has.
    fn in_ascii(&self) -> NewRow {
        let text = |text: &String| ascii(text);
        let header = |(name, value): &(String, String)| (ascii(name), ascii(value));
        NewRow {
            message_id: self.message_id.as_ref().map(text),
            key: self.key.as_ref().map(text),
            headers: self.headers.iter().map(header).collect(),
            error: ascii(&self.error),
            ..self.clone()
        }
    }

    /// What it is kept as.
    fn state(&self) -> KeptState {
        if self.destination.is_some() { self.state } else { KeptState::Dead }
    }
}

/// The rows, an array a column.
#[derive(Default)]
struct Columns<'a> {
    state: Vec<&'static str>,
    message_id: Vec<Option<Cow<'a, str>>>,
    destination: Vec<Option<Cow<'a, str>>>,
    key: Vec<Option<Cow<'a, str>>>,
    headers: Vec<String>,
    body: Vec<Option<&'a [u8]>>,
    error: Vec<Cow<'a, str>>,
    attempts: Vec<i32>,
    next_in: Vec<Option<f64>>,
    lsn: Vec<Option<PgLsn>>,
    xid: Vec<Option<i64>>,
    commit_time: Vec<Option<Micros>>,
    change_lsn: Vec<Option<PgLsn>>,
    place: Vec<Option<i64>>,
    table_oid: Vec<Option<u32>>,
    table_name: Vec<Option<Cow<'a, str>>>,
    unfit: Vec<bool>,
}

impl<'a> Columns<'a> {
    fn of(rows: &'a [NewRow]) -> Self {
        let mut columns = Columns::default();
        for row in rows {
            columns.push(row);
        }
        columns
    }

    fn push(&mut self, row: &'a NewRow) {
        let state = row.state();
        self.state.push(match state {
            KeptState::Retrying => "retrying",
            KeptState::Dead => "dead",
        });
        self.unfit.push(row.unfit);
        self.message_id.push(row.message_id.as_deref().map(clean));
        self.destination.push(row.destination.as_deref().map(clean));
        self.key.push(row.key.as_deref().map(clean));
        self.headers.push(headers_json(&row.headers));
        self.body.push(row.body.as_deref());
        self.error.push(clean(&row.error));
        self.attempts.push(int(row.attempts));
        let next = row.next_in.filter(|_| state == KeptState::Retrying);
        self.next_in.push(next.map(seconds));
        let identity = row.identity.as_ref();
        self.lsn.push(identity.map(|of| PgLsn::from(of.commit_lsn.0)));
        self.xid.push(identity.map(|of| of.xid.into()));
        self.commit_time.push(identity.map(|of| Micros(of.commit_time)));
        self.change_lsn.push(identity.map(|of| PgLsn::from(of.change.lsn.0)));
        self.place.push(identity.map(|of| of.change.place.into()));
        self.table_oid.push(row.table.as_ref().map(|(oid, _)| *oid));
        self.table_name.push(row.table.as_ref().map(|(_, name)| clean(name)));
    }
}
