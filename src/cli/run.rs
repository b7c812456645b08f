//! `walpost run`.

use super::args;
use super::exit::{Exit, complain};
use crate::config::Loaded;

/// Relays until stopped.
pub(super) async fn run(flags: args::Run, _loaded: Loaded) -> Exit {
    if flags.recover {
        complain("run --recover is not in this version; leave it out");
        return Exit::Usage;
    }
    complain("run is not built yet");
    Exit::Failed
}
