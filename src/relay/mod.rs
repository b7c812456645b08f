//! The relay: the source, the engine and the lanes, driven by one task.
//!
//! ```text
//! WAL ─ walsender ─► source ─► outbox ─► engine ─► lane(s) ─► broker
//!                      ▲                                  │ RECEIPT
//!                      └──── standby status update ◄──────┘
//! ```

mod broker_side;
mod clock;
pub mod first_start;
mod former;
pub mod from_config;
mod goodbye;
mod guarding;
mod housekeeping;
mod intake;
mod keeper;
mod link;
mod marking;
mod marking_side;
mod needs;
mod pace;
mod parking;
mod parking_side;
mod progress;
mod published;
mod pump;
mod recovery;
mod recovery_side;
mod report;
mod retention;
mod same_slot;
mod scan;
mod settings;
mod slot_maker;
mod slot_watch;
mod source_side;
mod standby;
pub mod standing;
mod stop;
pub mod supervisor;
mod timeline;
mod tls;

pub use settings::Settings;
pub use stop::Stop;
