//! Real and scripted servers for walpost's tests, demo and benchmarks.
//!
//! Every fixture is private to the process that starts it: free ports on 127.0.0.1, data in a temporary folder,
//! ended on drop. What drop does not reach (a static, a panic that aborts, Ctrl-C, SIGKILL) the [`sandbox`]'s watchdog
//! ends. A fixture that cannot start panics and says why: a missing server is a failed test, never a skipped one.
//!
//! Nothing here uses walpost's own code. The STOMP parser is a second, independent one on purpose.
#![forbid(unsafe_code)]

pub mod authority;
pub mod consumer;
pub mod crossroads;
pub mod http;
pub mod jvm;
pub mod ports;
pub mod postgres;
pub mod python;
pub mod rabbitmq;
pub mod sandbox;
pub mod scripted;
pub mod session;
pub mod stomp;
pub mod tls_door;
pub mod wait;
pub mod walpost;

pub use authority::{Authority, Identity};
pub use consumer::{Ack, Consumer, Message};
pub use crossroads::Crossroads;
pub use jvm::{ActiveMq, Artemis};
pub use postgres::{Database, Postgres};
pub use rabbitmq::{RabbitMq, Vhost};
pub use scripted::{Receipts, ScriptedBroker, Verdict};
pub use session::{Said, Session};
pub use tls_door::TlsDoor;
pub use wait::{eventually, until, until_some};
pub use walpost::Walpost;

/// What [`sandbox::send`] and [`Walpost::signal`] take.
pub use rustix::process::Signal;
