//! The terminal: a block that is drawn again and again where there is one, a line a second elsewhere.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use walpost_testkit::Walpost;

use crate::ledger::{Ledger, RECENT, Verdict, View};

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const CYAN: &str = "36";
const NARROWEST: usize = 60;
const WIDEST: usize = 120;

/// Where the demo shows itself.
pub struct Screen {
    terminal: bool,
    colours: bool,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    events: Vec<String>,
    drawn: usize,
    lag: Option<(f64, f64)>,
    asked: Option<Instant>,
}

/// On Ctrl-C the terminal is put right and the process ends; its servers end with it.
pub fn leave_tidily_when_interrupted() {
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime else { return };
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            println!("\x1b[0m\ninterrupted; the servers are ended");
            std::process::exit(130);
        }
    });
}

impl Screen {
    pub fn new() -> Self {
        let terminal = std::io::stdout().is_terminal();
        let colours = terminal && std::env::var_os("NO_COLOR").is_none();
        Self { terminal, colours, state: RefCell::default() }
    }

    pub fn title(&self) {
        println!(
            "\n{}  PostgreSQL's write-ahead log → RabbitMQ, nothing lost\n",
            self.paint(BOLD, "walpost")
        );
    }

    /// Shows what is being done, does it, and shows how long it took.
    pub fn step<T>(&self, what: &str, action: impl FnOnce() -> T) -> T {
        if self.terminal {
            print!("  … {what}");
            let _ = std::io::stdout().flush();
        }
        let started = Instant::now();
        let value = action();
        let took = self.paint(DIM, &format!("{:.1} s", started.elapsed().as_secs_f64()));
        let start = if self.terminal { "\r" } else { "" };
        println!("{start}  {} {what} {took}", self.paint(GREEN, "✓"));
        value
    }

    pub fn note(&self, text: &str) {
        println!("  {text}\n");
    }

    /// Something that happened to the relay.
    pub fn event(&self, at: Duration, text: &str) {
        let line = format!("{:>5.1} s  {text}", at.as_secs_f64());
        if !self.terminal {
            println!("{line}");
        }
        self.state.borrow_mut().events.push(line);
    }

    /// Between two drawings.
    pub fn pause(&self) -> Duration {
        if self.terminal { Duration::from_millis(100) } else { Duration::from_millis(50) }
    }

    pub fn draw(&self, at: Duration, killed: Option<Instant>, relay: &Walpost, ledger: &Ledger) {
        let view = ledger.view();
        let mut state = self.state.borrow_mut();
        let every = Duration::from_millis(if self.terminal { 300 } else { 1_000 });
        let due = state.asked.is_none_or(|asked| asked.elapsed() >= every);
        if due {
            state.asked = Some(Instant::now());
            state.lag = if killed.is_some() { None } else { lag(relay) };
        }
        if self.terminal {
            let lines = self.block(at, killed, relay, &view, &state);
            let mut out = String::new();
            if state.drawn > 0 {
                let _ = write!(out, "\x1b[{}A", state.drawn);
            }
            for line in &lines {
                let _ = writeln!(out, "\x1b[2K{line}");
            }
            state.drawn = lines.len();
            print!("{out}");
            let _ = std::io::stdout().flush();
        } else if due {
            println!("{}", plain(at, killed, &view, &state));
        }
    }

    /// The end: do the books balance?
    pub fn books(&self, verdict: &Verdict) {
        let Verdict { committed, rolled_back, messages, arrived, lost, invented, out_of_order } =
            *verdict;
        let judged =
            |number: u64| self.paint(if number == 0 { GREEN } else { RED }, &number.to_string());
        println!();
        println!("  committed      {}", self.paint(BOLD, &committed.to_string()));
        println!("  arrived        {} distinct", self.paint(BOLD, &arrived.to_string()));
        println!("  lost           {}", judged(lost));
        println!(
            "  repeated       {}   {}",
            messages - arrived,
            self.paint(DIM, "after the kills, with the same msg-id")
        );
        println!("  out of order   {}", judged(out_of_order));
        println!("  rolled back    {rolled_back} rows, of which arrived {}\n", judged(invented));
        if verdict.balances() {
            println!("  {}\n", self.paint(GREEN, "Every committed row arrived."));
        } else {
            println!("  {}\n", self.paint(RED, "The books do not balance."));
        }
    }

