//! The row filter of a shard's publication: how it is written, and how the one that is there is told
//! from another.

use std::iter::Peekable;
use std::str::Chars;

use tokio_postgres::types::Type;

use super::connect::Store;
use super::error::StoreError;
use super::name::{TableName, ident};
use super::query::Param;
use crate::outbox::{Shard, ShardColumns};

/// A relay's share of the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sharding {
    /// Which, of how many.
    pub shard: Shard,
    /// What the rows are divided by.
    pub columns: ShardColumns,
}

/// A column that rows are divided by, as the catalogs show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyColumn {
    /// Its name.
    pub name: String,
    /// Its type, for people.
    pub type_name: String,
    /// How a row filter makes a text of it.
    pub text: AsText,
}

/// How a row filter makes a text of a column. It may use immutable functions only, and no cast that
/// goes by way of a type's input and output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AsText {
    /// It is one.
    Is,
    /// By this output function of its type.
    Output(String),
    /// It cannot.
    Cannot,
}

/// Why a table has no filter for a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoFilter {
    /// It lacks the column.
    Missing(String),
    /// Rows cannot be divided by a column of that type: column and type.
    Type(String, String),
}

/// What a filter is, held against the shard's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Likeness {
    /// It is the same.
    Same,
    /// It is that of another shard.
    Shard(Shard),
    /// It is none of walpost's.
    Other,
}

impl Sharding {
    /// The names of the columns.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.columns.key.iter().chain(&self.columns.destination)
    }

    /// The filter, without parentheses around it. `columns` are those of the table that there are of
    /// [`Sharding::names`]; `None`: nothing is known of the table, they are taken for texts.
    ///
    /// An empty key is none, as in a message; a row without anything is one shard's all the same. With
    /// the collation given, columns of different ones do not make the filter fail.
    ///
    /// # Errors
    /// [`NoFilter`].
    pub fn filter(&self, columns: Option<&[KeyColumn]>) -> Result<String, NoFilter> {
        let text = |name: &String| {
            let quoted = ident(name);
            let Some(columns) = columns else { return Ok(format!("{quoted}::text")) };
            let column = columns.iter().find(|column| column.name == *name);
            let column = column.ok_or_else(|| NoFilter::Missing(name.clone()))?;
            match &column.text {
                AsText::Is => Ok(format!("{quoted}::text")),
                AsText::Output(function) => Ok(format!("textin({}({quoted}))", ident(function))),
                AsText::Cannot => Err(NoFilter::Type(name.clone(), column.type_name.clone())),
            }
        };
        let ShardColumns { key, destination } = &self.columns;
        let mut of = String::new();
        if let Some(key) = key {
            of += &format!("NULLIF({}, ''), ", text(key)?);
        }
        if let Some(destination) = destination {
            of += &format!("{}, ", text(destination)?);
        }
        Ok(self.is_ours(&of))
    }

    /// The same for a query, in which the row is `w`. It may use any function: it needs to know nothing of
    /// the columns.
    #[must_use]
    pub fn condition(&self) -> String {
        let ShardColumns { key, destination } = &self.columns;
        // It prints a value as it is sent, and a null as an empty text.
        let text = |name: &String| format!("NULLIF(concat(w.{}), ''), ", ident(name));
        let of: String = key.iter().chain(destination).map(text).collect();
        self.is_ours(&of)
    }

    /// `of`: texts, the first of them that is not null counts; each with a comma behind it.
    fn is_ours(&self, of: &str) -> String {
        let Shard { index, count } = self.shard;
        // Not abs(): the smallest number has no absolute value.
        format!("((hashtext((COALESCE({of}'') COLLATE \"C\")) & 2147483647) % {count}) = {index}")
    }
}

