//! What can be typed.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

pub mod send;
pub mod subscribe;
pub mod undelivered;

use send::Send;
use subscribe::Subscribe;
use undelivered::UndeliveredCommand;

const ABOUT: &str = "Relays a PostgreSQL transactional outbox to a STOMP broker and loses nothing";

const LONG_ABOUT: &str = "\
Relays a PostgreSQL transactional outbox to a STOMP broker and loses nothing.

walpost reads one logical replication slot, turns each row that is inserted into the outbox into \
a STOMP message, and tells PostgreSQL that a position is done only after the broker has sent the \
receipt of every message up to it. A crash at any moment loses nothing; it can only repeat \
messages, each with the same msg-id.";

const EXAMPLES: &str = "\
Examples:
  walpost init --dry-run    print the SQL that prepares the database; change nothing
  walpost init              prepare the database
  walpost run               relay until stopped
  walpost subscribe /topic/orders.v1 --call on_order   have each message handled once
  walpost undelivered list  see what the broker refuses, and the dead letters
  walpost config show       print every setting, its value and where it came from

Every setting can also be an environment variable: WALPOST__ and the path, as in
WALPOST__BROKER__HOSTS=a:61613,b:61613. The environment wins over the file.

Exit status: 0 done; 1 it could not be done; 2 wrong usage or configuration; 3 stopped for good,
an operator must act.";

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "walpost", version, about = ABOUT, long_about = LONG_ABOUT, after_help = EXAMPLES)]
#[command(arg_required_else_help = true, max_term_width = 100, disable_help_subcommand = true)]
pub struct Cli {
    /// Flags that every command takes.
    #[command(flatten)]
    pub globals: Globals,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that every command takes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// Configuration file, YAML [env: WALPOST_CONFIG] [default: walpost.yaml if it exists]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How a line of the log looks; wins over log.format
    #[arg(long, global = true, value_name = "FORMAT")]
    pub log_format: Option<Format>,
    /// Log more: -v debug, -vv trace; wins over log.level
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    #[expect(missing_docs, reason = "a docstring would swell the help")]
    Text,
    #[expect(missing_docs, reason = "a docstring would swell the help")]
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Relay until stopped
    ///
    /// Relays until stopped. On the first start it makes what is missing in the database, as
    /// 'walpost init' would, unless replication.create is false.
    ///
    /// SIGTERM and SIGINT end it in order: it stops reading, waits for outstanding receipts (at
    /// most shutdown_timeout), confirms the position and exits with 0. A second walpost on the
    /// same slot waits and takes over when the first one ends.
    #[command(after_help = RUN_EXAMPLES)]
    Run(Run),
    /// Prepare the database: schema, publication and slot
    ///
    /// Makes what is missing: the schema walpost, the publication and the replication slot, in
    /// the order that loses nothing. It can be run again at any time; what is there stays.
    ///
    /// It needs a role that may create them; --dry-run prints the smallest grants.
    #[command(after_help = INIT_EXAMPLES)]
    Init(Init),
    /// See what the broker refuses, and the dead letters: list, show, retry, discard
    ///
    /// What a broker refuses is kept in the table walpost.undelivered and tried again; after
    /// retry.max_attempts it is a dead letter, and waits for you. Works while a walpost runs and while
    /// none does, for the slot of the configuration.
    #[command(subcommand, arg_required_else_help = true)]
    Undelivered(UndeliveredCommand),
    /// Send one message straight to the broker
    ///
    /// Sends one message to the broker of the configuration, with the headers that the relay would give
    /// it, and waits for its receipt (at most broker.receipt_timeout). PostgreSQL is not asked. What is no
    /// JSON goes as application/octet-stream unless a header content-type says otherwise.
    #[command(after_help = send::EXAMPLES)]
    Send(Send),
    /// Read messages from the broker, and have each handled once
    ///
    /// Subscribes to a destination and has each message handled by a SQL function, a URL or a command; without
    /// one it prints the messages, one JSON object a line. What was handled is noted in walpost.inbox, so that
    /// a message that comes again is not handled again. What can't be handled goes to the dead letters.
    ///
    /// The broker and the database are those of the configuration. Of a consumer of the configuration with this
    /// destination and queue, prefetch, concurrency and headers count here, too.
    ///
    /// SIGTERM and SIGINT end it in order: what is being handled is finished and acknowledged.
    #[command(after_help = subscribe::EXAMPLES)]
    Subscribe(Subscribe),
    /// Show or check the configuration
    #[command(subcommand, arg_required_else_help = true)]
    Config(ConfigCommand),
    /// Print the completions of a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// The shell
        shell: Shell,
    },
}

const RUN_EXAMPLES: &str = "\
Examples:
  walpost run
  walpost run --config /etc/walpost/walpost.yaml --log-format json
  walpost run --recover                   the slot was lost, or the publication changed
  WALPOST__BROKER__HOSTS=rabbit:61613 WALPOST__BROKER__PASSCODE_FILE=/run/secrets/stomp walpost run";

const INIT_EXAMPLES: &str = "\
Examples:
  walpost init --dry-run              see what it would do
  walpost init --dry-run | psql …     have it done by a superuser
  walpost init                        do it";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  walpost completions bash > /etc/bash_completion.d/walpost
  walpost completions fish > ~/.config/fish/completions/walpost.fish";

/// Flags of `run`.
#[derive(Clone, Debug, Args)]
pub struct Run {
    /// First publish what is not known to be delivered
    ///
    /// Publishes out of the table the rows that the certified snapshot does not cover, then reads the
    /// slot. For after a slot was lost (it is made again) or the publication was changed. Nothing is
    /// missed; the last seconds before may come twice, with the same msg-id.
    #[arg(long)]
    pub recover: bool,
}

/// Flags of `init`.
#[derive(Clone, Debug, Args)]
pub struct Init {
    /// Print the SQL and change nothing
    ///
    /// Prints the SQL that would be run, and before it the role and the grants that walpost needs
    /// to run as somebody who may do no more. init itself makes no role.
    #[arg(long)]
    pub dry_run: bool,
    /// Take over the relay row of another cluster
    ///
    /// For a restored dump or an upgraded server: the row in walpost.relay is of the old one. Says what
    /// it assumes: nothing in the outbox is known to be delivered, so every row is published again.
    #[arg(long)]
    pub adopt: bool,
}

/// What to do with the configuration.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every setting, its value and where it came from
    ///
    /// Prints the effective configuration as YAML: every key, its value, and as a comment where
    /// the value came from (the file and its line, an environment variable, or the default).
    /// Secrets are hidden, so that the output can be shown to anybody.
    Show,
    /// Check the configuration and report everything that is wrong
    ///
    /// Reads the file and the environment and reports every problem, one a line, with the key and
    /// the place. It connects to nothing. The exit status is 0 where 'walpost run' would take the
    /// configuration, else 2.
    Check,
}
