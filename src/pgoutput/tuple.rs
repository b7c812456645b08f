//! TupleData: the values of one row.

/// The values of one row, already checked to be well-formed and complete.
///
/// It borrows the bytes; [`Tuple::values`] walks them without allocating.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple<'a> {
    count: u16,
    bytes: &'a [u8],
}

/// One column's value in a [`Tuple`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// SQL NULL.
    Null,
    /// A TOASTed value that an update left as it was: not sent.
    Unchanged,
    /// The value in its type's text format (client_encoding UTF8, but not checked to be UTF-8).
    Text(&'a [u8]),
    /// The value in its type's binary format (never asked for by walpost).
    Binary(&'a [u8]),
}

/// The walk over a [`Tuple`]'s values, in the order of the relation's columns.
#[derive(Clone, Debug)]
pub struct Values<'a> {
    left: u16,
    bytes: &'a [u8],
}

/// Why no value stands at the front of some bytes.
pub(super) enum BadValue {
    EndsEarly,
    Kind(u8),
}

impl<'a> Tuple<'a> {
    /// A tuple of `count` values out of `bytes`: what follows the number of columns in TupleData.
    ///
    /// The caller has checked them. Bytes that are no such values do no harm, but the walk over
    /// them ends early.
    #[must_use]
    pub fn from_checked(count: u16, bytes: &'a [u8]) -> Self {
        Tuple { count, bytes }
    }

    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether there is no value at all (a table without columns).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The values, in the order of the relation's columns: exactly [`Tuple::len`] of them.
    #[must_use]
    pub fn values(&self) -> Values<'a> {
        Values { left: self.count, bytes: self.bytes }
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    #[inline]
    fn next(&mut self) -> Option<Value<'a>> {
        self.left = self.left.checked_sub(1)?;
        let (value, len) = split_value(self.bytes).ok()?;
        self.bytes = &self.bytes[len..];
        Some(value)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(usize::from(self.left)))
    }
}

/// The value at the front of `bytes`, and how many bytes it takes.
#[inline]
pub(super) fn split_value(bytes: &[u8]) -> Result<(Value<'_>, usize), BadValue> {
    let (&kind, rest) = bytes.split_first().ok_or(BadValue::EndsEarly)?;
    match kind {
        b'n' => Ok((Value::Null, 1)),
        b'u' => Ok((Value::Unchanged, 1)),
        b't' | b'b' => {
            let (len, rest) = rest.split_first_chunk::<4>().ok_or(BadValue::EndsEarly)?;
            let len = u32::from_be_bytes(*len) as usize;
            let content = rest.get(..len).ok_or(BadValue::EndsEarly)?;
            let value = if kind == b't' { Value::Text(content) } else { Value::Binary(content) };
            Ok((value, 5 + len))
        }
        other => Err(BadValue::Kind(other)),
    }
}
