//! The list.

use std::time::Duration;

use serde_json::json;

use crate::store::name::one_line;
use crate::store::undelivered::{Counted, Listed, RowState};

const HEADINGS: [&str; 8] =
    ["ID", "STATE", "DESTINATION", "MESSAGE ID", "ATTEMPTS", "NEXT", "AGE", "ERROR"];
/// Names are cut to this where a line has an end.
const LONGEST_NAME: usize = 48;
/// The last column has at least so much room.
const LEAST_ERROR: usize = 20;
/// So many destinations are counted.
const DESTINATIONS: usize = 20;

/// A table with aligned columns, and behind it how many there are.
pub(super) fn text(
    slot: &str,
    rows: &[Listed],
    counted: &[Counted],
    width: Option<usize>,
) -> String {
    let slot = one_line(slot);
    if counted.is_empty() {
        return format!("nothing to list in walpost.undelivered (slot {slot})\n");
    }
    let mut lines = vec![HEADINGS.map(str::to_owned)];
    lines.extend(rows.iter().map(|row| cells(row, width.is_some())));
    let mut text = align(&lines, width);
    let all: u64 = counted.iter().map(|counted| counted.rows).sum();
    let shown = rows.len() as u64;
    if shown < all {
        text += &format!("… and {} more (--all, or --limit N, shows them)\n", all - shown);
    }
    if counted.len() > 1 || shown < all {
        text += &summary(counted);
    }
    text
}

/// One JSON object.
pub(super) fn json(row: &Listed) -> String {
    let object = json!({
        "id": row.id,
        "state": row.state.as_str(),
        "destination": row.destination,
        "message_id": row.message_id,
        "key": row.key,
        "attempts": row.attempts,
        "next_attempt_at": row.next_attempt_at,
        "failed_at": row.failed_at,
        "error": row.error,
        "table": row.table,
        "lsn": row.lsn.map(|lsn| lsn.to_string()),
        "body_bytes": row.body_bytes,
    });
    format!("{object}\n")
}

fn cells(row: &Listed, cut_names: bool) -> [String; 8] {
    let name = |name: &Option<String>| match name {
        None => "-".to_owned(),
        Some(name) if cut_names => cut(&one_line(name), LONGEST_NAME),
        Some(name) => one_line(name),
    };
    let next = match (row.state, row.next_in) {
        (RowState::Discarded, _) | (_, None) => "-".to_owned(),
        (_, Some(Duration::ZERO)) => "now".to_owned(),
        (_, Some(wait)) => format!("in {}", short(wait)),
    };
    [
        row.id.to_string(),
        row.state.as_str().to_owned(),
        name(&row.destination),
        name(&row.message_id),
        row.attempts.to_string(),
        next,
        short(row.age),
        one_line(row.error.as_deref().unwrap_or("-")),
    ]
}

/// Columns two blanks apart; numbers to the right; the last one cut to what is left of a line.
fn align(lines: &[[String; 8]], width: Option<usize>) -> String {
    let widths: [usize; 8] = std::array::from_fn(|column| {
        lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0)
    });
    let before: usize = widths[..7].iter().map(|width| width + 2).sum();
    let room = width.map(|width| width.saturating_sub(before).max(LEAST_ERROR));
    let mut text = String::new();
    for line in lines {
        for (column, cell) in line[..7].iter().enumerate() {
            let width = widths[column];
            match column {
                0 | 4 => text += &format!("{cell:>width$}  "),
                _ => text += &format!("{cell:<width$}  "),
            }
        }
        match room {
            Some(room) => text += &cut(&line[7], room),
            None => text += &line[7],
        }
        text.push('\n');
    }
    text
}