/// What the filter that PostgreSQL prints is, held against the one that we would write.
#[must_use]
pub fn compare(wanted: &str, printed: &str) -> Likeness {
    let (wanted, printed) = (normal(wanted), normal(printed));
    if wanted == printed {
        return Likeness::Same;
    }
    // … % count ) = index
    let split = |tokens: &[Token]| {
        let (rest, end) = tokens.split_last_chunk::<4>()?;
        let [count, close, equals, index] = end;
        let ends = [close, equals].map(Clone::clone);
        Some((rest.to_vec(), ends, Shard { index: index.number()?, count: count.number()? }))
    };
    match (split(&wanted), split(&printed)) {
        (Some((ours, our_ends, _)), Some((theirs, their_ends, shard)))
            if ours == theirs && our_ends == their_ends =>
        {
            Likeness::Shard(shard)
        }
        _ => Likeness::Other,
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// A name without its quotes, a keyword or a number.
    Word(String),
    /// A literal.
    Text(String),
    /// Anything else.
    Sign(char),
}

impl Token {
    fn number(&self) -> Option<u32> {
        match self {
            Token::Word(word) => word.parse().ok(),
            _ => None,
        }
    }
}

/// The expression without what PostgreSQL prints as it likes: spaces, quotes and the case of words,
/// casts to text, parentheses around a single word and around the whole. The other parentheses say what
/// belongs together, and stay.
fn normal(sql: &str) -> Vec<Token> {
    let mut tokens: Vec<Token> = Vec::new();
    let mut rest = sql.chars().peekable();
    while let Some(token) = next_token(&mut rest) {
        tokens.push(token);
        if let [.., Token::Sign(':'), Token::Sign(':'), Token::Word(name)] = tokens.as_slice()
            && name == "text"
        {
            tokens.truncate(tokens.len() - 3);
        }
        if let [before @ .., Token::Sign('('), inner, Token::Sign(')')] = tokens.as_slice()
            && !matches!(inner, Token::Sign(_))
            && !matches!(before.last(), Some(Token::Word(_)))
        {
            let inner = inner.clone();
            tokens.truncate(tokens.len() - 3);
            tokens.push(inner);
        }
    }
    while encloses_all(&tokens) {
        tokens.remove(0);
        tokens.pop();
    }
    tokens
}

/// Whether the first token is a parenthesis that the last one closes.
fn encloses_all(tokens: &[Token]) -> bool {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Sign('(') => depth += 1,
            Token::Sign(')') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at > 0 && at + 1 == tokens.len();
        }
    }
    false
}

fn next_token(rest: &mut Peekable<Chars<'_>>) -> Option<Token> {
    let is_word = |symbol: &char| symbol.is_alphanumeric() || matches!(symbol, '_' | '$');
    while rest.next_if(|symbol| symbol.is_whitespace()).is_some() {}
    Some(match rest.next()? {
        '\'' => Token::Text(quoted(rest, '\'')),
        '"' => Token::Word(quoted(rest, '"')),
        first if is_word(&first) => {
            let mut word = first.to_lowercase().to_string();
            while let Some(symbol) = rest.next_if(is_word) {
                word.extend(symbol.to_lowercase());
            }
            Token::Word(word)
        }
        sign => Token::Sign(sign),
    })
}

/// What stands up to the closing quote; a doubled one is one.
fn quoted(rest: &mut Peekable<Chars<'_>>, quote: char) -> String {
    let mut text = String::new();
    while let Some(symbol) = rest.next() {
        if symbol == quote && rest.next_if_eq(&quote).is_none() {
            break;
        }
        text.push(symbol);
    }
    text
}

