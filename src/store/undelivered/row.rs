//! A row, as it goes in and comes out.

use std::borrow::Cow;
use std::error::Error;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde_json::{Map, Value};
use tokio_postgres::types::{FromSql, IsNull, PgLsn, ToSql, Type, accepts, to_sql_checked};

use super::{Identity, KeptRow};
use crate::engine::ChangeId;
use crate::lsn::Lsn;
use crate::pgtime::PgTime;
use crate::store::error::StoreError;
use crate::store::query::Fields;

/// The columns of a [`KeptRow`].
pub(super) const COLUMNS: [&str; 14] = [
    "id",
    "attempts",
    "message_id",
    "destination",
    "key",
    "headers::text",
    "body",
    "lsn",
    "xid",
    "commit_time",
    "change_lsn",
    "place",
    "table_oid",
    "table_name",
];

/// The columns, of this table or alias.
pub(super) fn columns(of: &str) -> String {
    COLUMNS.map(|column| format!("{of}.{column}")).join(", ")
}

/// The longest wait that is kept.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A wait in seconds.
pub(super) fn seconds(wait: Duration) -> f64 {
    wait.min(LONGEST).as_secs_f64()
}

/// A count as PostgreSQL keeps it.
pub(super) fn int(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// A text as PostgreSQL takes it: without NUL.
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    if text.contains('\0') {
        Cow::Owned(text.replace('\0', "\u{FFFD}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// The text with a sign in place of whatever is not ASCII.
pub(super) fn ascii(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii() && c != '\0';
    text.chars().map(|c| if is_plain(c) { c } else { '?' }).collect()
}

/// Whether the database's encoding lacks a letter.
pub(super) fn is_untranslatable(error: &StoreError) -> bool {
    error.code() == Some("22P05")
}

/// Headers as a JSON object.
pub(super) fn headers_json(headers: &[(String, String)]) -> String {
    let pair = |(name, value): &(String, String)| {
        (clean(name).into_owned(), Value::String(clean(value).into_owned()))
    };
    Value::Object(headers.iter().map(pair).collect::<Map<_, _>>()).to_string()
}

/// Headers of a JSON object; what an operator has made of a value that is no text is taken as it prints.
pub(super) fn headers_of(
    what: &'static str,
    json: Option<&str>,
) -> Result<Vec<(String, String)>, StoreError> {
    let Some(json) = json else { return Ok(Vec::new()) };
    let map: Map<String, Value> = serde_json::from_str(json)
        .map_err(|error| StoreError::Answer { what, cause: error.to_string() })?;
    let pair = |(name, value)| match value {
        Value::String(text) => (name, text),
        other => (name, other.to_string()),
    };
    Ok(map.into_iter().map(pair).collect())
}

/// A time, exact to the microsecond.
#[derive(Clone, Copy, Debug)]
pub(super) struct Micros(pub(super) PgTime);

impl ToSql for Micros {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        self.0.0.to_sql(ty, out)
    }

    accepts!(TIMESTAMPTZ);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for Micros {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        i64::from_sql(ty, raw).map(|micros| Micros(PgTime(micros)))
    }

    accepts!(TIMESTAMPTZ);
}

/// The row whose [`COLUMNS`] begin at `from`; none where the first is null.
pub(super) fn kept_row(
    what: &'static str,
    row: &Fields,
    from: usize,
) -> Result<Option<KeptRow>, StoreError> {
    let Some(id) = row.get(from)? else { return Ok(None) };
    let identity = match row.get::<Option<PgLsn>>(from + 7)? {
        None => None,
        Some(lsn) => Some(Identity {
            commit_lsn: Lsn(lsn.into()),
            xid: narrow(row.get(from + 8)?),
            commit_time: row.get::<Micros>(from + 9)?.0,
            change: ChangeId { lsn: row.lsn(from + 10)?, place: narrow(row.get(from + 11)?) },
        }),
    };
    let oid: Option<u32> = row.get(from + 12)?;
    let table = match oid {
        Some(oid) => Some((oid, row.get::<Option<String>>(from + 13)?.unwrap_or_default())),
        None => None,
    };
    Ok(Some(KeptRow {
        id,
        attempts: narrow(row.get::<i32>(from + 1)?.into()),
        identity,
        message_id: row.get(from + 2)?,
        destination: row.get(from + 3)?,
        key: row.get(from + 4)?,
        headers: headers_of(what, row.get(from + 5)?)?,
        body: row.get::<Option<&[u8]>>(from + 6)?.map(Bytes::copy_from_slice),
        table,
    }))
}

/// A number that PostgreSQL keeps signed and wider.
fn narrow(number: i64) -> u32 {
    u32::try_from(number.max(0)).unwrap_or(u32::MAX)
}
