//! Walks the fields of one message and knows where it is, so that an error can say so.

use super::error::DecodeError;
use super::tuple::{BadValue, Tuple, Value, split_value};
use crate::lsn::Lsn;
use crate::pgtime::PgTime;

/// The bytes of one message and how far they have been read.
pub(super) struct Reader<'a> {
    message: &'static str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// A reader behind the tag of a message called `message`.
    pub(super) fn after_tag(message: &'static str, bytes: &'a [u8]) -> Self {
        Reader { message, bytes, at: 1 }
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    pub(super) fn remaining(&self) -> usize {
        self.rest().len()
    }

    fn ends_early(&self, field: &'static str) -> DecodeError {
        DecodeError::EndsEarly { message: self.message, field, at: self.at }
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let array = self.rest().first_chunk::<N>().ok_or_else(|| self.ends_early(field))?;
        self.at += N;
        Ok(*array)
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_be_bytes)
    }

    pub(super) fn i32(&mut self, field: &'static str) -> Result<i32, DecodeError> {
        self.array(field).map(i32::from_be_bytes)
    }

    pub(super) fn time(&mut self, field: &'static str) -> Result<PgTime, DecodeError> {
        self.array(field).map(|bytes| PgTime(i64::from_be_bytes(bytes)))
    }

    /// A position that may be `0/0`.
    pub(super) fn lsn(&mut self, field: &'static str) -> Result<Lsn, DecodeError> {
        self.array(field).map(|bytes| Lsn(u64::from_be_bytes(bytes)))
    }

    /// A position that must be one.
    pub(super) fn position(&mut self, field: &'static str) -> Result<Lsn, DecodeError> {
        let lsn = self.lsn(field)?;
        if lsn.is_valid() {
            Ok(lsn)
        } else {
            Err(DecodeError::NoPosition { message: self.message, field })
        }
    }

    /// A byte out of `known`.
    pub(super) fn one_of(&mut self, field: &'static str, known: &[u8]) -> Result<u8, DecodeError> {
        let at = self.at;
        let value = self.u8(field)?;
        if known.contains(&value) {
            Ok(value)
        } else {
            Err(DecodeError::BadValue { message: self.message, field, at, value })
        }
    }

    pub(super) fn bytes(
        &mut self,
        field: &'static str,
        len: usize,
    ) -> Result<&'a [u8], DecodeError> {
        let bytes = self.rest().get(..len).ok_or_else(|| self.ends_early(field))?;
        self.at += len;
        Ok(bytes)
    }

    /// A text that ends with a NUL.
    pub(super) fn text(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        let rest = self.rest();
        let len = memchr::memchr(0, rest).ok_or_else(|| self.ends_early(field))?;
        let at = self.at;
        self.at += len + 1;
        std::str::from_utf8(&rest[..len]).map_err(|_| DecodeError::NotUtf8 {
            message: self.message,
            field,
            at,
        })
    }

    /// A schema: pgoutput sends nothing where it is `pg_catalog`.
    pub(super) fn namespace(&mut self) -> Result<&'a str, DecodeError> {
        self.text("namespace").map(|name| if name.is_empty() { "pg_catalog" } else { name })
    }

    /// TupleData, checked through to its last value.
    pub(super) fn tuple(&mut self) -> Result<Tuple<'a>, DecodeError> {
        let count = self.u16("number of columns")?;
        let values = self.rest();
        let start = self.at;
        for _ in 0..count {
            let (_, len) = split_value(self.rest()).map_err(|bad| match bad {
                BadValue::EndsEarly => self.ends_early("column value"),
                BadValue::Kind(value) => DecodeError::BadValue {
                    message: self.message,
                    field: "kind of column value",
                    at: self.at,
                    value,
                },
            })?;
            self.at += len;
        }
        Ok(Tuple::from_checked(count, &values[..self.at - start]))
    }

    /// The values of a tuple of which only the beginning is there, up to the first incomplete one.
    pub(super) fn leading_values(&mut self) -> Option<Vec<Value<'a>>> {
        let count = self.u16("number of columns").ok()?;
        let mut values = Vec::new();
        while values.len() < usize::from(count) {
            let Ok((value, len)) = split_value(self.rest()) else {
                break;
            };
            self.at += len;
            values.push(value);
        }
        Some(values)
    }

    /// Nothing may follow.
    pub(super) fn end(&self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            count => Err(DecodeError::TrailingBytes { message: self.message, at: self.at, count }),
        }
    }
}
