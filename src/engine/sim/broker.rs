//! A model broker: lanes with a buffer, answers on their way, alarms, losses and refusals.

use std::collections::VecDeque;

use fastrand::Rng;

use super::postgres::{Fate, Row};
use super::schedule::Schedule;

/// What a lane has written.
#[derive(Clone, Copy, Debug)]
enum Frame {
    Send { number: u64, serial: usize },
    Probe,
}

/// What the broker answers.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Receipt(u64),
    Probe,
    /// The connection closes after it.
    Error {
        named: Option<u64>,
        words: String,
    },
    /// The connection closes without a word.
    Closed,
}

/// One connection; empty while down.
#[derive(Debug, Default)]
struct Lane {
    up: bool,
    unread: VecDeque<Frame>,
    answers: Vec<Answer>,
    /// Frames read since the connection was opened: under an alarm one is.
    read: usize,
    /// An ERROR was sent: nothing is read any more.
    refused: bool,
    /// It holds the next message, and reads nothing more.
    holds: bool,
}

/// The broker.
#[derive(Debug)]
pub(super) struct Broker {
    /// Which rows it has ever stored, by serial number.
    pub(super) stored: Vec<bool>,
    /// Memory or disk alarm.
    pub(super) frozen: bool,
    /// Nobody can connect.
    pub(super) unreachable: bool,
    /// Of 100 messages, how many are answered by nothing and not stored.
    pub(super) swallowed: u8,
    /// Some of what is tried is held, by the queue's own flow control.
    pub(super) holding: bool,
    in_order: bool,
    room: usize,
    lanes: Vec<Lane>,
    words: u32,
}

impl Broker {
    pub(super) fn new(schedule: &Schedule) -> Self {
        Broker {
            stored: Vec::new(),
            frozen: false,
            unreachable: false,
            swallowed: schedule.swallowed,
            holding: schedule.swallowed % 2 == 1 || schedule.refusals % 4 == 1,
            in_order: schedule.in_order,
            room: schedule.room,
            lanes: (0..=schedule.lanes).map(|_| Lane::default()).collect(),
            words: 0,
        }
    }

    /// Whether the lane is connected.
    pub(super) fn up(&self, lane: usize) -> bool {
        self.lanes[lane].up
    }

    /// Whether the lane's own buffer takes another frame.
    pub(super) fn has_room(&self, lane: usize) -> bool {
        self.lanes[lane].up && self.lanes[lane].unread.len() < self.room
    }

    /// Opens a connection.
    pub(super) fn connect(&mut self, lane: usize) {
        self.lanes[lane] = Lane { up: true, ..Lane::default() };
    }

    /// Loses a connection: what was not read is never stored, answers on their way are lost.
    pub(super) fn lose(&mut self, lane: usize) {
        self.lanes[lane] = Lane::default();
    }

    /// A message is written.
    pub(super) fn write(&mut self, lane: usize, number: u64, serial: usize) {
        self.lanes[lane].unread.push_back(Frame::Send { number, serial });
    }

    /// A probe is written.
    pub(super) fn write_probe(&mut self, lane: usize) {
        self.lanes[lane].unread.push_back(Frame::Probe);
    }

    /// Reads one frame of a lane; false when there is nothing that it would read.
    pub(super) fn take(&mut self, lane: usize, rows: &mut [Row], rng: &mut Rng) -> bool {
        let trial = lane == self.lanes.len() - 1;
        let conn = &mut self.lanes[lane];
        if self.holding && trial && matches!(conn.unread.front(), Some(Frame::Send { .. })) {
            conn.holds |= rng.bool();
        }
        if conn.refused || (conn.holds && self.holding) || (self.frozen && conn.read > 0) {
            return false;
        }
        let Some(frame) = conn.unread.pop_front() else { return false };
        conn.read += 1;
        match frame {
            Frame::Probe => conn.answers.push(Answer::Probe),
            Frame::Send { number, serial } => {
                let named = rng.bool().then_some(number);
                if let Some(answer) = refusal(&mut rows[serial].fate, &mut self.words, named) {
                    conn.refused = true;
                    conn.answers.push(answer);
                } else if rng.u8(..100) >= self.swallowed {
                    if self.stored.len() <= serial {
                        self.stored.resize(serial + 1, false);
                    }
                    self.stored[serial] = true;
                    conn.answers.push(Answer::Receipt(number));
                }
            }
        }
        true
    }

    /// The next answer of a lane.
    pub(super) fn answer(&mut self, lane: usize, rng: &mut Rng) -> Option<Answer> {
        let answers = &mut self.lanes[lane].answers;
        if answers.is_empty() {
            return None;
        }
        let at = if self.in_order { 0 } else { rng.usize(..answers.len()) };
        Some(answers.remove(at))
    }
}

/// What the broker says to a row that it refuses now.
fn refusal(fate: &mut Fate, words: &mut u32, named: Option<u64>) -> Option<Answer> {
    match fate {
        Fate::Taken | Fate::RefusedTimes(0) | Fate::ClosedTimes(0) => None,
        Fate::RefusedForEver => Some(Answer::Error { named, words: "not_found".to_owned() }),
        Fate::RefusedTimes(left) => {
            *left -= 1;
            *words += 1;
            Some(Answer::Error { named, words: format!("queue full, {words} waiting") })
        }
        Fate::ClosedTimes(left) => {
            *left -= 1;
            Some(Answer::Closed)
        }
    }
}
