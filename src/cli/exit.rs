//! Exit statuses, and the one line that goes with a bad one.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::process::ExitCode;

/// What the process says to whoever started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// The work is done.
    Done = 0,
    /// A check failed, or the work could not be done; trying again may help.
    Failed = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// Stopped for good: trying again does not help, an operator must act.
    Stopped = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Prints `error: …` on standard error, one line for each line of the text.
pub fn complain(error: impl Display) {
    let mut stderr = io::stderr().lock();
    for line in error.to_string().lines() {
        // There is nobody left to tell where standard error is closed.
        let _ = writeln!(stderr, "error: {line}");
    }
}

/// Prints to standard output. A reader that has gone away (`walpost … | head`) is no failure.
pub fn print(text: &str) -> Exit {
    print_bytes(text.as_bytes())
}

/// The same with any bytes.
pub fn print_bytes(bytes: &[u8]) -> Exit {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Exit::Done,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
        Err(error) => {
            complain(format_args!("cannot write to standard output: {error}"));
            Exit::Failed
        }
    }
}

/// Makes a panic one line on standard error, in place of a backtrace.
pub fn one_line_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let words = payload.downcast_ref::<&str>().copied();
        let words = words.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let words = words.and_then(|words| words.lines().next()).unwrap_or("panic");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        complain(format_args!(
            "internal error at {place}: {words}; please report it with the version, {}",
            env!("CARGO_PKG_VERSION")
        ));
    }));
}