impl Store {
    /// Those of the named columns that the table has.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn key_columns(
        &self,
        table: &TableName,
        names: &[String],
    ) -> Result<Vec<KeyColumn>, StoreError> {
        // Below 16384 are the oids of what PostgreSQL brings itself: row filters take nothing else.
        let sql = "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod),
                a.atttypid IN ('text'::regtype, 'varchar'::regtype),
                CASE WHEN t.oid < 16384 AND p.oid < 16384 AND p.provolatile = 'i'
                    THEN p.proname::text END
            FROM pg_attribute a
                JOIN pg_class c ON c.oid = a.attrelid
                JOIN pg_namespace n ON n.oid = c.relnamespace
                JOIN pg_type t ON t.oid = a.atttypid
                JOIN pg_proc p ON p.oid = t.typoutput
            WHERE n.nspname = $1::text::name AND c.relname = $2::text::name
                AND a.attnum > 0 AND NOT a.attisdropped AND a.attname::text = ANY ($3)";
        let params: [Param<'_>; 3] =
            [(&table.schema, Type::TEXT), (&table.name, Type::TEXT), (&names, Type::TEXT_ARRAY)];
        let rows =
            self.rows("looking at the columns that rows are divided by", sql, &params).await?;
        rows.iter()
            .map(|row| {
                let text = match row.get::<Option<String>>(3)? {
                    _ if row.get::<bool>(2)? => AsText::Is,
                    Some(function) => AsText::Output(function),
                    None => AsText::Cannot,
                };
                Ok(KeyColumn { name: row.get(0)?, type_name: row.get(1)?, text })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sharding(key: Option<&str>, destination: Option<&str>) -> Sharding {
        let own = |name: Option<&str>| name.map(str::to_owned);
        Sharding {
            shard: Shard { index: 1, count: 3 },
            columns: ShardColumns { key: own(key), destination: own(destination) },
        }
    }

    fn column(name: &str, text: AsText) -> KeyColumn {
        KeyColumn { name: name.to_owned(), type_name: "a type".to_owned(), text }
    }

    #[test]
    fn the_filter_is_over_what_there_is() {
        let columns = [
            column("key", AsText::Is),
            column("Dest", AsText::Output("uuid_out".to_owned())),
            column("at", AsText::Cannot),
        ];
        let filter = |key, destination| sharding(key, destination).filter(Some(&columns));
        assert_eq!(
            filter(Some("key"), Some("Dest")).unwrap(),
            "((hashtext((COALESCE(NULLIF(\"key\"::text, ''), textin(\"uuid_out\"(\"Dest\")), '') \
             COLLATE \"C\")) & 2147483647) % 3) = 1"
        );
        assert_eq!(
            filter(None, Some("key")).unwrap(),
            "((hashtext((COALESCE(\"key\"::text, '') COLLATE \"C\")) & 2147483647) % 3) = 1"
        );
        assert_eq!(filter(Some("x"), None), Err(NoFilter::Missing("x".to_owned())));
        assert_eq!(
            filter(Some("at"), None),
            Err(NoFilter::Type("at".to_owned(), "a type".to_owned()))
        );
    }

    /// As PostgreSQL 15 printed them.
    const PRINTED: [(&str, &str, &str); 3] = [
        (
            "key",
            "destination",
            "(((hashtext((COALESCE(NULLIF(key, ''::text), destination, ''::text) COLLATE \"C\")) & 2147483647) % 3) = 1)",
        ),
        (
            "order",
            "Kv",
            "(((hashtext((COALESCE(NULLIF((\"order\")::text, ''::text), (\"Kv\")::text, ''::text) COLLATE \"C\")) & 2147483647) % 3) = 1)",
        ),
        (
            "",
            "dv",
            "(((hashtext((COALESCE((dv)::text, ''::text) COLLATE \"C\")) & 2147483647) % 3) = 1)",
        ),
    ];

    #[test]
    fn what_postgresql_prints_is_recognised() {
        for (key, destination, printed) in PRINTED {
            let key = Some(key).filter(|key| !key.is_empty());
            let wanted = sharding(key, Some(destination)).filter(None).unwrap();
            assert_eq!(compare(&wanted, printed), Likeness::Same, "{printed}");
            let other = printed.replace("% 3) = 1", "% 12) = 7");
            let shard = Shard { index: 7, count: 12 };
            assert_eq!(compare(&wanted, &other), Likeness::Shard(shard), "{printed}");
        }
    }

    #[test]
    fn what_only_looks_like_it_is_another() {
        let wanted = sharding(Some("key"), Some("destination")).filter(None).unwrap();
        let printed = PRINTED[0].2;
        for (from, to) in [
            // Another precedence, column, number, order, collation, literal; more or less than it.
            (") & 2147483647) % 3) = 1)", ") & (2147483647 % 3)) = 1)"),
            ("NULLIF(key", "NULLIF(\"KEY\""),
            ("2147483647", "2147483646"),
            ("destination, ''", "'', destination"),
            ("\"C\"", "\"POSIX\""),
            ("''::text)", "' '::text)"),
            ("= 1)", "<> 1)"),
            ("= 1)", "= (1)) OR true"),
            ("(((hashtext", "(NOT ((hashtext"),
            ("hashtext", "hashbpchar"),
            ("% 3", "/ 3"),
            ("% 3) = 1)", "% 3) = 1) AND (id = 3)"),
        ] {
            let other = printed.replacen(from, to, 1);
            assert_ne!(other, printed);
            assert_eq!(compare(&wanted, &other), Likeness::Other, "{other}");
        }
        for other in ["", "true", "(", "((", "'", "(id > 0)"] {
            assert_eq!(compare(&wanted, other), Likeness::Other, "{other}");
        }
    }
}
