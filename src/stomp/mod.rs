//! A STOMP client without sockets or clocks: bytes in, events out.
//!
//! Version 1.2 is asked for, 1.1 and 1.0 are taken. The chapters named in these files are those of
//! the STOMP specification, <https://stomp.github.io/stomp-specification-1.2.html>.
//!
//! - [`escape`]: what a header can carry, and how it is written, per version;
//! - [`encode`]: client frames into a buffer; [`consume`]: those of a consumer;
//! - [`decode`]: a buffer into what the broker sent;
//! - [`session`]: one connection: CONNECT, versions, heart-beats, events.
//!
//! Encoding a SEND and decoding a RECEIPT are done once a message, and neither allocates.

pub mod consume;
pub mod decode;
pub mod encode;
pub mod escape;
pub mod session;

mod error_frame;
mod frame;
mod heartbeat;
mod printable;
mod receipt;
mod version;

#[cfg(test)]
mod tests;

pub use error_frame::ErrorFrame;
pub use frame::{Command, Frame};
pub use version::Version;
