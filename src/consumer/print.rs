//! Messages as lines of JSON on standard output.

use std::io::{self, Write as _};

use super::message::Message;

/// Writes the line; on a thread of its own, since whoever reads may be slow.
///
/// # Errors
/// Standard output takes no more.
pub(super) async fn print(message: &Message) -> io::Result<()> {
    let mut line = message.line();
    line.push('\n');
    let written = tokio::task::spawn_blocking(move || {
        let mut out = io::stdout().lock();
        out.write_all(line.as_bytes()).and_then(|()| out.flush())
    });
    written.await.unwrap_or_else(|error| Err(io::Error::other(error)))
}
