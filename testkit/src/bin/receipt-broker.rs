//! A broker that only answers receipts, in a process of its own: the other end of the benchmarks.
//!
//! Prints `127.0.0.1:PORT`, then, at each line on standard input, the number of SENDs so far. Ends with its input.

use std::io::{BufRead, Write};

use walpost_testkit::ScriptedBroker;

fn main() -> std::io::Result<()> {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok()).unwrap_or(0);
    let broker = ScriptedBroker::builder().count_only().start_on(port);
    let mut out = std::io::stdout();
    writeln!(out, "{}", broker.address())?;
    for line in std::io::stdin().lock().lines() {
        line?;
        writeln!(out, "{}", broker.sends())?;
    }
    Ok(())
}
