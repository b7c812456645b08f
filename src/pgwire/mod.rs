//! PostgreSQL's frontend/backend protocol 3.0 as a replication connection speaks it (PostgreSQL
//! documentation, chapters "Frontend/Backend Protocol" and "Streaming Replication Protocol").
//!
//! Sans-I/O: the caller moves the bytes, here they are framed, read and written. A connection goes
//! through [`login::Login`], then commands ([`frontend::query`], [`backend::Backend`]), then
//! copy-both ([`copy::parse`], [`frontend::status_update`]).

pub mod backend;
pub mod copy;
pub mod frame;
pub mod frontend;
pub mod login;

mod scram;
mod server_error;

pub use server_error::ServerError;
