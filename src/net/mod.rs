//! Sockets: TCP and Unix connections with the options that a relay wants. TLS joins here.

mod stream;

pub use stream::{Address, ConnectError, Stream, connect};
