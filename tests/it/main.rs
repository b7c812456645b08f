//! The integration tests: one binary, so that the servers are shared.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod smoke;
