//! Logs on stderr: one line an event, as text for people or JSON for machines.
//!
//! Times are UTC, RFC 3339 with milliseconds. What a peer said cannot forge a second line. Bodies
//! and secrets are never given to a log macro in the first place; the other crates' own lines are
//! let through from `warn` only.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal};
use std::str::FromStr;

use tracing::Subscriber;
use tracing::field::Field;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry};

use super::clock;

/// `log.format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// A line for people: time, level, message, then `name=value`.
    #[default]
    Text,
    /// One JSON object a line: `timestamp`, `level`, `message`, and each field by its name.
    Json,
}

/// Neither `text` nor `json`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a log format is text or json")]
pub struct ParseFormatError;

impl FromStr for Format {
    type Err = ParseFormatError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Format::Text),
            "json" => Ok(Format::Json),
            _ => Err(ParseFormatError),
        }
    }
}

/// The level that `log.level` and the number of `-v` make together: each `-v` asks for at least
/// `debug`, then `trace`.
#[must_use]
pub fn level(configured: LevelFilter, verbose: u8) -> LevelFilter {
    let asked = match verbose {
        0 => LevelFilter::OFF,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    configured.max(asked)
}

/// Starts logging to stderr, for the whole process. Colours only on a terminal and without
/// `NO_COLOR`.
///
/// # Errors
/// Logging was started before.
pub fn init(format: Format, level: LevelFilter) -> Result<(), TryInitError> {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colours = io::stderr().is_terminal() && !no_color;
    subscriber(format, level, colours, io::stderr).try_init()
}

fn subscriber<W>(
    format: Format,
    level: LevelFilter,
    colours: bool,
    writer: W,
) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let others = level.min(LevelFilter::WARN);
    let targets = Targets::new().with_target("walpost", level).with_default(others);
    let lines = tracing_subscriber::fmt::layer::<Registry>()
        .with_timer(Utc)
        .with_writer(writer)
        .with_ansi(colours && format == Format::Text)
        // Where a line comes from helps only the one who reads the code beside it.
        .with_target(level >= LevelFilter::DEBUG)
        .log_internal_errors(false);
    let lines = match format {
        Format::Text => lines.fmt_fields(debug_fn(text_field).delimited(" ")).boxed(),
        Format::Json => {
            let json = lines.json().flatten_event(true);
            json.with_current_span(false).with_span_list(false).boxed()
        }
    };
    tracing_subscriber::registry().with(lines.with_filter(targets))
}

/// The clock of the log lines.
struct Utc;

impl FormatTime for Utc {
    fn format_time(&self, to: &mut Writer<'_>) -> fmt::Result {
        to.write_str(&clock::rfc3339(clock::unix_now()))
    }
}

/// A field of a text line: the message as it is, others as `name=value`.
fn text_field(to: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    if field.name() != "message" {
        write!(to, "{field}=")?;
    }
    write!(Printable(to), "{value:?}")
}

/// Escapes control characters: what a peer said cannot end the line or steer the terminal.
struct Printable<'a, 'w>(&'a mut Writer<'w>);

impl fmt::Write for Printable<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(char::is_control) {
            let (plain, from) = rest.split_at(at);
            self.0.write_str(plain)?;
            let mut chars = from.chars();
            if let Some(control) = chars.next() {
                write!(self.0, "{}", control.escape_default())?;
            }
            rest = chars.as_str();
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Format, level: LevelFilter, events: impl FnOnce()) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = subscriber(format, level, false, move || writer.clone());
        tracing::subscriber::with_default(subscriber, events);
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_text_line_has_time_level_message_and_fields() {
        let line = logged(Format::Text, LevelFilter::INFO, || {
            tracing::info!(slot = "walpost", lsn = %crate::lsn::Lsn(26), "streaming");
        });
        let (time, rest) = line.split_at(24);
        assert!(time.ends_with('Z') && time.as_bytes()[10] == b'T', "{time}");
        assert_eq!(rest, "  INFO streaming slot=\"walpost\" lsn=0/1A\n");
    }

    #[test]
    fn a_json_line_has_each_field_by_its_name() {
        let line = logged(Format::Json, LevelFilter::INFO, || {
            tracing::warn!(slot = "walpost", attempts = 3, "cannot connect");
        });
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["level"], "WARN");
        assert_eq!(value["message"], "cannot connect");
        assert_eq!((&value["slot"], &value["attempts"]), (&"walpost".into(), &3.into()));
        assert_eq!(value["timestamp"].as_str().unwrap().len(), 24);
        assert!(line.ends_with("}\n"));
    }

    #[test]
    fn what_a_peer_says_stays_on_one_line() {
        for format in [Format::Text, Format::Json] {
            let text = logged(format, LevelFilter::INFO, || {
                let words =
                    "no such exchange\r\n2026-01-01T00:00:00.000Z  INFO all is well\n\x1b[2J";
                tracing::error!(%words, "refused: {words}");
            });
            assert_eq!(text.matches('\n').count(), 1, "{text}");
            assert!(!text.contains('\r') && !text.contains('\x1b'), "{text}");
        }
    }

    #[test]
    fn levels_hold_and_other_crates_speak_from_warn() {
        let events = || {
            tracing::debug!("ours, debug");
            tracing::info!("ours, info");
            tracing::info!(target: "hyper", "theirs, info");
            tracing::warn!(target: "hyper", "theirs, warn");
        };
        let lines = |level| logged(Format::Text, level, events).lines().count();
        assert_eq!(lines(LevelFilter::INFO), 2);
        assert_eq!(lines(LevelFilter::DEBUG), 3);
        assert_eq!(lines(LevelFilter::ERROR), 0);
        assert_eq!(lines(LevelFilter::OFF), 0);
    }

    #[test]
    fn verbose_only_ever_adds() {
        assert_eq!(level(LevelFilter::INFO, 0), LevelFilter::INFO);
        assert_eq!(level(LevelFilter::INFO, 1), LevelFilter::DEBUG);
        assert_eq!(level(LevelFilter::TRACE, 1), LevelFilter::TRACE);
        assert_eq!(level(LevelFilter::OFF, 7), LevelFilter::TRACE);
        assert_eq!("json".parse(), Ok(Format::Json));
        assert_eq!("xml".parse::<Format>(), Err(ParseFormatError));
    }
}
