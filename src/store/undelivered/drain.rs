//! Sending what is kept: the head alone, or one after the other.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::row::{ascii, clean, columns, int, is_untranslatable, kept_row, seconds};
use super::{Held, KeptRow, of_destination, ours};
use crate::store::connect::Store;
use crate::store::error::StoreError;
use crate::store::marking::Holder;

/// What is to be tried.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "it is taken apart at once")]
pub enum Attempt {
    /// The slot is not ours; nothing was written.
    NotHeld,
    /// There is no such row, or somebody changes it just now.
    Nothing,
    /// This one; its attempt is counted already.
    Row(KeptRow),
}

/// Some rows of a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// In the order of their ids.
    pub rows: Vec<KeptRow>,
    /// Rows of the destination that retry behind the last one of these; of many, not all are counted.
    pub unread: u64,
}

/// Behind a chunk, no more rows than this are counted: more than any window holds half of.
const MANY: u64 = 20_000;

impl Store {
    /// Counts an attempt of a destination's head, and gives it: the first row that retries, or with
    /// `newest_dead` the last one that is dead and might be sent.
    ///
    /// # Errors
    /// [`StoreError`]: whether the attempt is counted is not known.
    pub async fn attempt(
        &self,
        holder: Holder<'_>,
        destination: &str,
        newest_dead: bool,
        wait: Duration,
    ) -> Result<Attempt, StoreError> {
        const WHAT: &str = "counting an attempt in walpost.undelivered";
        let (state, and, order) = match newest_dead {
            false => ("retrying", "", "ASC"),
            true => ("dead", "AND NOT unfit", "DESC"),
        };
        let sql = format!(
            "{ours}, tried AS (UPDATE walpost.undelivered AS u SET attempts = attempts + 1,
                next_attempt_at = now() + $5 * interval '1 second'
                WHERE u.id = (SELECT id FROM walpost.undelivered WHERE {of} {and} ORDER BY id {order} LIMIT 1)
                    AND u.state = '{state}' AND (SELECT held FROM ours) RETURNING u.*)
            SELECT held, {columns} FROM ours LEFT JOIN tried ON true",
            ours = ours(),
            of = of_destination(state),
            columns = columns("tried"),
        );
        let (held, wait, destination) = (Held::new(holder), seconds(wait), clean(destination));
        let mut params = held.params((&destination, Type::TEXT));
        params.push((&wait, Type::FLOAT8));
        let row = self.one(WHAT, &sql, &params).await?;
        if !row.get::<bool>(0)? {
            return Ok(Attempt::NotHeld);
        }
        Ok(kept_row(WHAT, &row, 1)?.map_or(Attempt::Nothing, Attempt::Row))
    }

    /// The rows of a destination that retry, behind the row `after`: so many at most, and so many bytes of
    /// bodies, but one in any case. `None`: the slot is not ours.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn load(
        &self,
        holder: Holder<'_>,
        destination: &str,
        after: i64,
        messages: usize,
        bytes: usize,
    ) -> Result<Option<Loaded>, StoreError> {
        const WHAT: &str = "reading refused messages from walpost.undelivered";
        // What is unread is counted in the index alone (hence the hash without the destination), and not for
        // ever: whether there are many is all that matters then.
        let sql = format!(
            "{ours}, ahead AS MATERIALIZED (SELECT id, coalesce(octet_length(body), 0) AS size
                FROM walpost.undelivered WHERE {of} AND id > $5 ORDER BY id LIMIT greatest($6, 1)),
            summed AS (SELECT id, row_number() OVER up_to AS nth, sum(size) OVER up_to AS bytes
                FROM ahead WINDOW up_to AS (ORDER BY id)),
            chosen AS MATERIALIZED (SELECT id FROM summed WHERE nth = 1 OR bytes <= $7)
            SELECT held, (SELECT count(*) FROM (SELECT FROM walpost.undelivered WHERE slot = $2 AND state = 'retrying'
                    AND destination_hash = hashtextextended($1, 0)
                    AND id > coalesce((SELECT max(id) FROM chosen), $5) LIMIT {MANY}) AS behind), {columns}
            FROM ours LEFT JOIN (chosen JOIN walpost.undelivered AS u USING (id)) ON held ORDER BY u.id",
            ours = ours(),
            of = of_destination("retrying"),
            columns = columns("u"),
        );
        let (held, destination) = (Held::new(holder), clean(destination));
        let messages = i64::try_from(messages).unwrap_or(i64::MAX);
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let mut params = held.params((&destination, Type::TEXT));
        params.extend([
            (&after as _, Type::INT8),
            (&messages as _, Type::INT8),
            (&bytes as _, Type::INT8),
        ]);
        let mut loaded = Loaded { rows: Vec::new(), unread: 0 };
        for row in self.rows(WHAT, &sql, &params).await? {
            if !row.get::<bool>(0)? {
                return Ok(None);
            }
            loaded.unread = row.count(1)?;
            loaded.rows.extend(kept_row(WHAT, &row, 2)?);
        }
        Ok(Some(loaded))
    }

    /// Deletes rows whose messages have their receipt; what an operator has discarded meanwhile stays.
    /// `false`: the slot is not ours, nothing was written.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delivered(&self, holder: Holder<'_>, ids: &[i64]) -> Result<bool, StoreError> {
        let sql = format!(
            "{}, gone AS (DELETE FROM walpost.undelivered WHERE id = ANY ($1) AND slot = $2
                AND state IN ('retrying', 'dead') AND (SELECT held FROM ours))
            SELECT held FROM ours",
            ours()
        );
        let held = Held::new(holder);
        let what = "deleting delivered messages from walpost.undelivered";
        self.one(what, &sql, &held.params((&ids, Type::INT8_ARRAY))).await?.get(0)
    }

    /// A row can't be sent as the settings are now: it is dead, and not tried by itself any more. `false`: the slot is not ours, nothing was
    /// written.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn bury(&self, holder: Holder<'_>, id: i64, why: &str) -> Result<bool, StoreError> {
        let sql = format!(
            "{}, buried AS (UPDATE walpost.undelivered SET state = 'dead', unfit = true, error = $5,
                    next_attempt_at = NULL
                WHERE id = $1 AND slot = $2 AND state IN ('retrying', 'dead') AND (SELECT held FROM ours))
            SELECT held FROM ours",
            ours()
        );
        let (held, why) = (Held::new(holder), ascii(&clean(why)));
        let mut params = held.params((&id, Type::INT8));
        params.push((&why as _, Type::TEXT));
        self.one("giving up a row of walpost.undelivered", &sql, &params).await?.get(0)
    }

    /// Keeps how an attempt has ended: how many there were, the broker's words, and when the next one is.
    /// `false`: the slot is not ours, nothing was written.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn note(
        &self,
        holder: Holder<'_>,
        id: i64,
        attempts: u32,
        error: &str,
        next_in: Duration,
    ) -> Result<bool, StoreError> {
        let sql = format!(
            "{}, noted AS (UPDATE walpost.undelivered SET attempts = $5, error = $6,
                    next_attempt_at = now() + $7 * interval '1 second'
                WHERE id = $1 AND slot = $2 AND state IN ('retrying', 'dead') AND (SELECT held FROM ours))
            SELECT held FROM ours",
            ours()
        );
        let held = Held::new(holder);
        let (attempts, next_in) = (int(attempts), seconds(next_in));
        let note = async |error: &str| {
            let mut params = held.params((&id, Type::INT8));
            params.extend([
                (&attempts as _, Type::INT4),
                (&error as _, Type::TEXT),
                (&next_in as _, Type::FLOAT8),
            ]);
            self.one("keeping a refusal in walpost.undelivered", &sql, &params).await?.get(0)
        };
        match note(&clean(error)).await {
            Err(refused) if is_untranslatable(&refused) => note(&ascii(&clean(error))).await,
            noted => noted,
        }
    }
}
