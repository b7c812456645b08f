//! What the operator sets: one YAML file and the environment.
//!
//! [`load`] reads everything in one pass and reports everything that is wrong at once. Each
//! section's module names its keys, their defaults and their bounds in one place (`read`), from
//! which come the values, the errors, the suggestions for misspelt keys, and what
//! [`Loaded::show`] prints. Keys that a later version brings are known, checked, and refused
//! where they would change what this version does (`later`).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

mod broker;
mod consumers;
mod later;
mod outbox;
mod postgres;
mod problem;
mod reader;
mod replication;
mod retry;
mod section;
mod shard;
mod show;
mod sources;
mod tree;
mod twin;
mod url;
mod values;

#[cfg(test)]
mod tests;

pub use broker::{
    Body, Broker, BrokerKind, BrokerTls, Delivery, Heartbeat, InFlight, Reconnect, TlsVersion,
};
pub use consumers::{Consumer, Handler};
pub use outbox::{AfterPublish, Layout, Outbox};
pub use postgres::{Postgres, PostgresTls, TlsMode};
pub use problem::{ConfigError, Origin, Problem};
pub use replication::{Failover, OnSlotLost, Replication};
pub use retry::{OnExhausted, Retry};
pub use sources::Sources;
pub use url::PostgresUrl;
pub use values::{HostPort, TableRef};

use reader::Reader;
use section::Section;
use show::Line;
use values::choice;

const MS_10: Duration = Duration::from_millis(10);
const MS_100: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const KIB: u64 = 1024;
const GIB: u64 = 1 << 30;

/// The whole configuration. Its fields are the keys of the YAML file, in the same order; sizes
/// are in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The server whose WAL is read.
    pub postgres: Postgres,
    /// The slot and the publication.
    pub replication: Replication,
    /// Which rows are messages.
    pub outbox: Outbox,
    /// The broker.
    pub broker: Broker,
    /// How long a destination is tried that the broker refuses.
    pub retry: Retry,
    /// What `run` consumes beside relaying.
    pub consumers: Vec<Consumer>,
    /// Health, metrics and the status page.
    pub http: Http,
    /// What is logged, and how.
    pub log: Log,
    /// How long a stop may wait for outstanding receipts.
    pub shutdown_timeout: Duration,
}

/// Health, metrics and the status page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// The address to listen on; `None`: no listener.
    pub listen: Option<HostPort>,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least important events that are logged.
    pub level: LogLevel,
    /// How a line looks.
    pub format: LogFormat,
}

choice! {
    /// The least important events that are logged.
    LogLevel {
        /// What an operator must act on.
        Error = "error",
        /// What may need an operator.
        Warn = "warn",
        /// What happens in a relay's life.
        Info = "info",
        /// What helps to find a fault.
        Debug = "debug",
        /// Every step.
        Trace = "trace",
    }
}

choice! {
    /// How a line of the log looks.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

impl Config {
    fn read(root: &mut Section<'_>) -> Config {
        let config = Config {
            postgres: root.section("postgres", postgres::read),
            replication: root.section("replication", replication::read),
            outbox: root.section("outbox", outbox::read),
            broker: root.section("broker", broker::read),
            retry: root.section("retry", retry::read),
            consumers: root.sections("consumers", consumers::read),
            http: root.section("http", |section| Http {
                listen: section.optional("listen", "127.0.0.1:9464", values::host_port),
            }),
            log: root.section("log", |section| Log {
                level: section.choice("level", LogLevel::Info),
                format: section.choice("format", LogFormat::Text),
            }),
            shutdown_timeout: root.duration("shutdown_timeout", "20s", Duration::ZERO..=HOUR),
        };
        shard::check(root, &config);
        config
    }
}

/// The defaults: what holds with no file and no variable.
impl Default for Config {
    fn default() -> Config {
        Reader::new(Vec::new(), Vec::new()).read(None, Config::read)
    }
}

/// A valid configuration and what is known about it.
#[derive(Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    lines: Vec<Line>,
}

impl Loaded {
    /// The effective configuration as YAML: secrets hidden, and after each value, as a comment,
    /// where it came from and whether only a later version does something with it.
    #[must_use]
    pub fn show(&self) -> String {
        show::yaml(&self.lines)
    }
}

/// Reads and checks a configuration.
///
/// # Errors
///
/// Everything that is wrong with it, together: syntax, unknown keys and variables, values out of
/// bounds, values that do not go together, secret files that cannot be read, and settings that
/// this version does not have.
pub fn load(sources: Sources) -> Result<Loaded, ConfigError> {
    let Sources { file, variables, near_misses, mut problems } = sources;
    let root = match file {
        None => None,
        Some((name, text)) => match tree::parse(&Arc::from(name), &text) {
            Ok(root) => Some(root),
            Err(syntax) => {
                problems.extend(syntax);
                return Err(ConfigError::new(problems));
            }
        },
    };
    let mut reader = Reader::new(variables, problems);
    let config = reader.read(root, Config::read);
    later::refuse(&config, &mut reader);
    let lines = reader.finish(&near_misses)?;
    Ok(Loaded { config, lines })
}

/// The file that is read where no other is named and it exists.
pub const DEFAULT_FILE: &str = "walpost.yaml";

/// [`Sources::file`] for the path that the operator named, else for [`DEFAULT_FILE`] if it
/// exists, else no file; and the process's environment in both cases.
///
/// # Errors
///
/// As [`Sources::file`].
pub fn find(named: Option<&Path>) -> Result<Sources, ConfigError> {
    let sources = Sources::default().environment(std::env::vars_os());
    match named {
        Some(path) => sources.file(path),
        None if Path::new(DEFAULT_FILE).exists() => sources.file(Path::new(DEFAULT_FILE)),
        None => Ok(sources),
    }
}
