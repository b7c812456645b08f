//! What a seed decides before the first step: the shape of a schedule, its sizes and how often
//! each thing happens.

use fastrand::Rng;

use crate::engine::{Retry, Settings};

use super::step::Step;
use super::table::Standing;
use super::{FIRST_WAIT, MAX_ATTEMPTS, PAUSE, PAUSE_AFTER, PROBE_AFTER, RECEIPT_TIMEOUT, WAIT};

/// The kinds of trouble that a schedule dwells on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// No fault but slowness.
    Quiet,
    /// Lost replication connections, restarts and crashes of PostgreSQL.
    Source,
    /// Lost lanes and brokers that can't be reached.
    Lanes,
    /// A broker that is silent: alarms and swallowed messages.
    Silence,
    /// Failovers: positions and xids are used again.
    Failover,
    /// walpost is killed again and again.
    Kill,
    /// A message that the broker refuses.
    Refusal,
    /// Destinations that are refused for long.
    Parking,
    /// The first start, and slots that are lost.
    Slots,
    /// The publication is altered.
    Guard,
    /// Certified snapshots, and all that may come between.
    Certified,
    /// Rows are marked or deleted after the receipt, and all that may come between.
    Marks,
    /// All of it.
    Storm,
}

const SHAPES: [Shape; 13] = [
    Shape::Quiet,
    Shape::Source,
    Shape::Lanes,
    Shape::Silence,
    Shape::Failover,
    Shape::Kill,
    Shape::Refusal,
    Shape::Parking,
    Shape::Slots,
    Shape::Guard,
    Shape::Certified,
    Shape::Marks,
    Shape::Storm,
];

/// What happens in every shape, and how often.
const USUAL: [(Step, u32); 15] = [
    (Step::Write, 14),
    (Step::Read, 30),
    (Step::Pump, 20),
    (Step::Take, 20),
    (Step::Answer, 20),
    (Step::Report, 8),
    (Step::Arrive, 8),
    (Step::Checkpoint, 2),
    (Step::Wait, 5),
    (Step::Connect, 10),
    (Step::OpenSource, 10),
    (Step::Certify, 9),
    (Step::Large, 2),
    (Step::Retain, 2),
    (Step::Park, 14),
];

impl Shape {
    /// The shape of a seed's schedule.
    pub(super) fn of(seed: u64) -> Self {
        SHAPES[usize::try_from(seed % SHAPES.len() as u64).unwrap()]
    }

    /// The faults of this shape, and how often they come.
    fn faults(self) -> &'static [(Step, u32)] {
        match self {
            Shape::Quiet => &[(Step::WaitLong, 1)],
            Shape::Source => &[(Step::LoseSource, 5), (Step::Restart, 1), (Step::Crash, 2)],
            Shape::Lanes => &[
                (Step::LoseLane, 6),
                (Step::Unreachable, 2),
                (Step::Garbage, 2),
                (Step::LoseSource, 1),
            ],
            Shape::Silence => {
                &[(Step::Freeze, 2), (Step::WaitLong, 12), (Step::LoseLane, 1), (Step::Garbage, 1)]
            }
            Shape::Failover => &[(Step::Failover, 4), (Step::LoseSource, 2), (Step::LoseLane, 1)],
            Shape::Kill => {
                &[(Step::Kill, 2), (Step::Large, 20), (Step::Crash, 1), (Step::LoseLane, 1)]
            }
            Shape::Refusal => &[(Step::LoseLane, 1), (Step::Unreachable, 2), (Step::LoseSource, 1)],
            Shape::Parking => &[
                (Step::Pump, 60),
                (Step::Take, 60),
                (Step::Answer, 60),
                (Step::Connect, 60),
                (Step::WaitLong, 40),
                (Step::Operator, 4),
                (Step::LoseSource, 2),
                (Step::LoseLane, 2),
                (Step::Kill, 2),
                (Step::Failover, 1),
                (Step::Crash, 1),
                (Step::Unreachable, 1),
                (Step::Checkpoint, 2),
                (Step::UserDeletes, 1),
            ],
            Shape::Slots => &[
                (Step::LoseSlot, 6),
                (Step::Kill, 6),
                (Step::Thaw, 16),
                (Step::Large, 4),
                (Step::Crash, 1),
                (Step::LoseLane, 1),
            ],
            Shape::Guard => &[
                (Step::Alter, 8),
                (Step::Certify, 10),
                (Step::Kill, 1),
                (Step::LoseSource, 1),
                (Step::LoseSlot, 2),
            ],
            Shape::Certified => &[
                (Step::Certify, 30),
                (Step::Retain, 8),
                (Step::Crash, 1),
                (Step::Failover, 1),
                (Step::LoseSlot, 1),
                (Step::Checkpoint, 2),
            ],
            Shape::Marks => &[
                (Step::Lock, 40),
                (Step::UserDeletes, 8),
                (Step::LoseSource, 2),
                (Step::Crash, 1),
                (Step::Failover, 2),
                (Step::Checkpoint, 4),
                (Step::Kill, 1),
                (Step::LoseLane, 1),
            ],
            Shape::Storm => &[
                (Step::LoseSlot, 1),
                (Step::Alter, 1),
                (Step::Thaw, 1),
                (Step::LoseSource, 2),
                (Step::Restart, 1),
                (Step::Crash, 1),
                (Step::Failover, 1),
                (Step::LoseLane, 2),
                (Step::Unreachable, 1),
                (Step::Freeze, 1),
                (Step::WaitLong, 2),
                (Step::Garbage, 1),
                (Step::Kill, 1),
            ],
        }
    }
}