    fn block(
        &self,
        at: Duration,
        killed: Option<Instant>,
        relay: &Walpost,
        view: &View,
        state: &State,
    ) -> Vec<String> {
        let width = width();
        let half = (width - 4) / 2;
        let mut lines = Vec::new();
        lines.push(format!(
            "  {} {}",
            self.paint(BOLD, &fitted("committed in PostgreSQL", half)),
            self.paint(BOLD, &fitted("arrived in RabbitMQ", half))
        ));
        for row in 0..RECENT {
            let cell = |cells: &[String]| fitted(cells.get(row).map_or("", String::as_str), half);
            let message = cell(&view.arrivals);
            let again = view.arrivals.get(row).is_some_and(|text| text.ends_with("again"));
            lines.push(format!(
                "  {} {}",
                self.paint(CYAN, &cell(&view.rows)),
                self.paint(if again { YELLOW } else { GREEN }, &message)
            ));
        }
        lines.push(String::new());
        let relay = match killed {
            Some(since) => {
                let text = format!("✗ killed {:.1} s ago", since.elapsed().as_secs_f64());
                self.paint(RED, &text)
            }
            None => self.paint(GREEN, &format!("● running, pid {}", relay.pid())),
        };
        lines.push(format!("  {:<10} {relay}", "walpost"));
        let bar = width.saturating_sub(24).max(10);
        lines.push(self.bar("committed", view.committed, view.committed, bar, CYAN));
        lines.push(self.bar("arrived", view.arrived, view.committed, bar, GREEN));
        let behind = view.committed.saturating_sub(view.arrived);
        let colour = if behind > 200 { YELLOW } else { DIM };
        let behind = self.paint(colour, &format!("{behind} rows"));
        lines.push(format!("  {:<10} {behind}{}", "behind", lag_text(state.lag)));
        lines.push(format!("  {:<10} {}", "latency", latency(view)));
        lines.push(format!("  {:<10} {}", "repeated", view.repeated));
        lines.push(String::new());
        for row in 0..5 {
            lines.push(match state.events.get(row) {
                Some(event) => format!("  {}", fitted(event, width - 4)),
                None if row == state.events.len() => {
                    self.paint(DIM, &format!("  {:>5.1} s", at.as_secs_f64()))
                }
                None => String::new(),
            });
        }
        lines
    }

    fn bar(&self, name: &str, value: u64, whole: u64, width: usize, colour: &str) -> String {
        let share = if whole == 0 { 0.0 } else { value as f64 / whole as f64 };
        let filled = ((share * width as f64) as usize).min(width);
        let rest = "·".repeat(width - filled);
        let bar = format!("{}{}", self.paint(colour, &"█".repeat(filled)), self.paint(DIM, &rest));
        format!("  {name:<10} {bar} {value}")
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn plain(at: Duration, killed: Option<Instant>, view: &View, state: &State) -> String {
    let behind = view.committed.saturating_sub(view.arrived);
    format!(
        "{:>5.1} s  {}  committed {:>6}  arrived {:>6}  behind {behind:>5}{}  repeated {}  | {} | {}",
        at.as_secs_f64(),
        if killed.is_some() { "killed " } else { "running" },
        view.committed,
        view.arrived,
        lag_text(state.lag),
        view.repeated,
        view.rows.last().map_or("", String::as_str),
        view.arrivals.last().map_or("", String::as_str),
    )
}

/// Bytes and seconds, as the relay tells them.
fn lag(relay: &Walpost) -> Option<(f64, f64)> {
    let metrics = relay.metrics();
    let bytes = metrics.get("walpost_replication_lag_bytes")?;
    Some((*bytes, *metrics.get("walpost_replication_lag_seconds")?))
}

fn lag_text(lag: Option<(f64, f64)>) -> String {
    lag.map_or_else(String::new, |(bytes, seconds)| {
        format!(" · {:.0} KiB of WAL, {seconds:.2} s", bytes / 1024.0)
    })
}

fn latency(view: &View) -> String {
    let milliseconds = |duration: Duration| duration.as_secs_f64() * 1_000.0;
    view.latency.map_or_else(String::new, |(median, high)| {
        format!(
            "commit to arrival: p50 {:.1} ms, p99 {:.1} ms",
            milliseconds(median),
            milliseconds(high)
        )
    })
}

/// Exactly `width` characters: cut, or filled with blanks.
fn fitted(text: &str, width: usize) -> String {
    let mut fitted: String = text.chars().take(width).collect();
    let length = fitted.chars().count();
    fitted.extend(std::iter::repeat_n(' ', width - length));
    fitted
}

fn width() -> usize {
    rustix::termios::tcgetwinsize(std::io::stdout())
        .map_or(80, |size| usize::from(size.ws_col))
        .clamp(NARROWEST, WIDEST)
}
