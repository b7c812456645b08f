//! Sockets: TCP and Unix connections with the options that a relay wants, with TLS or without.

mod exposed;
mod logins;
mod postgres;
mod stream;
pub mod tls;

pub use exposed::PlainPassword;
pub use logins::{LOGINS, Logins};
pub use postgres::{Demand, PostgresTls, connect_postgres};
pub use stream::{Address, ConnectError, Stream, connect};