/// The sizes and odds of one schedule.
#[derive(Debug)]
pub(super) struct Schedule {
    #[expect(dead_code, reason = "shown in a story")]
    shape: Shape,
    /// Steps before the calm at the end.
    pub(super) steps: usize,
    pub(super) lanes: usize,
    /// Window, in messages and in bytes.
    pub(super) messages: usize,
    pub(super) bytes: usize,
    pub(super) ring: usize,
    /// Ordering keys in use.
    pub(super) keys: u64,
    /// Destinations in use; each key has one.
    pub(super) destinations: usize,
    /// Frames that a lane's own buffer holds.
    pub(super) room: usize,
    /// Receipts come in the order of the messages.
    pub(super) in_order: bool,
    /// Heart-beats are agreed; without them an unanswered probe loses the lane.
    pub(super) heartbeats: bool,
    /// Of 100 messages, how many are swallowed.
    pub(super) swallowed: u8,
    /// Of 100 rows, how many are refused by the broker.
    pub(super) refused: u8,
    /// So often at most what is refused for a while only.
    pub(super) refusals: u8,
    /// Of 100 rows, how many can't be sent.
    pub(super) unfit: u8,
    /// So many messages are kept to be sent again.
    pub(super) max_parked: usize,
    /// The relay halts when a destination is exhausted.
    pub(super) halts: bool,
    /// Of 100 transactions, how many are larger than the window.
    pub(super) large: u8,
    /// Of the relays that are replaced, some are only frozen.
    pub(super) freezes: bool,
    /// The slot is lost in the end.
    pub(super) last_slot: bool,
    /// walpost has made its slot before the first step.
    pub(super) started: bool,
    /// Transactions that may be open at the same time; of so many steps, each takes 7 to its end.
    pub(super) writers: usize,
    pub(super) patience: u8,
    /// Of 100 commits, how many are visible only some time after they are in the WAL.
    pub(super) late: u8,
    /// Of so many steps of applications, one makes such a commit visible.
    pub(super) unseen_for: u8,
    /// Of 100 failovers, how many leave no slot, or one that is ahead of the WAL.
    pub(super) no_slot: u8,
    pub(super) slot_ahead: u8,
    /// What becomes of a row after the receipt; none: nothing.
    pub(super) marking: Option<Standing>,
    /// A recovery leaves out what is marked.
    pub(super) by_status: bool,
    /// Xids begin again after this many.
    pub(super) xids: u32,
    weights: Vec<(Step, u32)>,
    total: u32,
}

