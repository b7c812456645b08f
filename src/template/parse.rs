//! From the text of a template to its pieces.

use std::iter::{Enumerate, Peekable};
use std::str::Chars;

use super::{Field, OwnedField, Piece};

/// Why a text is no template. Positions count characters from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A placeholder without an end.
    #[error("the '{{' at character {at} is never closed (write '{{{{' for a brace)")]
    OpenBrace {
        /// Where it begins.
        at: usize,
    },
    /// A closing brace without a placeholder.
    #[error("the '}}' at character {at} closes nothing (write '}}}}' for a brace)")]
    StrayBrace {
        /// Where it stands.
        at: usize,
    },
    /// A part without an end.
    #[error("the '[' at character {at} is never closed (write '[[' for a bracket)")]
    OpenBracket {
        /// Where it begins.
        at: usize,
    },
    /// A closing bracket without a part.
    #[error("the ']' at character {at} closes nothing (write ']]' for a bracket)")]
    StrayBracket {
        /// Where it stands.
        at: usize,
    },
    /// A part inside a part.
    #[error("the '[' at character {at} stands inside another part; parts do not nest")]
    Nested {
        /// Where the inner one begins.
        at: usize,
    },
    /// A part that nothing could leave out.
    #[error(
        "the part in [] at character {at} has no placeholder, so nothing could leave it out \
         (write '[[' and ']]' for brackets)"
    )]
    Constant {
        /// Where it begins.
        at: usize,
    },
    /// A placeholder that is not known.
    #[error(
        "'{{{name}}}' at character {at} is no placeholder; there are {{id}} {{destination}} \
         {{version}} {{key}} {{lsn}} {{xid}} {{commit_time}} {{now}} {{column:NAME}}"
    )]
    Unknown {
        /// Where it begins.
        at: usize,
        /// What stands in the braces, cut to 40 characters.
        name: String,
    },
    /// `{column:}`.
    #[error("the placeholder at character {at} names no column")]
    NoColumn {
        /// Where it begins.
        at: usize,
    },
    /// A NUL character, which no STOMP header can carry.
    #[error("there is a NUL at character {at}")]
    Nul {
        /// Where it stands.
        at: usize,
    },
}

/// Reads the whole text.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut reader = Reader { rest: text.chars().enumerate().peekable() };
    let mut done = Pieces::default();
    // Where the present part began, and what stood before it.
    let mut part: Option<(usize, Pieces)> = None;
    while let Some((index, symbol)) = reader.rest.next() {
        let at = index + 1;
        match symbol {
            '\0' => return Err(TemplateError::Nul { at }),
            '{' | '}' | '[' | ']' if reader.doubled(symbol) => done.text(symbol),
            '{' => done.value(reader.placeholder(at)?),
            '}' => return Err(TemplateError::StrayBrace { at }),
            '[' if part.is_some() => return Err(TemplateError::Nested { at }),
            '[' => part = Some((at, std::mem::take(&mut done))),
            ']' => {
                let Some((from, before)) = part.take() else {
                    return Err(TemplateError::StrayBracket { at });
                };
                let inner = std::mem::replace(&mut done, before);
                done.optional(inner, from)?;
            }
            other => done.text(other),
        }
    }
    match part {
        Some((at, _)) => Err(TemplateError::OpenBracket { at }),
        None => Ok(done.0),
    }
}

struct Reader<'a> {
    rest: Peekable<Enumerate<Chars<'a>>>,
}

impl Reader<'_> {
    /// Takes a second `symbol` if it follows.
    fn doubled(&mut self, symbol: char) -> bool {
        self.rest.next_if(|&(_, next)| next == symbol).is_some()
    }

    /// The placeholder whose brace was just read at `at`.
    fn placeholder(&mut self, at: usize) -> Result<OwnedField, TemplateError> {
        let mut name = String::new();
        loop {
            match self.rest.next() {
                None | Some((_, '{')) => return Err(TemplateError::OpenBrace { at }),
                Some((_, '}')) => return field(&name, at),
                Some((index, '\0')) => return Err(TemplateError::Nul { at: index + 1 }),
                Some((_, symbol)) => name.push(symbol),
            }
        }
    }
}

fn field(name: &str, at: usize) -> Result<OwnedField, TemplateError> {
    let plain = match name {
        "id" => Field::Id,
        "destination" => Field::Destination,
        "version" => Field::Version,
        "key" => Field::Key,
        "lsn" => Field::Lsn,
        "xid" => Field::Xid,
        "commit_time" => Field::CommitTime,
        "now" => Field::Now,
        "column:" => return Err(TemplateError::NoColumn { at }),
        name => match name.strip_prefix("column:") {
            Some(column) => return Ok(OwnedField::Column(column.to_owned())),
            None => {
                return Err(TemplateError::Unknown { at, name: name.chars().take(40).collect() });
            }
        },
    };
    Ok(OwnedField::Plain(plain))
}

#[derive(Default)]
struct Pieces(Vec<Piece>);

impl Pieces {
    fn text(&mut self, symbol: char) {
        if let Some(Piece::Text(text)) = self.0.last_mut() {
            text.push(symbol);
        } else {
            self.0.push(Piece::Text(symbol.to_string()));
        }
    }

    fn value(&mut self, field: OwnedField) {
        self.0.push(Piece::Value(field));
    }

    fn optional(&mut self, inner: Pieces, at: usize) -> Result<(), TemplateError> {
        if !inner.0.iter().any(|piece| matches!(piece, Piece::Value(_))) {
            return Err(TemplateError::Constant { at });
        }
        self.0.push(Piece::Optional(inner.0));
        Ok(())
    }
}
