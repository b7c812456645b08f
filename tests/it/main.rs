//! The integration tests: one binary, so that the servers are shared.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests"
)]

mod architecture;
mod bodies;
mod django;
mod door;
mod idle;
mod layouts;
mod login;
mod memory;
mod refusals;
mod relay;
mod rig;
mod scene;
mod smoke;
mod trouble;
