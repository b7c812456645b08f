//! `walpost init`.

use std::io::Write;

use super::args;
use super::exit::{Exit, complain};
use crate::config::Loaded;
use crate::ops::init;
use crate::relay::first_start;
use crate::relay::from_config;
use crate::store::setup::Event;

/// Makes what is missing in the database, or prints how.
pub(super) async fn run(flags: args::Init, loaded: Loaded) -> Exit {
    let wanted = match from_config::first_start(&loaded.config) {
        Ok(wanted) => wanted,
        Err(error) => {
            complain(error);
            return Exit::Usage;
        }
    };
    let mut out = std::io::stdout();
    if flags.dry_run {
        return match init::dry_run(&wanted.sql, &wanted.setup, &mut out).await {
            Ok(()) => Exit::Done,
            Err(error) => {
                complain(error);
                Exit::Failed
            }
        };
    }
    // A closed pipe must not leave the work half done.
    let mut say = |event: Event<'_>| {
        let _ = writeln!(out, "{event}").and_then(|()| out.flush());
    };
    let made = match flags.adopt {
        true => first_start::adopt(&wanted, &mut say).await,
        false => Ok(()),
    };
    let made = match made {
        Ok(()) => first_start::prepare(&wanted, &mut say).await,
        Err(error) => Err(error),
    };
    match made {
        Ok(()) => Exit::Done,
        Err(error) => {
            match error.remedy() {
                Some(remedy) => complain(format_args!("{error}; {remedy}")),
                None => complain(format_args!("{error}{}", error.hint())),
            }
            Exit::Failed
        }
    }
}
