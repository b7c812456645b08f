//! Consumers: a subscription, and what handles its messages, each once.
//!
//! To follow a message: [`link`] makes the connection and the subscription, [`desk`] reads the message
//! and puts it into a queue of [`order`], [`worker`] looks into the inbox and has it handled
//! ([`exec`], [`http`], [`mod@print`], or the function that the inbox itself calls), and the desk answers
//! the broker. What differs from broker to broker is in [`profile`].

mod answers;
mod ask;
mod desk;
mod exec;
mod http;
mod link;
mod message;
mod order;
mod print;
pub mod profile;
mod pruning;
mod settings;
mod worker;

pub use desk::run;
pub use http::UrlError;
pub use settings::{Handler, Patience, Retry, Settings, last_part};

/// The consumer ended without being told to: an operator must act.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct End(String);
