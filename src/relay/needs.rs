//! What the way to a session needs, and what is remembered from one session to the next.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::first_start::FirstStart;
use super::same_slot::Reported;
use crate::telemetry::Telemetry;

/// What opening a session needs.
#[derive(Clone)]
pub(super) struct Needs {
    /// What must be there.
    pub(super) first_start: Arc<FirstStart>,
    /// Where it shows.
    pub(super) telemetry: Arc<Telemetry>,
    /// It is to be published, since what was open when the publication changed has ended.
    pub(super) settled: Arc<AtomicBool>,
    /// How far the slot was confirmed.
    pub(super) reported: Arc<Reported>,
}

impl Needs {
    pub(super) fn new(first_start: Arc<FirstStart>, telemetry: Arc<Telemetry>) -> Self {
        Needs { first_start, telemetry, settled: Arc::default(), reported: Arc::default() }
    }

    pub(super) fn slot(&self) -> &str {
        &self.first_start.source.slot
    }
}
