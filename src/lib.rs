//! walpost relays a PostgreSQL transactional outbox from the write-ahead log to a STOMP broker.
//!
//! The way of a row, in the order in which a reader may follow it:
//! `source` → `pgoutput` → `outbox` → `engine` → `broker`, and back from the broker's receipt to
//! the position confirmed to PostgreSQL. `docs/design.md` draws the picture and gives each
//! module its rank; `tests/it/architecture.rs` holds the code to it.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

// Rank 0: words that every other module uses.
pub mod lsn;
pub mod pgtime;
pub mod secret;
pub mod template;

// Rank 1: wire formats, sans-I/O.
pub mod pgoutput;
pub mod pgwire;
pub mod stomp;

// Rank 2: what a row becomes, and what is in flight; pure.
pub mod engine;
pub mod outbox;

// Rank 3: what the operator sets and sees.
pub mod config;
pub mod telemetry;

// Rank 4: sockets.
pub mod net;

// Rank 5: the three peers.
pub mod broker;
pub mod source;
pub mod store;

// Rank 6: programs made of the above.
pub mod consumer;
pub mod ops;
pub mod relay;

// Rank 7 and 8: the outside.
pub mod cli;
pub mod http;
