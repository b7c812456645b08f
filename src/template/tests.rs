use std::borrow::Cow;

use proptest::prelude::*;

use super::*;

/// A row with everything in it but a version, and one column that is empty.
struct Row;

impl Values for Row {
    fn value(&self, field: Field<'_>) -> Option<Cow<'_, str>> {
        let text = match field {
            Field::Id => "7f",
            Field::Destination => "/topic/a",
            Field::Version | Field::Column("null") => return None,
            Field::Key => "k",
            Field::Lsn => "16/B374D848",
            Field::Xid => "742",
            Field::CommitTime => "2026-01-31 12:00:00+00:00",
            Field::Now => "2026-01-31 12:00:01+00:00",
            Field::Column("empty") => "",
            Field::Column(name) => return Some(Cow::Owned(format!("<{name}>"))),
        };
        Some(Cow::Borrowed(text))
    }
}

fn rendered(text: &str) -> String {
    let mut out = String::from("=");
    Template::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).render(&Row, &mut out);
    out.split_off(1)
}

#[test]
fn placeholders_and_parts() {
    for (text, expected) in [
        ("", ""),
        ("plain", "plain"),
        ("{destination}[.{version}]", "/topic/a"),
        ("{destination}[.{key}]", "/topic/a.k"),
        ("{destination}.{version}", "/topic/a."),
        ("[{key}-{version}]", ""),
        ("[{version}-{key}]!", "!"),
        ("[<{column:empty}>][{column:x}]", "<x>"),
        ("{column:null}", ""),
        ("{lsn} {xid}", "16/B374D848 742"),
        ("{commit_time}/{now}", "2026-01-31 12:00:00+00:00/2026-01-31 12:00:01+00:00"),
        ("{{{id}}}", "{7f}"),
        ("[[{id}]]", "[7f]"),
        ("[a[[{id}]]b]", "a[7f]b"),
        ("{{id}}", "{id}"),
        ("{column:Größe: x]}é", "<Größe: x]>é"),
    ] {
        assert_eq!(rendered(text), expected, "{text}");
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (text, expected) in [
        ("a{id", TemplateError::OpenBrace { at: 2 }),
        ("é{id{key}", TemplateError::OpenBrace { at: 2 }),
        ("ab}", TemplateError::StrayBrace { at: 3 }),
        ("[{id}", TemplateError::OpenBracket { at: 1 }),
        ("{id}]", TemplateError::StrayBracket { at: 5 }),
        ("[{id}[{key}]]", TemplateError::Nested { at: 6 }),
        ("[x]", TemplateError::Constant { at: 1 }),
        ("[]", TemplateError::Constant { at: 1 }),
        ("{Id}", TemplateError::Unknown { at: 1, name: "Id".into() }),
        ("{}", TemplateError::Unknown { at: 1, name: String::new() }),
        ("{column:}", TemplateError::NoColumn { at: 1 }),
        ("a\0", TemplateError::Nul { at: 2 }),
        ("{column:\0}", TemplateError::Nul { at: 9 }),
    ] {
        assert_eq!(Template::parse(text), Err(expected), "{text}");
    }
    let error = Template::parse("x-{oid}").unwrap_err().to_string();
    assert!(
        error.starts_with("'{oid}' at character 3 is no placeholder; there are {id} "),
        "{error}"
    );
}

#[test]
fn fields_columns_and_literals() {
    let template = Template::parse("{id}[-{column:a}]{column:b}").unwrap();
    assert_eq!(template.columns().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(
        template.fields().collect::<Vec<_>>(),
        [Field::Id, Field::Column("a"), Field::Column("b")]
    );
    assert_eq!(template.literal(), None);
    assert_eq!(Template::parse("a[[").unwrap().literal(), Some("a["));
    assert_eq!(Template::parse("").unwrap().literal(), Some(""));
    assert_eq!(template.to_string(), "{id}[-{column:a}]{column:b}");
}

/// Texts rich in what templates are made of.
fn texts() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        "{{",
        "]]",
        "{id}",
        "{version}",
        "{column:",
        "{column:é}",
        ".",
        "é",
        "\0",
    ]);
    prop::collection::vec(words, 0..12).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn any_text_is_a_template_or_an_error(text in prop_oneof![texts(), any::<String>()]) {
        if let Ok(template) = Template::parse(&text) {
            let mut out = String::new();
            template.render(&Row, &mut out);
            prop_assert!(!out.contains('\0'));
            prop_assert_eq!(template.to_string(), text);
        }
    }

    #[test]
    fn escaped_text_comes_out_as_it_was(text in "[^\0]*") {
        let mut escaped = text.clone();
        for symbol in ["{", "}", "[", "]"] {
            escaped = escaped.replace(symbol, &symbol.repeat(2));
        }
        prop_assert_eq!(rendered(&escaped), text);
    }
}
