//! A row's own headers, out of a JSON object.

use std::fmt;
use std::ops::Range;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::headers::is_forbidden;
use super::unfit::UnfitReason;

/// More headers than this are a mistake; brokers allow far fewer.
pub(super) const MAX: usize = 1_024;

/// The headers of one row. One is used for every row, so that texts are kept in one place.
#[derive(Debug, Default)]
pub(super) struct RowHeaders {
    text: String,
    entries: Vec<Entry>,
    /// Members of the object, whatever became of them.
    members: usize,
    dropped: usize,
}

#[derive(Debug)]
struct Entry {
    name: Range<usize>,
    value: Range<usize>,
}

impl RowHeaders {
    /// Forgets the last row.
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.entries.clear();
        self.members = 0;
        self.dropped = 0;
    }

    /// Reads the headers of a row from JSON text.
    ///
    /// Strings are taken as they are, numbers and booleans as they are written, arrays and
    /// objects as JSON without spaces; a null is no header, and neither is a name that only
    /// walpost may set. Of a repeated name (in `json`, not in `jsonb`) the last one holds.
    pub(super) fn read(&mut self, json: &str) -> Result<(), UnfitReason> {
        self.clear();
        let mut problem = None;
        let mut reader = serde_json::Deserializer::from_str(json);
        let object = Object { headers: self, problem: &mut problem };
        match reader.deserialize_any(object).and_then(|()| reader.end()) {
            Ok(()) => Ok(()),
            // serde_json's own words may quote the value.
            Err(error) => Err(problem.unwrap_or(UnfitReason::HeadersNotAnObject {
                line: error.line(),
                column: error.column(),
            })),
        }
    }

    /// The headers, in the order in which they were first named.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let text = |range: &Range<usize>| &self.text[range.clone()];
        self.entries.iter().map(move |entry| (text(&entry.name), text(&entry.value)))
    }

    /// The value of the header `name`.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|&(known, _)| known == name).map(|(_, value)| value)
    }

    /// How many were dropped because only walpost may set them.
    pub(super) fn dropped(&self) -> usize {
        self.dropped
    }

    /// Frees what a row with huge headers has left behind.
    pub(super) fn shrink(&mut self, kept: usize) {
        if self.text.capacity() > kept {
            self.clear();
            self.text.shrink_to(kept);
        }
    }

    /// Bytes of text that are kept from row to row.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.text.capacity()
    }

    /// Takes in one member of the object, whose name begins at `start` of the text and was not
    /// yet looked at.
    fn member(&mut self, start: usize, raw: &str) -> Result<(), Problem> {
        self.members += 1;
        if self.members > MAX {
            return Err(Problem::Unfit(UnfitReason::TooManyHeaders { max: MAX }));
        }
        let name = start..self.text.len();
        let known = &self.text[name.clone()];
        if is_forbidden(known) {
            self.dropped += 1;
            self.text.truncate(start);
            return Ok(());
        }
        let repeated =
            self.entries.iter().position(|entry| self.text[entry.name.clone()] == *known);
        match raw.as_bytes().first() {
            // Also of a repeated name the last one holds: there is no such header.
            Some(b'n') => {
                if let Some(index) = repeated {
                    self.entries.remove(index);
                }
                self.text.truncate(start);
                return Ok(());
            }
            Some(b'"') => {
                serde_json::Deserializer::from_str(raw)
                    .deserialize_str(Text(&mut self.text))
                    .map_err(Problem::Json)?;
            }
            _ => push_compact(raw, &mut self.text),
        }
        let value = name.end..self.text.len();
        if name.is_empty() || self.text[start..].contains('\0') {
            let name = self.text[name].to_owned();
            return Err(Problem::Unfit(UnfitReason::Header { name }));
        }
        match repeated {
            Some(index) => self.entries[index].value = value,
            None => self.entries.push(Entry { name, value }),
        }
        Ok(())
    }
}

enum Problem {
    Json(serde_json::Error),
    Unfit(UnfitReason),
}

/// Reads the object.
struct Object<'s> {
    headers: &'s mut RowHeaders,
    problem: &'s mut Option<UnfitReason>,
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    /// JSON's null is as good as SQL's.
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        loop {
            let start = self.headers.text.len();
            if map.next_key_seed(Text(&mut self.headers.text))?.is_none() {
                return Ok(());
            }
            let raw = map.next_value::<&'de RawValue>()?;
            match self.headers.member(start, raw.get()) {
                Ok(()) => {}
                Err(Problem::Json(error)) => return Err(A::Error::custom(error)),
                Err(Problem::Unfit(reason)) => {
                    *self.problem = Some(reason);
                    return Err(A::Error::custom("a header that can't be sent"));
                }
            }
        }
    }
}

/// Appends a string to a text.
struct Text<'s>(&'s mut String);

