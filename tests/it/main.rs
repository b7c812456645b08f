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
mod brokers;
mod certified;
mod consume;
mod deploy;
mod django;
mod door;
mod emitted;
mod failover;
mod first_start;
mod guard;
mod idle;
mod image;
mod init;
mod kill;
mod lanes;
mod large;
mod layouts;
mod load;
mod login;
mod lost_slot;
mod marking;
mod memory;
mod papers;
mod parking;
mod patience;
mod publish_on;
mod recovery;
mod refusals;
mod relay;
mod retention;
mod rig;
mod scene;
mod send;
mod settings;
mod shards;
mod shutdown;
mod silence;
mod slot_danger;
mod smoke;
mod store;
mod survives;
mod thaw;
mod tls;
mod transactions;
mod trouble;
mod undelivered;
mod unfit;
