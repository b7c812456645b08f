//! One message.

use std::fmt::Write as _;

use super::list::short;
use crate::store::name::one_line;
use crate::store::undelivered::Shown;

/// So much of a text is shown.
const TEXT: usize = 64 * 1024;
/// So much of other bytes is shown.
const BYTES: usize = 256;

/// Everything that is known of it, for people.
pub(super) fn text(shown: &Shown) -> String {
    let Shown { listed: row, headers, body, xid, commit_time } = shown;
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{:<14}{}", format!("{name}:"), one_line(value));
    };
    let or_none = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    line("id", &row.id.to_string());
    line("state", row.state.as_str());
    line("destination", &or_none(&row.destination));
    line("message id", &or_none(&row.message_id));
    line("key", &or_none(&row.key));
    line("attempts", &row.attempts.to_string());
    line("next attempt", &or_none(&row.next_attempt_at));
    line("failed at", &format!("{} ({} ago)", row.failed_at, short(row.age)));
    line("error", &or_none(&row.error));
    line("table", &or_none(&row.table));
    match (row.lsn, xid, commit_time) {
        (Some(lsn), Some(xid), Some(time)) => {
            line("committed", &format!("{time}, transaction {xid}, at {lsn}"));
        }
        _ => line("committed", "- (read from the table, not from the slot)"),
    }
    if !headers.is_empty() {
        text.push_str("headers:\n");
        for (name, value) in headers {
            let _ = writeln!(text, "  {}: {}", one_line(name), one_line(value));
        }
    }
    match body {
        None => text.push_str("body: -\n"),
        Some(body) if body.is_empty() => text.push_str("body: empty\n"),
        Some(body) => {
            let _ = writeln!(text, "body ({} bytes):", body.len());
            write_body(&mut text, body);
        }
    }
    text
}

/// As a text where it is one, and can do a terminal no harm; else in hexadecimal.
fn write_body(text: &mut String, body: &[u8]) {
    let is_plain = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    let shown = match std::str::from_utf8(body) {
        Ok(whole) if whole.chars().all(is_plain) => {
            let end = whole.floor_char_boundary(TEXT.min(whole.len()));
            text.push_str(&whole[..end]);
            if !text.ends_with('\n') {
                text.push('\n');
            }
            end
        }
        _ => {
            let shown = &body[..body.len().min(BYTES)];
            for (nth, line) in shown.chunks(16).enumerate() {
                let hex: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
                let seen =
                    |byte: &u8| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' };
                let ascii: String = line.iter().map(seen).collect();
                let _ = writeln!(text, "{:08x}  {:<47}  {ascii}", nth * 16, hex.join(" "));
            }
            shown.len()
        }
    };
    if shown < body.len() {
        let _ = writeln!(text, "… and {} bytes more (--body writes all)", body.len() - shown);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body(bytes: &[u8]) -> String {
        let mut text = String::new();
        write_body(&mut text, bytes);
        text
    }

    #[test]
    fn a_text_is_shown_as_it_is() {
        assert_eq!(body("{\"é\": 1}".as_bytes()), "{\"é\": 1}\n");
        assert_eq!(body(b"a\n\tb\n"), "a\n\tb\n");
        let long = "é".repeat(TEXT);
        let shown = body(long.as_bytes());
        assert!(shown.starts_with("éé") && shown.len() < TEXT + 100);
        let left = format!("\n… and {TEXT} bytes more (--body writes all)\n");
        assert!(shown.ends_with(&left), "{}", &shown[TEXT..]);
    }

    #[test]
    fn other_bytes_are_shown_in_hexadecimal() {
        let shown = body(b"\x00\xffhello, world: {}");
        assert_eq!(
            shown,
            "00000000  00 ff 68 65 6c 6c 6f 2c 20 77 6f 72 6c 64 3a 20  ..hello,.world:.\n\
             00000010  7b 7d                                            {}\n"
        );
        assert!(body(&[0xff; 1_000]).ends_with("… and 744 bytes more (--body writes all)\n"));
    }

    proptest! {
        #[test]
        fn no_body_can_do_a_terminal_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let shown = body(&bytes);
            prop_assert!(shown.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t')));
        }
    }
}
