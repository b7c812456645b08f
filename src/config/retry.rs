//! The section `retry`: how long a destination is tried that the broker refuses.

use std::time::Duration;

use super::section::Section;
use super::values::choice;
use super::{DAY, MS_10};

/// How long a destination is tried that the broker refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The wait between the first attempts.
    pub first_wait: Duration,
    /// After so many attempts the destination is parked.
    pub pause_after: u32,
    /// The wait before the next attempt.
    pub pause: Duration,
    /// The wait between the later ones.
    pub wait: Duration,
    /// After so many attempts of its head the destination is condemned.
    pub max_attempts: u32,
    /// Messages kept for parked destinations; beyond, the stream is held.
    pub max_parked: u64,
    /// What happens to a condemned destination's messages.
    pub on_exhausted: OnExhausted,
}

choice! {
    /// What happens to a condemned destination's messages.
    OnExhausted {
        /// They become dead letters.
        Dead = "dead",
        /// The relay stops with status 3.
        Halt = "halt",
    }
}

pub(super) fn read(section: &mut Section<'_>) -> Retry {
    let retry = Retry {
        first_wait: section.duration("first_wait", "1s", MS_10..=DAY),
        pause_after: section.number("pause_after", 3, 1..=1_000_000),
        pause: section.duration("pause", "240s", MS_10..=DAY),
        wait: section.duration("wait", "60s", MS_10..=DAY),
        max_attempts: section.number("max_attempts", 50, 1..=1_000_000),
        max_parked: section.number("max_parked", 100_000, 1..=100_000_000),
        on_exhausted: section.choice("on_exhausted", OnExhausted::Dead),
    };
    if retry.max_attempts < retry.pause_after {
        section.problem("max_attempts", "is less than retry.pause_after");
    }
    retry
}
