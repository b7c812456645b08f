//! What a transaction does: rows, savepoints released and rolled back to, and how it ends.

use std::fmt::Write as _;

use super::model::{Row, body_of, destination_of, id_of};

const MOST_ROWS: usize = 50;

enum Step {
    /// An INSERT of so many rows.
    Insert(usize),
    /// A COPY of so many rows: they share the LSN of one record.
    Copy(usize),
    Savepoint,
    /// To the innermost savepoint, which stays.
    RollbackTo,
    /// The innermost savepoint.
    Release,
}

/// A transaction of 1 to 50 rows, before it is known which they are.
pub struct Shape {
    /// Ascending.
    pub destinations: Vec<usize>,
    pub commits: bool,
    steps: Vec<Step>,
}

impl Shape {
    pub fn random(rng: &mut fastrand::Rng, destinations: usize) -> Self {
        let amount = rng.usize(1..=3);
        let mut chosen = rng.choose_multiple(0..destinations, amount);
        chosen.sort_unstable();
        let savepoints = rng.u8(..10) < 4;
        let (mut left, mut open, mut steps) = (rng.usize(1..=MOST_ROWS), 0, Vec::new());
        while left > 0 {
            let step = match rng.u8(..10) {
                0..=2 if savepoints && open < 3 => Step::Savepoint,
                3 | 4 if open > 0 => Step::RollbackTo,
                5 | 6 if open > 0 => Step::Release,
                _ => {
                    let count = rng.usize(1..=left);
                    left -= count;
                    if rng.u8(..40) == 0 { Step::Copy(count) } else { Step::Insert(count) }
                }
            };
            match step {
                Step::Savepoint => open += 1,
                Step::Release => open -= 1,
                _ => {}
            }
            steps.push(step);
        }
        // Some end right after a rollback to a savepoint.
        if open > 0 && rng.bool() {
            steps.push(Step::RollbackTo);
        }
        Shape { destinations: chosen, commits: rng.u8(..100) >= 15, steps }
    }

    /// The rows in the order of their insertion, whether they stay or not.
    pub fn len(&self) -> usize {
        let rows = |step: &Step| match step {
            Step::Insert(count) | Step::Copy(count) => *count,
            _ => 0,
        };
        self.steps.iter().map(rows).sum()
    }

    /// The statements, and the rows that are there at the end if it commits.
    pub fn render(
        &self,
        rng: &mut fastrand::Rng,
        mut next: impl FnMut() -> u64,
    ) -> (String, Vec<Row>) {
        let (mut sql, mut alive, mut marks) = (String::new(), Vec::<Row>::new(), Vec::new());
        for step in &self.steps {
            match step {
                Step::Insert(count) | Step::Copy(count) => {
                    let rows: Vec<Row> = (0..*count)
                        .map(|_| Row {
                            serial: next(),
                            destination: self.destinations[rng.usize(..self.destinations.len())],
                        })
                        .collect();
                    match step {
                        Step::Copy(_) => copy(&mut sql, &rows),
                        _ => insert(&mut sql, &rows),
                    }
                    alive.extend(rows);
                }
                Step::Savepoint => {
                    let _ = writeln!(sql, "SAVEPOINT s{};", marks.len());
                    marks.push(alive.len());
                }
                Step::RollbackTo => {
                    let innermost = marks.len() - 1;
                    let _ = writeln!(sql, "ROLLBACK TO s{innermost};");
                    alive.truncate(marks[innermost]);
                }
                Step::Release => {
                    marks.pop();
                    let _ = writeln!(sql, "RELEASE s{};", marks.len());
                }
            }
        }
        sql += if self.commits { "COMMIT" } else { "ROLLBACK" };
        (sql, alive)
    }
}

/// One INSERT statement.
pub fn insert(sql: &mut String, rows: &[Row]) {
    *sql += "INSERT INTO walpost.outbox (id, destination, body) VALUES ";
    for (at, row) in rows.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let (id, destination) = (id_of(row.serial), destination_of(row.destination));
        let _ = write!(sql, "{comma}('{id}', '{destination}', '{}')", body_of(row.serial));
    }
    *sql += ";\n";
}

/// A COPY inside a batch of statements has to read a program's output. It writes several rows with
/// one record only where no column has a volatile default.
fn copy(sql: &mut String, rows: &[Row]) {
    *sql += "COPY walpost.outbox (id, destination, body, created_at) FROM PROGRAM $$cat <<'END'\n";
    for row in rows {
        let (id, destination) = (id_of(row.serial), destination_of(row.destination));
        let _ = writeln!(sql, "{id}\t{destination}\t{}\tnow", body_of(row.serial));
    }
    *sql += "END\n$$;\n";
}