impl<'de> DeserializeSeed<'de> for Text<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_str(self)
    }
}

impl Visitor<'_> for Text<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.0.push_str(text);
        Ok(())
    }
}

/// Appends JSON without the spaces between its tokens. Numbers stay as they are written.
fn push_compact(json: &str, out: &mut String) {
    let (mut in_string, mut escaped) = (false, false);
    out.extend(json.chars().filter(|symbol| {
        if in_string {
            (in_string, escaped) = (escaped || *symbol != '"', !escaped && *symbol == '\\');
            return true;
        }
        in_string = *symbol == '"';
        !symbol.is_ascii_whitespace()
    }));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(json: &str) -> Result<Vec<(String, String)>, UnfitReason> {
        let mut headers = RowHeaders::default();
        headers.read(r#"{"from": "the row before"}"#).unwrap();
        headers.read(json)?;
        Ok(headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    #[test]
    fn values_of_every_kind() {
        let json = r#" {"s": "a\"\u00e9\n:", "n": 1.10, "big": 12345678901234567890123, "t": true,
            "null": null, "a": [1, "x, \" [ y\\", {"k" : 1.0}], "o": { }, "é": ""} "#;
        let expected = [
            ("s", "a\"é\n:"),
            ("n", "1.10"),
            ("big", "12345678901234567890123"),
            ("t", "true"),
            ("a", r#"[1,"x, \" [ y\\",{"k":1.0}]"#),
            ("o", "{}"),
            ("é", ""),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(read(json).unwrap(), expected);
        assert_eq!(read("{}"), Ok(vec![]));
        assert_eq!(read("null"), Ok(vec![]));
    }

    #[test]
    fn of_a_repeated_name_the_last_holds() {
        let json = r#"{"a": 1, "b": 2, "a": 3, "b": null}"#;
        assert_eq!(read(json).unwrap(), [("a".to_owned(), "3".to_owned())]);
    }

    #[test]
    fn what_is_walposts_own_is_dropped_and_counted() {
        let mut headers = RowHeaders::default();
        headers
            .read(r#"{"destination": "x", "ack": null, "Receipt": "mine", "message-id": {"a": "\u0000"}}"#)
            .unwrap();
        assert_eq!(headers.iter().collect::<Vec<_>>(), [("Receipt", "mine")]);
        assert_eq!(headers.dropped(), 3);
    }

    #[test]
    fn no_object_and_no_header() {
        for json in ["", "[]", "1", "\"{}\"", "true", "{", "{} x", r#"{"a": "\ud800"}"#, "{1: 2}"] {
            let error = read(json).unwrap_err();
            assert!(matches!(error, UnfitReason::HeadersNotAnObject { .. }), "{json}: {error}");
        }
        let header = |name: &str| Err(UnfitReason::Header { name: name.into() });
        assert_eq!(read(r#"{"": 1}"#), header(""));
        assert_eq!(read(r#"{"a\u0000": 1}"#), header("a\0"));
        assert_eq!(read(r#"{"b": "\u0000"}"#), header("b"));
        let many: Vec<_> = (0..=MAX).map(|index| format!("\"h{index}\": 1")).collect();
        let all_but_one = format!("{{{}}}", many[1..].join(","));
        assert_eq!(read(&all_but_one).unwrap().len(), MAX);
        let one_too_many = format!("{{{}}}", many.join(","));
        assert_eq!(read(&one_too_many), Err(UnfitReason::TooManyHeaders { max: MAX }));
    }

    #[test]
    fn no_words_of_the_row_in_the_error() {
        let error = read("\"secret\"").unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }

    proptest! {
        #[test]
        fn any_text_is_headers_or_a_reason(json in prop_oneof![
            any::<String>(),
            prop::collection::vec(prop::sample::select(
                vec!["{", "}", "[", "]", "\"", "\"a\"", ":", ",", "1", "null", "\\", "\\u0000", " "],
            ), 0..16).prop_map(|words| words.concat()),
        ]) {
            let _ = read(&json);
        }

        #[test]
        fn strings_come_out_as_they_were(
            pairs in prop::collection::btree_map("[^\0]{1,8}", "[^\0]{0,8}", 0..8),
        ) {
            let json = serde_json::to_string(&pairs).unwrap();
            let expected: Vec<_> =
                pairs.into_iter().filter(|(name, _)| !is_forbidden(name)).collect();
            prop_assert_eq!(read(&json).unwrap(), expected);
        }

        #[test]
        fn compact_json_means_the_same(keys in prop::collection::vec(any::<String>(), 0..5)) {
            let value = serde_json::json!([keys, { "n": 1.5, "k": keys }]);
            let mut compact = String::new();
            push_compact(&serde_json::to_string_pretty(&value).unwrap(), &mut compact);
            prop_assert_eq!(compact, serde_json::to_string(&value).unwrap());
        }
    }
}
