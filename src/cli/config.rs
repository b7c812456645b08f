//! `walpost config show` and `walpost config check`.

use super::args::ConfigCommand;
use super::exit::{Exit, print};
use crate::config::Loaded;

/// Prints the configuration, or that it is valid.
pub(super) fn run(command: ConfigCommand, loaded: &Loaded, file: Option<&str>) -> Exit {
    match command {
        ConfigCommand::Show => print(&loaded.show()),
        ConfigCommand::Check => {
            let what = match file {
                Some(file) => format!("{file} and the environment"),
                None => format!(
                    "the environment and the defaults (no --config, no {})",
                    crate::config::DEFAULT_FILE
                ),
            };
            print(&format!("ok: {what}\n"))
        }
    }
}
