//! Templates of destinations, ordering keys and headers: text with placeholders for what a row
//! holds.
//!
//! | written | becomes |
//! |---|---|
//! | `{id}` `{destination}` `{version}` `{key}` | that column of the row |
//! | `{lsn}` `{xid}` `{commit_time}` | of the transaction that inserted the row |
//! | `{now}` | the time at which the row was read |
//! | `{column:NAME}` | any column of the row |
//! | `[…]` | the part, unless a value in it is null or empty |
//! | `{{` `}}` `[[` `]]` | one such bracket |
//!
//! A null outside of brackets becomes nothing. Parts do not nest, and a column whose name has a
//! brace in it cannot be named.

mod parse;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

pub use parse::TemplateError;

/// A parsed template. It prints as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    source: String,
    pieces: Vec<Piece>,
}

/// What a placeholder asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field<'a> {
    /// `{id}`: the message id.
    Id,
    /// `{destination}`: the row's destination.
    Destination,
    /// `{version}`: the row's version.
    Version,
    /// `{key}`: the row's ordering key.
    Key,
    /// `{lsn}`: the commit LSN of the transaction.
    Lsn,
    /// `{xid}`: the id of the transaction.
    Xid,
    /// `{commit_time}`: when the transaction was committed.
    CommitTime,
    /// `{now}`: when the row was read.
    Now,
    /// `{column:NAME}`: a column by its name.
    Column(&'a str),
}

/// Where the values of the placeholders come from.
pub trait Values {
    /// The value of `field`; `None` where it is null.
    fn value(&self, field: Field<'_>) -> Option<Cow<'_, str>>;
}

/// One step of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Value(OwnedField),
    /// A part in brackets: texts and values only.
    Optional(Vec<Piece>),
}

/// [`Field`] with a name of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
enum OwnedField {
    Plain(Field<'static>),
    Column(String),
}

impl Template {
    /// Parses `text`.
    ///
    /// # Errors
    /// [`TemplateError`] says what is wrong and at which character.
    pub fn parse(text: &str) -> Result<Template, TemplateError> {
        Ok(Template { source: text.to_owned(), pieces: parse::pieces(text)? })
    }

    /// Appends the text that the template gives with `values` to `out`.
    pub fn render(&self, values: &impl Values, out: &mut String) {
        for piece in &self.pieces {
            match piece {
                Piece::Optional(part) => {
                    let before = out.len();
                    if !part.iter().all(|piece| push(piece, values, out)) {
                        out.truncate(before);
                    }
                }
                piece => {
                    push(piece, values, out);
                }
            }
        }
    }

    /// The names in `{column:NAME}`, in the order of the text, as often as they stand there.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.fields().filter_map(|field| match field {
            Field::Column(name) => Some(name),
            _ => None,
        })
    }

    /// What the placeholders ask for, in the order of the text.
    pub fn fields(&self) -> impl Iterator<Item = Field<'_>> {
        let flat = self.pieces.iter().flat_map(|piece| match piece {
            Piece::Optional(part) => part.as_slice(),
            piece => std::slice::from_ref(piece),
        });
        flat.filter_map(|piece| match piece {
            Piece::Value(field) => Some(field.as_field()),
            Piece::Text(_) | Piece::Optional(_) => None,
        })
    }

    /// The placeholder that is all there is, in brackets or not.
    #[must_use]
    pub fn only_field(&self) -> Option<Field<'_>> {
        match self.pieces.as_slice() {
            [Piece::Value(field)] => Some(field.as_field()),
            [Piece::Optional(part)] => match part.as_slice() {
                [Piece::Value(field)] => Some(field.as_field()),
                _ => None,
            },
            _ => None,
        }
    }

    /// The text where there is no placeholder in it: what every row gets.
    #[must_use]
    pub fn literal(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [] => Some(""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }
}

/// Appends a text or a value; false where the value is null or empty.
fn push(piece: &Piece, values: &impl Values, out: &mut String) -> bool {
    match piece {
        Piece::Text(text) => {
            out.push_str(text);
            true
        }
        Piece::Value(field) => {
            let before = out.len();
            if let Some(value) = values.value(field.as_field()) {
                out.push_str(&value);
            }
            out.len() > before
        }
        // The parser makes no part inside a part.
        Piece::Optional(_) => false,
    }
}

impl OwnedField {
    fn as_field(&self) -> Field<'_> {
        match self {
            OwnedField::Plain(field) => *field,
            OwnedField::Column(name) => Field::Column(name),
        }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Template::parse(text)
    }
}
