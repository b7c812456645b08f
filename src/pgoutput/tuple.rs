//! TupleData: the values of one row.

use super::{Tuple, Value};

/// The walk over a [`Tuple`]'s values, in the order of the relation's columns.
#[derive(Clone, Debug)]
pub struct Values<'a> {
    left: u16,
    bytes: &'a [u8],
}

impl<'a> Tuple<'a> {
    /// A tuple of `count` values out of `bytes`: what follows the number of columns in TupleData.
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

    /// The values, in the order of the relation's columns.
    #[must_use]
    pub fn values(&self) -> Values<'a> {
        Values { left: self.count, bytes: self.bytes }
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.left = self.left.checked_sub(1)?;
        let (&kind, rest) = self.bytes.split_first()?;
        let (value, rest) = match kind {
            b'n' => (Value::Null, rest),
            b'u' => (Value::Unchanged, rest),
            b't' | b'b' => {
                let (len, rest) = rest.split_first_chunk::<4>()?;
                let (content, rest) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
                let value =
                    if kind == b't' { Value::Text(content) } else { Value::Binary(content) };
                (value, rest)
            }
            _ => return None,
        };
        self.bytes = rest;
        Some(value)
    }
}
