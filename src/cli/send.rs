//! `walpost send`.

use std::io::{self, Read as _};
use std::time::{Duration, SystemTime};

use super::args::send::Send;
use super::exit::{Exit, complain, print};
use crate::config::Loaded;
use crate::ops::send::{self, Letter};
use crate::pgtime::PgTime;
use crate::relay::from_config;

/// Sends one message and waits for its receipt.
pub(super) async fn run(flags: Send, loaded: Loaded) -> Exit {
    let settings = match from_config::settings(&loaded.config) {
        Ok(settings) => settings,
        Err(error) => {
            complain(error);
            return Exit::Usage;
        }
    };
    let Send { destination, body, version, headers } = flags;
    let body = match body.as_deref() {
        // What is too large for a frame need not be read to its end.
        Some("-") => read(settings.max_frame_size.saturating_add(1)),
        text => Ok(text.unwrap_or_default().as_bytes().to_vec()),
    };
    let body = match body {
        Ok(body) => body,
        Err(error) => {
            complain(format_args!("reading the body from standard input: {error}"));
            return Exit::Failed;
        }
    };
    let since_unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = PgTime::from_unix(since_unix.unwrap_or(Duration::ZERO));
    let letter = Letter { destination, version, headers, body };
    let patience = settings.engine.receipt_timeout;
    match send::send(&settings.broker, settings.outbox, patience, now, &letter).await {
        Ok(line) => print(&line),
        Err(error) => {
            complain(error);
            Exit::Failed
        }
    }
}

fn read(most: usize) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    let most = u64::try_from(most).unwrap_or(u64::MAX);
    io::stdin().lock().take(most).read_to_end(&mut body)?;
    Ok(body)
}
