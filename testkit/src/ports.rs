//! Free TCP ports on 127.0.0.1 for servers.

use std::collections::HashSet;
use std::net::TcpListener;
use std::sync::{LazyLock, Mutex};

// Below Linux's range of ephemeral ports: a port from that range may be taken by any outgoing connection while its
// server is down, and a server that cannot come back on its own port spoils every restart test.
const LOWEST: u16 = 15_000;
const HIGHEST: u16 = 32_000;

static TAKEN: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);

/// A port that nobody listens on and that this process has not given out before.
///
/// Another process may still take it before its server listens; fixtures then start again on another one.
#[must_use]
pub fn free() -> u16 {
    let mut taken = TAKEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    for _ in 0..10_000 {
        let port = fastrand::u16(LOWEST..HIGHEST);
        if !taken.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            taken.insert(port);
            return port;
        }
    }
    panic!("no free TCP port between {LOWEST} and {HIGHEST}");
}
