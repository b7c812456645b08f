//! The integration tests: one binary, so that the servers are shared.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests"
)]

mod architecture;
mod first_start;
mod init;
mod kill;
mod load;
mod memory;
mod relay;
mod rig;
mod scene;
mod silence;
mod smoke;
mod store;
mod trouble;
