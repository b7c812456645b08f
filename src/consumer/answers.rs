//! ACK and NACK on one connection, and dead letters where the broker does not see to them.

use std::collections::HashMap;

use tracing::warn;

use super::link::FIRST_RECEIPT;
use super::message::Message;
use super::profile::{DeadLetters, Profile};
use super::settings::Settings;
use super::worker::Outcome;
use crate::broker::Wire;
use crate::stomp::consume::{self, AckMode, Answer, Handle};
use crate::stomp::encode::{self, EncodeError, ReceiptId, SendHead};

/// Bytes of a reason that go along with a dead letter.
const REASON: usize = 1024;
/// Headers that a dead letter does not take over: the frame's own, and the brokers' own.
const NOT_PASSED_ON: [&str; 9] = [
    "destination",
    "receipt",
    "transaction",
    "content-length",
    "message-id",
    "redelivered",
    "expires",
    "timestamp",
    "destination-type",
];

/// The answers on one connection.
pub(super) struct Answers {
    profile: Profile,
    queue: String,
    /// Handled, and not answered yet: one ACK stands for all before it.
    due: Option<Handle>,
    /// Sent to the dead letters, by the receipt that is missing.
    dead: HashMap<u64, Handle>,
    receipt: u64,
}

impl Answers {
    pub(super) fn new(profile: Profile, settings: &Settings) -> Answers {
        let queue = settings.queue.clone();
        Answers { profile, queue, due: None, dead: HashMap::new(), receipt: FIRST_RECEIPT }
    }

    /// Whether more may be handled now: an ACK of a later message would stand for a dead letter that
    /// nobody has yet.
    pub(super) fn let_more(&self) -> bool {
        self.profile.ack == AckMode::ClientIndividual || self.dead.is_empty()
    }

    /// Whether nothing is missing.
    pub(super) fn are_done(&self) -> bool {
        self.dead.is_empty()
    }

    /// What became of a message.
    pub(super) fn outcome(&mut self, wire: &mut Wire, message: Message, outcome: Outcome) {
        match outcome {
            Outcome::Handled | Outcome::Known => match self.profile.ack {
                AckMode::Client => self.due = Some(message.handle),
                AckMode::ClientIndividual => self.answer(wire, Answer::Ack, &message.handle),
            },
            Outcome::Refused(why) => {
                self.flush(wire);
                match self.profile.dead_letters.clone() {
                    None => self.answer(wire, Answer::Nack, &message.handle),
                    Some(to) => self.bury(wire, &to, message, &why),
                }
            }
            Outcome::Left => self.flush(wire),
        }
    }

    /// What is due is answered.
    pub(super) fn flush(&mut self, wire: &mut Wire) {
        if let Some(handle) = self.due.take() {
            self.answer(wire, Answer::Ack, &handle);
        }
    }

    /// The broker has stored what asked for this receipt.
    pub(super) fn receipt(&mut self, wire: &mut Wire, number: u64) {
        if let Some(handle) = self.dead.remove(&number) {
            self.answer(wire, Answer::Ack, &handle);
        }
    }

    fn answer(&self, wire: &mut Wire, answer: Answer, handle: &Handle) {
        let (version, headers) = (
            wire.version(),
            match answer {
                Answer::Ack => &[][..],
                Answer::Nack => self.profile.nack,
            },
        );
        // What was read in a version can be written in it.
        let written = consume::answer(wire.buffer(), version, answer, handle, headers);
        if let Err(error) = written {
            warn!(queue = self.queue, "a message can't be answered: {error}");
        }
    }

    /// Sends it to the dead letters; it is acknowledged with the receipt.
    fn bury(&mut self, wire: &mut Wire, to: &DeadLetters, message: Message, why: &str) {
        let receipt = self.receipt;
        self.receipt += 1;
        match send(wire, to, receipt, &message, why) {
            Ok(()) => {
                self.dead.insert(receipt, message.handle);
            }
            Err(error) => {
                let (queue, id) = (&self.queue, &message.id);
                warn!(
                    queue,
                    id, "can't be sent to the dead letters, and stays unanswered: {error}"
                );
            }
        }
    }
}

fn send(
    wire: &mut Wire,
    to: &DeadLetters,
    receipt: u64,
    message: &Message,
    why: &str,
) -> Result<(), EncodeError> {
    let version = wire.version();
    let head = SendHead {
        destination: &to.destination,
        receipt: Some(ReceiptId::Number(receipt)),
        transaction: None,
        content_length: Some(message.body.len()),
    };
    let passed_on = |name: &str| !NOT_PASSED_ON.contains(&name) && !name.starts_with("_AMQ");
    let own = message.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let mut headers: Vec<(&str, &str)> = own.filter(|(name, _)| passed_on(name)).collect();
    let why: String = why.chars().filter(|c| !c.is_control()).take(REASON).collect();
    let ours = [
        ("persistent", "true"),
        ("walpost-destination", message.destination.as_str()),
        ("walpost-error", why.as_str()),
    ];
    for (name, value) in ours.into_iter().chain(to.headers.iter().copied()) {
        headers.retain(|(known, _)| *known != name);
        headers.push((name, value));
    }
    encode::send_head(wire.buffer(), version, &head, headers)?;
    wire.buffer().extend_from_slice(&message.body);
    wire.buffer().extend_from_slice(&[encode::END]);
    Ok(())
}
