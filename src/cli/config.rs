//! `walpost config show` and `walpost config check`.

use super::exit::{Exit, print};
use crate::config::Loaded;

/// Prints the configuration.
pub(super) fn show(loaded: &Loaded) -> Exit {
    print(&loaded.show())
}

/// Says that the configuration is valid, and which one it is.
pub(super) fn valid(file: Option<&str>) -> Exit {
    let what = match file {
        Some(file) => format!("{file} and the environment"),
        None => format!(
            "the environment and the defaults (no --config, no {})",
            crate::config::DEFAULT_FILE
        ),
    };
    print(&format!("ok: {what}\n"))
}
