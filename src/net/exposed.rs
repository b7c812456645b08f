//! A password that anybody on the way can read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::warn;

use super::{Address, Stream};

/// Says once, not at each connection, that a password is sent in plain text to another machine.
#[derive(Clone, Debug, Default)]
pub struct PlainPassword(Arc<AtomicBool>);

impl PlainPassword {
    /// The password itself was sent on `stream`; `remedy` is what to set.
    pub fn sent(&self, stream: &Stream, address: &Address, remedy: &str) {
        let is_exposed = stream.cipher().is_none() && !address.is_local();
        if is_exposed && !self.0.swap(true, Ordering::Relaxed) {
            warn!(host = %address, "the password is sent in plain text to another machine; {remedy}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_known_by_its_addresses_and_by_its_name() {
        let at = |host: &str| Address::Tcp(host.to_owned(), 1).is_local();
        assert!(at("127.0.0.1") && at("127.8.0.1") && at("::1") && at("LOCALHOST"));
        assert!(!at("10.0.0.1") && !at("db.example") && !at("0.0.0.0") && !at("localhost.example"));
        assert!(Address::Unix("/run/postgresql".into()).is_local());
    }
}
