//! The peer's words, made fit for one line of a log.

/// At most `limit` characters of `text`; control characters become spaces, and what was cut off
/// becomes an ellipsis.
pub(super) fn printable(text: &str, limit: usize) -> String {
    let mut characters = text.chars();
    let mut line: String =
        characters.by_ref().take(limit).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if characters.next().is_some() {
        line.push('…');
    }
    line
}

/// The same for bytes that may not be UTF-8. Only the first of them are looked at.
pub(super) fn printable_bytes(bytes: &[u8], limit: usize) -> String {
    // A character is at most four bytes long; one more shows that something was cut off.
    let looked_at = bytes.len().min(limit.saturating_mul(4).saturating_add(4));
    printable(&String::from_utf8_lossy(&bytes[..looked_at]), limit)
}

/// The beginning of `text`, at most `limit` bytes of it, cut between characters.
pub(super) fn beginning(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_and_no_longer_than_asked() {
        assert_eq!(printable("a\nb\u{1b}[31m", 20), "a b [31m");
        assert_eq!(printable("äöü", 3), "äöü");
        assert_eq!(printable("äöüx", 3), "äöü…");
        assert_eq!(printable_bytes(&[b'a', 0xff, 0], 9), "a\u{fffd} ");
        assert_eq!(printable_bytes(&[b'a'; 1000], 2), "aa…");
    }

    #[test]
    fn a_beginning_keeps_characters_whole() {
        assert_eq!(beginning("äöü", 3), "ä");
        assert_eq!(beginning("äöü", 100), "äöü");
    }
}
