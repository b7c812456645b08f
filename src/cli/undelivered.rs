//! `walpost undelivered`.

use std::io::IsTerminal as _;

use super::args::undelivered::{List, Retry, Show, State, UndeliveredCommand};
use super::exit::{Exit, complain, print, print_bytes};
use crate::config::Loaded;
use crate::ops::undelivered::{Counter, Listing, UndeliveredError};
use crate::relay::from_config;
use crate::store::undelivered::{Filter, RowState, Which};

/// So many are listed where nothing else is asked for.
const FEW: u32 = 100;

/// Looks at what the broker refuses, and has something done with it.
pub(super) async fn run(command: UndeliveredCommand, loaded: Loaded) -> Exit {
    let counter = match from_config::first_start(&loaded.config) {
        Ok(wanted) => {
            Counter { connect: wanted.sql, slot: wanted.setup.slot, marks: wanted.setup.marks }
        }
        Err(error) => {
            complain(error);
            return Exit::Usage;
        }
    };
    let done = match command {
        UndeliveredCommand::List(flags) => list(&counter, flags).await,
        UndeliveredCommand::Show(Show { id, body: true }) => {
            counter.body(id).await.map(|body| print_bytes(&body))
        }
        UndeliveredCommand::Show(Show { id, body: false }) => {
            counter.show(id).await.map(|text| print(&text))
        }
        UndeliveredCommand::Retry(flags) => retry(&counter, flags).await,
        UndeliveredCommand::Discard(flags) => {
            counter.discard(&flags.ids).await.map(|done| print(&done))
        }
    };
    done.unwrap_or_else(|error| {
        complain(error);
        Exit::Failed
    })
}

async fn list(counter: &Counter, flags: List) -> Result<Exit, UndeliveredError> {
    let state = flags.state.map(|state| match state {
        State::Retrying => RowState::Retrying,
        State::Dead => RowState::Dead,
        State::Discarded => RowState::Discarded,
    });
    let all = flags.all || flags.json;
    let listing = Listing {
        filter: Filter { destination: flags.destination, state },
        most: flags.limit.or((!all).then_some(FEW)),
        width: width(),
    };
    let text = match flags.json {
        true => counter.list_json(&listing).await?,
        false => counter.list(&listing).await?,
    };
    Ok(print(&text))
}

async fn retry(counter: &Counter, flags: Retry) -> Result<Exit, UndeliveredError> {
    let which = match flags.destination {
        Some(destination) => Which::Destination(destination),
        None if flags.all => Which::All,
        None => Which::Ids(flags.ids),
    };
    counter.retry(&which).await.map(|done| print(&done))
}

/// How many columns a line has; none: nobody looks at it.
fn width() -> Option<usize> {
    let is_terminal = std::io::stdout().is_terminal();
    let (width, _) = is_terminal.then(terminal_size::terminal_size).flatten()?;
    Some(width.0.into())
}