/// How many there are, a line a destination.
fn summary(counted: &[Counted]) -> String {
    let of = |state| -> u64 {
        counted.iter().filter(|of| of.state == state).map(|counted| counted.rows).sum()
    };
    let states = [RowState::Retrying, RowState::Dead, RowState::Discarded];
    let sums = states.map(|state| (of(state), state)).into_iter().filter(|(rows, _)| *rows > 0);
    let sums: Vec<_> = sums.map(|(rows, state)| format!("{rows} {}", state.as_str())).collect();
    let mut text = format!("total: {}\n", sums.join(", "));
    for Counted { destination, state, rows } in counted.iter().take(DESTINATIONS) {
        let destination = destination.as_deref().map_or("(no destination)".to_owned(), one_line);
        text += &format!("  {destination}: {rows} {}\n", state.as_str());
    }
    if counted.len() > DESTINATIONS {
        text += &format!("  … and {} more\n", counted.len() - DESTINATIONS);
    }
    text
}

/// A time in its largest unit.
pub(super) fn short(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7_200 => format!("{}m", seconds / 60),
        seconds @ 7_200..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// At most so many characters, the last one a sign that some are missing.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: i64, destination: &str, error: &str) -> Listed {
        Listed {
            id,
            state: RowState::Retrying,
            destination: Some(destination.to_owned()),
            message_id: Some("m".to_owned()),
            key: None,
            attempts: 3,
            next_attempt_at: Some("2026-01-01T00:00:00Z".to_owned()),
            next_in: Some(Duration::from_secs(42)),
            failed_at: "2026-01-01T00:00:00Z".to_owned(),
            age: Duration::from_secs(600),
            error: Some(error.to_owned()),
            lsn: None,
            table: None,
            body_bytes: Some(2),
        }
    }

    fn counted(destination: &str, state: RowState, rows: u64) -> Counted {
        Counted { destination: Some(destination.to_owned()), state, rows }
    }

    #[test]
    fn columns_are_aligned_and_nothing_breaks_a_line() {
        let rows = [row(7, "/queue/é", "a\nb\u{1b}[31m"), row(123, "/queue/long", "full")];
        let one = [counted("/queue/a", RowState::Retrying, 2)];
        assert_eq!(
            text("s", &rows, &one, None),
            [
                " ID  STATE     DESTINATION  MESSAGE ID  ATTEMPTS  NEXT    AGE  ERROR\n",
                "  7  retrying  /queue/é     m                  3  in 42s  10m  a\\nb\\u{1b}[31m\n",
                "123  retrying  /queue/long  m                  3  in 42s  10m  full\n",
            ]
            .concat()
        );
    }

    #[test]
    fn a_terminal_has_an_end() {
        let long = "x".repeat(300);
        let rows = [row(1, &long, &long)];
        let one = [counted(&long, RowState::Retrying, 1)];
        let shown = text("s", &rows, &one, Some(140));
        let longest = shown.lines().map(|line| line.chars().count()).max();
        assert_eq!(longest, Some(140), "{shown}");
        assert!(shown.contains("…") && !shown.contains(&long), "{shown}");
        assert!(text("s", &rows, &one, None).contains(&format!("{long}  m ")));
        // However narrow it is, there is something of the reason.
        assert!(text("s", &rows, &one, Some(10)).contains(&"x".repeat(LEAST_ERROR - 1)));
    }

    #[test]
    fn what_is_not_shown_is_counted() {
        let many = [
            counted("/queue/a", RowState::Retrying, 120),
            counted("/queue/b", RowState::Dead, 3),
            Counted { destination: None, state: RowState::Dead, rows: 1 },
        ];
        let shown = text("s", &[row(1, "/queue/a", "full")], &many, None);
        let end = "\
… and 123 more (--all, or --limit N, shows them)
total: 120 retrying, 4 dead
  /queue/a: 120 retrying
  /queue/b: 3 dead
  (no destination): 1 dead
";
        assert!(shown.ends_with(end), "{shown}");
        let nothing = text("s\n", &[], &[], None);
        assert_eq!(nothing, "nothing to list in walpost.undelivered (slot s\\n)\n");
    }

    #[test]
    fn times_are_short() {
        let shown = [0, 119, 120, 7_199, 7_200, 172_799, 172_800];
        let shown = shown.map(|seconds| short(Duration::from_secs(seconds)));
        assert_eq!(shown, ["0s", "119s", "2m", "119m", "2h", "47h", "2d"]);
    }
}
