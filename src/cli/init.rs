//! `walpost init`.

use super::args;
use super::exit::{Exit, complain};
use crate::config::Loaded;

/// Makes what is missing in the database, or prints how.
pub(super) async fn run(flags: args::Init, _loaded: Loaded) -> Exit {
    if flags.adopt {
        complain("init --adopt is not in this version; leave it out");
        return Exit::Usage;
    }
    complain("init is not built yet");
    Exit::Failed
}
