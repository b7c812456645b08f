//! The table that `make bench` prints.

use std::fmt::Write as _;

const HEADINGS: [&str; 6] = ["what", "walpost", "ceiling", "ratio", "goal", "spread (min … max)"];

/// A goal, and how it is judged.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// The ratio is at least this.
    RatioAtLeast(f64),
    /// The ratio is at most this.
    RatioAtMost(f64),
    /// walpost's own figure is at most this, in this unit.
    AtMost(f64, &'static str),
    /// For comparison only.
    None,
}

/// One line.
#[derive(Clone, Debug)]
pub struct Line {
    /// What was measured.
    pub what: String,
    /// walpost's figure, for the goal, and with its unit.
    pub walpost: (f64, String),
    /// What was found possible, and by whom; `None`: the goal stands alone.
    pub ceiling: Option<(f64, String)>,
    /// What the goal is.
    pub goal: Goal,
    /// How far the runs lie apart.
    pub spread: String,
}

impl Line {
    fn cells(&self) -> [String; 6] {
        let ratio = self.ceiling.as_ref().map(|(ceiling, _)| self.walpost.0 / ceiling);
        let shown = ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"));
        let judged = ratio.unwrap_or(f64::NAN);
        let (goal, met) = match self.goal {
            Goal::RatioAtLeast(least) => (format!("≥ {least:.2}"), judged >= least),
            Goal::RatioAtMost(most) => (format!("≤ {most:.2}"), judged <= most),
            Goal::AtMost(most, unit) => (format!("≤ {most} {unit}"), self.walpost.0 <= most),
            Goal::None => (String::new(), true),
        };
        let goal = match self.goal {
            Goal::None => goal,
            _ => format!("{goal} {}", if met { "met" } else { "MISSED" }),
        };
        let ceiling = self.ceiling.as_ref().map_or(String::new(), |(_, text)| text.clone());
        [self.what.clone(), self.walpost.1.clone(), ceiling, shown, goal, self.spread.clone()]
    }
}

/// The lines below each other, columns aligned, as a table of Markdown.
#[must_use]
pub fn render(lines: &[Line]) -> String {
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(lines.iter().map(Line::cells));
    let mut widths = [0; HEADINGS.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut out = String::new();
    for (number, row) in rows.iter().enumerate() {
        for (cell, width) in row.iter().zip(widths) {
            // Writing to a String cannot fail.
            let _ = write!(out, "| {cell:width$} ");
        }
        out += "|\n";
        if number == 0 {
            widths.iter().for_each(|width| out += &format!("|{}", "-".repeat(width + 2)));
            out += "|\n";
        }
    }
    out
}

/// `12 345`: thousands apart.
#[must_use]
pub fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_judged_by_its_goal() {
        let line = |walpost, ceiling, goal| Line {
            what: "x".to_owned(),
            walpost: (walpost, String::new()),
            ceiling,
            goal,
            spread: String::new(),
        };
        let judged = |line: Line| line.cells()[4].ends_with(" met");
        let ceiling = Some((2.0, String::new()));
        assert!(judged(line(1.9, ceiling.clone(), Goal::RatioAtLeast(0.95))));
        assert!(!judged(line(1.8, ceiling.clone(), Goal::RatioAtLeast(0.95))));
        assert!(!judged(line(3.1, ceiling, Goal::RatioAtMost(1.5))));
        assert!(judged(line(4.0, None, Goal::AtMost(4.0, "µs"))));
        let compared = line(1.0, Some((2.0, String::new())), Goal::None).cells();
        assert_eq!(compared[3..5], ["0.50", ""]);
    }

    #[test]
    fn columns_are_aligned() {
        let line = Line {
            what: "µs".to_owned(),
            walpost: (1.0, "1".to_owned()),
            ceiling: None,
            goal: Goal::AtMost(1.0, "ms"),
            spread: "1 … 2".to_owned(),
        };
        let text = render(&[line]);
        let widths: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
        assert_eq!(widths, [widths[0]; 3]);
        assert_eq!(grouped(1_234_567.0), "1\u{202f}234\u{202f}567");
        assert_eq!(grouped(123.4), "123");
    }
}