impl Schedule {
    /// Draws a schedule.
    pub(super) fn draw(rng: &mut Rng, shape: Shape) -> Self {
        // Each side is slow, or fast, in its own way.
        let young = matches!(
            shape,
            Shape::Slots | Shape::Guard | Shape::Certified | Shape::Marks | Shape::Storm
        );
        let marks = shape == Shape::Marks || rng.u8(..3) == 0;
        let marking = marks.then(|| if rng.bool() { Standing::Marked } else { Standing::Deleted });
        // What takes many steps needs peace between two kinds of trouble.
        let peace = match shape {
            Shape::Slots => rng.u32(2..=8),
            Shape::Parking => rng.u32(4..=10),
            _ if young => rng.u32(1..=6),
            _ => 1,
        };
        let usual =
            USUAL.map(|(step, weight)| (step, (weight * peace * rng.u32(1..=8)).div_ceil(4)));
        let marker = [(Step::Mark, 10 * peace), (Step::Lock, 1), (Step::UserDeletes, 1)];
        let marker = if marks { &marker[..] } else { &[] };
        let weights: Vec<_> = usual.iter().chain(shape.faults()).chain(marker).copied().collect();
        let total = weights.iter().map(|(_, weight)| weight).sum();
        let silent = matches!(shape, Shape::Silence | Shape::Storm);
        let refusing = matches!(shape, Shape::Refusal | Shape::Parking)
            || (shape == Shape::Storm && rng.u8(..4) == 0);
        let messages = if rng.bool() { rng.usize(1..=4) } else { rng.usize(4..=16) };
        Schedule {
            shape,
            steps: match shape {
                Shape::Parking => rng.usize(500..=3_000),
                _ if young || shape == Shape::Kill => rng.usize(60..=800),
                _ => rng.usize(60..=400),
            },
            lanes: if matches!(shape, Shape::Refusal | Shape::Parking) {
                rng.usize(2..=3)
            } else {
                rng.usize(1..=3)
            },
            messages,
            bytes: if rng.bool() { 100_000 } else { rng.usize(50..=400) },
            ring: if rng.u8(..3) == 0 { rng.usize(1..=4) } else { 1000 },
            keys: if matches!(shape, Shape::Refusal | Shape::Parking) { 5 } else { rng.u64(1..=5) },
            destinations: match shape {
                Shape::Refusal => rng.usize(1..=2),
                _ => rng.usize(1..=super::NAMES.len()),
            },
            room: rng.usize(1..=4),
            in_order: rng.bool(),
            heartbeats: rng.u8(..4) > 0,
            swallowed: if silent { rng.u8(0..=15) } else { 0 },
            refused: match shape {
                Shape::Refusal => rng.u8(1..=20),
                Shape::Parking => rng.u8(10..=60),
                _ if refusing => rng.u8(1..=6),
                _ => 0,
            },
            refusals: if shape == Shape::Parking { rng.u8(4..=12) } else { 4 },
            unfit: if shape == Shape::Parking && rng.bool() { 5 } else { 0 },
            max_parked: if rng.bool() { rng.usize(2..=8) } else { 1000 },
            halts: refusing && rng.u8(..4) == 0,
            large: if matches!(shape, Shape::Kill | Shape::Slots | Shape::Marks) {
                20
            } else if rng.u8(..3) == 0 {
                10
            } else {
                0
            },
            freezes: matches!(shape, Shape::Slots | Shape::Storm),
            last_slot: young && rng.bool(),
            started: !young || rng.bool(),
            writers: if young { rng.usize(1..=6) } else { 3 },
            patience: if young { rng.u8(8..=30) } else { 10 },
            late: if young { rng.u8(0..=30) } else { 0 },
            unseen_for: if shape == Shape::Marks { rng.u8(3..=20) } else { 3 },
            no_slot: if young { 30 } else { 5 },
            slot_ahead: if young { 30 } else { 5 },
            marking,
            by_status: rng.bool(),
            xids: if rng.u8(..3) == 0 { rng.u32(2..=6) } else { u32::MAX },
            weights,
            total,
        }
    }

    /// The settings of the engine under judgement.
    pub(super) fn settings(&self) -> Settings {
        Settings {
            lanes: self.lanes,
            messages: self.messages,
            bytes: self.bytes,
            receipt_timeout: RECEIPT_TIMEOUT,
            probe_after: PROBE_AFTER,
            ring: self.ring,
            retry: Retry {
                first_wait: FIRST_WAIT,
                pause_after: PAUSE_AFTER,
                pause: PAUSE,
                wait: WAIT,
                max_attempts: MAX_ATTEMPTS,
                max_parked: self.max_parked as u64,
                halts: self.halts,
            },
        }
    }

    /// What happens next.
    pub(super) fn next(&self, rng: &mut Rng) -> Step {
        let mut at = rng.u32(..self.total);
        for &(step, weight) in &self.weights {
            if at < weight {
                return step;
            }
            at -= weight;
        }
        Step::Wait
    }
}
