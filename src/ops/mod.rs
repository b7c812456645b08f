//! The commands that are not the relay, one file a command.

pub mod init;
pub mod send;
pub mod undelivered;
