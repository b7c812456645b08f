//! Every path that a source file names, with groups in braces taken apart. Test-only items, comments and literals are
//! left out. A reader of words, not of Rust: enough for files that the compiler has accepted.

/// A path such as `crate::lsn::Lsn`.
pub struct Used<'a> {
    pub segments: Vec<&'a str>,
    pub line: usize,
}

#[derive(Clone, Copy, Debug)]
struct Token<'a> {
    text: &'a str,
    line: usize,
}

/// The paths of `text` with two segments or more.
pub fn of(text: &str) -> Vec<Used<'_>> {
    let tokens = without_tests(&tokens(text));
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if is_name(tokens[at].text) {
            at = path(&tokens, at, &[], &mut found);
        } else {
            at += 1;
        }
    }
    found.retain(|used| used.segments.len() > 1);
    found
}

/// Reads a path that begins at `at` and continues `prefix`; gives the place after it.
fn path<'a>(
    tokens: &[Token<'a>],
    mut at: usize,
    prefix: &[&'a str],
    found: &mut Vec<Used<'a>>,
) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    let line = tokens[at].line;
    let mut segments = prefix.to_vec();
    loop {
        segments.push(text(at));
        at += 1;
        if text(at) != "::" {
            break;
        }
        at += 1;
        if text(at) == "{" {
            at += 1;
            while !matches!(text(at), "}" | "") {
                match text(at) {
                    // A new name, not a path.
                    "as" => at += 2,
                    "*" => {
                        found.push(Used { segments: segments.clone(), line });
                        at += 1;
                    }
                    name if is_name(name) => at = path(tokens, at, &segments, found),
                    _ => at += 1,
                }
            }
            return at + 1;
        }
        if !is_name(text(at)) {
            break;
        }
    }
    found.push(Used { segments, line });
    at
}

/// Drops each item that `#[cfg(test)]` stands before.
fn without_tests<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at..].iter().map(|token| token.text).take(MARK.len()).eq(MARK) {
            at = item_end(tokens, at + MARK.len());
        } else {
            kept.push(tokens[at]);
            at += 1;
        }
    }
    kept
}

/// The place after the item at `at`: after its `;`, or after the braces that match its first one.
fn item_end(tokens: &[Token<'_>], mut at: usize) -> usize {
    let mut depth = 0;
    let is_use = tokens.get(at).is_some_and(|token| token.text == "use");
    while at < tokens.len() {
        match tokens[at].text {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => {
                depth -= 1;
                if depth == 0 && tokens[at].text == "}" && !is_use {
                    return at + 1;
                }
            }
            ";" if depth == 0 => return at + 1,
            _ => {}
        }
        at += 1;
    }
    at
}

fn is_name(text: &str) -> bool {
    text.starts_with(|letter: char| letter.is_alphabetic() || letter == '_')
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(letter) = rest.chars().next() {
        let (length, is_token) = match letter {
            _ if rest.starts_with("//") => (rest.find('\n').unwrap_or(rest.len()), false),
            _ if rest.starts_with("/*") => (block_comment(rest), false),
            '"' => (string(rest), false),
            '\'' => (quote(rest), false),
            _ if rest.starts_with("::") => (2, true),
            _ if is_name(rest) => {
                let length = rest
                    .find(|letter: char| !letter.is_alphanumeric() && letter != '_')
                    .unwrap_or(rest.len());
                match &rest[length..] {
                    // A raw string; b"" and c"" are names followed by plain ones.
                    after if rest[..length].ends_with('r') && raw_hashes(after).is_some() => {
                        (length + raw_string(after), false)
                    }
                    _ => (length, true),
                }
            }
            _ => (letter.len_utf8(), !letter.is_whitespace()),
        };
        if is_token {
            found.push(Token { text: &rest[..length], line });
        }
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    found
}

fn block_comment(text: &str) -> usize {
    let (mut at, mut depth) = (2, 1);
    while depth > 0 && at < text.len() {
        match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    at
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// A character literal, or the mark of a lifetime.
fn quote(text: &str) -> usize {
    let mut letters = text.char_indices().skip(1);
    match letters.next() {
        Some((_, '\\')) => {
            letters.skip(1).find(|(_, letter)| *letter == '\'').map_or(text.len(), |(at, _)| at + 1)
        }
        _ => match letters.next() {
            Some((at, '\'')) => at + 1,
            _ => 1,
        },
    }
}

/// The number of `#` of a raw string's opening, if `text` is one.
fn raw_hashes(text: &str) -> Option<usize> {
    let rest = text.trim_start_matches('#');
    rest.starts_with('"').then_some(text.len() - rest.len())
}

fn raw_string(text: &str) -> usize {
    let hashes = raw_hashes(text).unwrap_or(0);
    let end = format!("\"{}", "#".repeat(hashes));
    text[hashes + 1..].find(&end).map_or(text.len(), |at| hashes + 1 + at + end.len())
}
