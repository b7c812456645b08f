//! What is typed, and what is answered.

use clap::CommandFactory as _;
use proptest::prelude::*;

use super::args::{Command, ConfigCommand};
use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("walpost").chain(line.split_whitespace()))
}

fn parsed(line: &str) -> Cli {
    parse(line).unwrap_or_else(|error| panic!("{error}"))
}

/// The one line that answers a line that cannot be parsed.
fn refused(line: &str) -> String {
    one_line(&parse(line).unwrap_err().to_string())
}

#[test]
fn the_parser_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn commands_and_flags_are_understood() {
    assert!(matches!(parsed("run").command, Command::Run(args::Run { recover: false })));
    assert!(matches!(parsed("run --recover").command, Command::Run(args::Run { recover: true })));
    let init = parsed("init --dry-run").command;
    assert!(matches!(init, Command::Init(args::Init { dry_run: true, adopt: false })));
    assert!(matches!(parsed("config show").command, Command::Config(ConfigCommand::Show)));
    assert!(matches!(parsed("config check").command, Command::Config(ConfigCommand::Check)));
    assert!(matches!(parsed("completions bash").command, Command::Completions { .. }));

    let Command::Subscribe(flags) = parsed("subscribe /queue/q --queue a --exec sh -c -v").command
    else {
        panic!("another command")
    };
    assert_eq!((flags.destination.as_str(), flags.queue.as_deref()), ("/queue/q", Some("a")));
    assert_eq!(flags.exec, ["sh", "-c", "-v"]);
    let two = refused("subscribe /queue/q --call f --http http://a/");
    assert!(two.contains("cannot be used with"), "{two}");

    let globals = parsed("run -vv --config a.yaml --log-format json").globals;
    assert_eq!(globals.config.as_deref(), Some(std::path::Path::new("a.yaml")));
    assert_eq!((globals.log_format, globals.verbose), (Some(Format::Json), 2));
}

#[test]
fn a_wrong_line_is_answered_by_one_line() {
    for (line, answer) in [
        (
            "runn",
            "unrecognized subcommand 'runn'; a similar subcommand exists: 'run' (walpost --help says more)",
        ),
        (
            "run --confg x",
            "unexpected argument '--confg' found; a similar argument exists: '--config' (walpost --help says more)",
        ),
        (
            "run --log-format xml",
            "invalid value 'xml' for '--log-format <FORMAT>'; [possible values: text, json] (walpost --help says more)",
        ),
        (
            "completions",
            "the following required arguments were not provided: <SHELL> (walpost --help says more)",
        ),
    ] {
        assert_eq!(refused(line), answer);
    }
}

#[test]
fn flags_set_what_they_stand_for() {
    let sources = |line: &str| flags(Sources::default(), &parsed(line).globals);
    let log = |line: &str| crate::config::load(sources(line)).unwrap().config.log;
    use crate::config::{LogFormat, LogLevel};
    assert_eq!((log("run").level, log("run").format), (LogLevel::Info, LogFormat::Text));
    assert_eq!(log("run -v").level, LogLevel::Debug);
    assert_eq!(log("run -vvv").level, LogLevel::Trace);
    assert_eq!(log("run --log-format json").format, LogFormat::Json);
}

#[test]
fn every_command_has_a_help_of_both_lengths() {
    let mut command = Cli::command();
    assert!(command.render_long_help().to_string().contains("Exit status"));
    for command in command.get_subcommands_mut() {
        assert!(command.get_about().is_some(), "{}", command.get_name());
        assert!(!command.render_help().to_string().is_empty());
    }
}

#[test]
fn statuses_are_the_documented_numbers() {
    let numbers = [Exit::Done, Exit::Failed, Exit::Usage, Exit::Stopped].map(|exit| exit as u8);
    assert_eq!(numbers, [0, 1, 2, 3]);
}

proptest! {
    #[test]
    fn any_line_is_parsed_or_answered_by_one_line(words in proptest::collection::vec("[a-z-]{0,10}|run|config|--config|\\PC{0,5}", 0..5)) {
        let line = std::iter::once("walpost".to_owned()).chain(words);
        if let Err(error) = Cli::try_parse_from(line)
            && !matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion)
        {
            prop_assert_eq!(one_line(&error.to_string()).lines().count(), 1);
        }
    }
}
