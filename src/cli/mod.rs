//! The command line: what can be typed, and which exit status answers.
//!
//! Errors are one line on standard error each: what, where, and how to mend it.

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};

pub mod args;
mod config;
pub mod exit;
mod init;
mod run;
mod send;
mod subscribe;
mod undelivered;

#[cfg(test)]
mod tests;

use crate::config::{ConfigError, Loaded, Sources};
use crate::relay::from_config;
use args::{Cli, Command, ConfigCommand, Format, Globals};
use exit::{Exit, complain, print};

/// Runs the program with its arguments, the first of which is its name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    exit::one_line_panics();
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    // The hook has printed the panic's line already.
    catch_unwind(AssertUnwindSafe(|| match Cli::try_parse_from(arguments) {
        Ok(cli) => dispatch(cli),
        Err(error) => answer(&error),
    }))
    .unwrap_or(Exit::Failed)
}

fn dispatch(Cli { globals, command }: Cli) -> Exit {
    match command {
        Command::Run(flags) => with_files(&globals, |loaded, _| block_on(run::run(flags, loaded))),
        Command::Init(flags) => {
            with_files(&globals, |loaded, _| block_on(init::run(flags, loaded)))
        }
        Command::Undelivered(command) => {
            with_files(&globals, |loaded, _| block_on(undelivered::run(command, loaded)))
        }
        Command::Send(flags) => {
            with_files(&globals, |loaded, _| block_on(send::run(flags, loaded)))
        }
        Command::Subscribe(flags) => {
            with_files(&globals, |loaded, _| block_on(subscribe::run(flags, loaded)))
        }
        Command::Config(ConfigCommand::Show) => {
            with_config(&globals, |loaded, _| config::show(&loaded))
        }
        Command::Config(ConfigCommand::Check) => {
            with_files(&globals, |_, file| config::valid(file))
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "walpost", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
    }
}

/// Does the work with the configuration, or says what is wrong with it.
fn with_config(globals: &Globals, work: impl FnOnce(Loaded, Option<&str>) -> Exit) -> Exit {
    match load(globals) {
        Ok((file, loaded)) => work(loaded, file.as_deref()),
        Err(error) => {
            complain(error);
            Exit::Usage
        }
    }
}

/// The same where the certificates and keys that the configuration names are right, too.
fn with_files(globals: &Globals, work: impl FnOnce(Loaded, Option<&str>) -> Exit) -> Exit {
    with_config(globals, |loaded, file| match from_config::check_tls(&loaded.config) {
        Ok(()) => work(loaded, file),
        Err(wrong) => {
            wrong.iter().for_each(complain);
            Exit::Usage
        }
    })
}

/// Reads the configuration that the flags name; gives the file's name, too.
fn load(globals: &Globals) -> Result<(Option<String>, Loaded), ConfigError> {
    // An empty variable is one that a deployment left unset.
    let variable = || std::env::var_os("WALPOST_CONFIG").filter(|path| !path.is_empty());
    let named = globals.config.clone().or_else(|| variable().map(PathBuf::from));
    let sources = flags(crate::config::find(named.as_deref())?, globals);
    let file = sources.file_name().map(str::to_owned);
    crate::config::load(sources).map(|loaded| (file, loaded))
}

/// The flags that stand for a setting, so that `config show` names them, too.
fn flags(mut sources: Sources, globals: &Globals) -> Sources {
    if let Some(format) = globals.log_format {
        let format = match format {
            Format::Text => "text",
            Format::Json => "json",
        };
        sources = sources.flag("--log-format", "log.format", format);
    }
    match globals.verbose {
        0 => sources,
        1 => sources.flag("-v", "log.level", "debug"),
        _ => sources.flag("-vv", "log.level", "trace"),
    }
}

/// Runs to its end on one thread: the relay is one task, and PostgreSQL and the broker need the
/// other cores.
fn block_on(command: impl Future<Output = Exit>) -> Exit {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(command),
        Err(error) => {
            complain(format_args!("cannot start the runtime: {error}"));
            Exit::Failed
        }
    }
}

/// Answers what could not be parsed: help and version as they are, an error as one line.
fn answer(error: &clap::Error) -> Exit {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // `print` adds colours for a terminal.
            let _ = error.print();
            Exit::Done
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            Exit::Usage
        }
        _ => {
            complain(one_line(&error.to_string()));
            Exit::Usage
        }
    }
}

/// An error of the parser, which has several lines, as one.
fn one_line(error: &str) -> String {
    let error = error.strip_prefix("error: ").unwrap_or(error);
    let parts: Vec<&str> = error
        .lines()
        .map(str::trim)
        .filter(|line| {
            !line.is_empty()
                && !line.starts_with("Usage:")
                && !line.starts_with("For more information")
        })
        .map(|line| line.strip_prefix("tip: ").unwrap_or(line))
        .collect();
    let text = parts.iter().fold(String::new(), |text, part| match text.as_str() {
        "" => (*part).to_owned(),
        list if list.ends_with(':') => format!("{text} {part}"),
        _ => format!("{text}; {part}"),
    });
    format!("{text} (walpost --help says more)")
}
