//! The arguments of `walpost undelivered`.

use clap::{Args, Subcommand, ValueEnum};

/// What is to be done with refused messages.
#[derive(Clone, Debug, Subcommand)]
pub enum UndeliveredCommand {
    /// List what the broker refuses and the dead letters
    ///
    /// Lists the newest messages first: those that are tried again (retrying) and the dead letters
    /// (dead). Only the first message of a destination is tried; the others wait behind it.
    #[command(after_help = LIST_EXAMPLES)]
    List(List),
    /// Show one message with its headers and its body
    #[command(after_help = SHOW_EXAMPLES)]
    Show(Show),
    /// Have messages sent again
    ///
    /// A dead letter retries, with no attempt counted, in its place among those of its destination;
    /// what retries already is due now. A running walpost sees it within seconds.
    #[command(after_help = RETRY_EXAMPLES)]
    Retry(Retry),
    /// Throw messages away, for good
    ///
    /// Body and headers are gone at once; the rest of the row goes by itself, when the message cannot
    /// come again. What should still be sent is to be published anew.
    #[command(after_help = DISCARD_EXAMPLES)]
    Discard(Discard),
}

const LIST_EXAMPLES: &str = "\
Examples:
  walpost undelivered list
  walpost undelivered list --state dead --destination /queue/orders.v1
  walpost undelivered list --json | jq -r .error | sort | uniq -c";

const SHOW_EXAMPLES: &str = "\
Examples:
  walpost undelivered show 42
  walpost undelivered show 42 --body > message.json";

const RETRY_EXAMPLES: &str = "\
Examples:
  walpost undelivered retry 42 43
  walpost undelivered retry --destination /queue/orders.v1
  walpost undelivered retry --all";

const DISCARD_EXAMPLES: &str = "\
Examples:
  walpost undelivered show 42       what goes?
  walpost undelivered discard 42";

/// Flags of `undelivered list`.
#[derive(Clone, Debug, Args)]
pub struct List {
    /// Only those of this destination
    #[arg(long, value_name = "DESTINATION")]
    pub destination: Option<String>,
    /// Only those in this state
    #[arg(long, value_name = "STATE")]
    pub state: Option<State>,
    /// At most so many [default: 100; with --json all]
    #[arg(long, value_name = "N", conflicts_with = "all")]
    pub limit: Option<u32>,
    /// All of them
    #[arg(long)]
    pub all: bool,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// The state of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum State {
    #[expect(missing_docs, reason = "a docstring would swell the help")]
    Retrying,
    #[expect(missing_docs, reason = "a docstring would swell the help")]
    Dead,
    #[expect(missing_docs, reason = "a docstring would swell the help")]
    Discarded,
}

/// Flags of `undelivered show`.
#[derive(Clone, Copy, Debug, Args)]
pub struct Show {
    /// The message's number, the first column of the list
    #[arg(value_parser = clap::value_parser!(i64).range(1..))]
    pub id: i64,
    /// Write the body as it is, and nothing else
    #[arg(long)]
    pub body: bool,
}

/// Flags of `undelivered retry`.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Retry {
    /// Numbers of messages, the first column of the list
    #[arg(value_name = "ID", value_parser = clap::value_parser!(i64).range(1..))]
    pub ids: Vec<i64>,
    /// Those of this destination
    #[arg(long, value_name = "DESTINATION")]
    pub destination: Option<String>,
    /// All of them
    #[arg(long)]
    pub all: bool,
}

/// Flags of `undelivered discard`.
#[derive(Clone, Debug, Args)]
pub struct Discard {
    /// Numbers of messages, the first column of the list
    #[arg(value_name = "ID", required = true, value_parser = clap::value_parser!(i64).range(1..))]
    pub ids: Vec<i64>,
}
