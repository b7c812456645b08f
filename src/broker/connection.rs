//! An established STOMP connection.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio_util::io::poll_read_buf;

use super::grouping::Grouping;
use super::output::Output;
use super::profile::Kind;
use crate::engine::Receipt;
use crate::net::{Address, Stream};
use crate::outbox::Message;
use crate::stomp::encode::{self, EncodeError, ReceiptId, SendHead};
use crate::stomp::session::{Event, Session, SessionError};
use crate::stomp::{ErrorFrame, Version};

/// How much is read from the socket at a time.
const READ: usize = 16 * 1024;
/// The transaction of a probe, and the beginning of its receipt id.
const PROBE: &str = "walpost-probe";
/// The name of a group's transaction, and the receipt id of its COMMIT, before its number.
const GROUP: &str = "walpost-group";
/// The receipt id of DISCONNECT.
const GOODBYE: &str = "walpost-goodbye";

/// A STOMP connection that the broker has accepted.
pub struct Connection {
    /// Where it leads.
    pub address: Address,
    /// Which broker answered.
    pub kind: Kind,
    /// The `server` header of CONNECTED, if there was one.
    pub server: Option<String>,
    pub(super) stream: Stream,
    pub(super) session: Session,
    pub(super) input: BytesMut,
    pub(super) output: Output,
    pub(super) content_length: bool,
    pub(super) amqp_message_id: bool,
    pub(super) probes: u64,
    /// Where the receipts of transactions prove what is stored.
    pub(super) grouping: Option<Grouping>,
}

/// What the broker said.
#[derive(Debug)]
pub enum LaneEvent {
    /// A message is stored: the RECEIPT of its SEND, or of its transaction's COMMIT.
    Receipt(Receipt),
    /// The answer to the last probe.
    ProbeAnswered,
    /// The answer to DISCONNECT.
    Goodbye,
    /// An ERROR. The connection is closed after it, whoever closes it.
    Error(ErrorFrame),
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// The broker closed it without a word.
    #[error("the broker closed the connection without an ERROR")]
    Closed,
    /// The socket failed.
    #[error("connection lost: {0}")]
    Io(#[from] io::Error),
    /// The broker is silent, or speaks no STOMP.
    #[error("{0}")]
    Session(#[from] SessionError),
    /// A message can't be written in the version of STOMP that was agreed on.
    #[error("message {id} can't be sent in STOMP {version}: {error}")]
    Unsendable {
        /// The message's id.
        id: String,
        /// The version.
        version: &'static str,
        /// Why.
        error: EncodeError,
    },
}

impl Connection {
    /// Version and cipher of TLS, for the log; none: there is no TLS.
    #[must_use]
    pub fn cipher(&self) -> Option<String> {
        self.stream.cipher()
    }

    /// Whether the lane takes another message to write.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.output.has_room()
    }

    /// Queues a SEND.
    ///
    /// # Errors
    /// [`LaneError::Unsendable`]: STOMP 1.0 and 1.1 can't carry every header.
    pub fn send(&mut self, receipt: Receipt, message: &Message) -> Result<(), LaneError> {
        let unsendable = |version: Version, error| LaneError::Unsendable {
            id: message.id().to_owned(),
            version: version.as_str(),
            error,
        };
        let body = message.body_slice();
        let version = self.session.version();
        let transaction = match &mut self.grouping {
            None => None,
            Some(grouping) => {
                let (number, begins) = grouping.current();
                let name = group(number);
                if begins {
                    encode::begin(self.output.buffer(), version, &name, None)
                        .map_err(|error| unsendable(version, error))?;
                }
                Some(name)
            }
        };
        let head = SendHead {
            destination: message.destination(),
            receipt: transaction.is_none().then_some(ReceiptId::Number(receipt.0)),
            transaction: transaction.as_deref(),
            // Without it the body ends at its first NUL.
            content_length: (self.content_length || memchr::memchr(0, body).is_some())
                .then_some(body.len()),
        };
        let headers = message.headers().chain(self.kind.headers(message, self.amqp_message_id));
        encode::send_head(self.output.buffer(), version, &head, headers)
            .map_err(|error| unsendable(version, error))?;
        self.output.push_body(message);
        self.output.buffer().extend_from_slice(&[encode::END]);
        if let Some(grouping) = &mut self.grouping {
            grouping.add(receipt);
            self.commit(true)?;
        }
        Ok(())
    }

    /// Queues the COMMIT of the open group if it is due.
    fn commit(&mut self, more: bool) -> Result<(), LaneError> {
        let Some(number) = self.grouping.as_mut().and_then(|grouping| grouping.commit(more)) else {
            return Ok(());
        };
        let (version, name) = (self.session.version(), group(number));
        let receipt = Some(ReceiptId::Text(&name));
        encode::commit(self.output.buffer(), version, &name, receipt).map_err(|error| {
            LaneError::Unsendable { id: name.clone(), version: version.as_str(), error }
        })
    }

    /// Queues an empty transaction whose ABORT carries a receipt (rule 7).
    ///
    /// # Errors
    /// None in practice: the names are plain.
    pub fn probe(&mut self) -> Result<(), LaneError> {
        self.probes += 1;
        let version = self.session.version();
        let name = format!("{PROBE}-{}", self.probes);
        let out = self.output.buffer();
        encode::begin(out, version, &name, None)
            .and_then(|()| encode::abort(out, version, &name, Some(ReceiptId::Text(&name))))
            .map_err(|error| LaneError::Unsendable { id: name, version: version.as_str(), error })
    }

    /// DISCONNECT with a receipt, and its answer or the end of the connection, whichever comes.
    pub async fn leave(&mut self) {
        let version = self.session.version();
        let receipt = Some(ReceiptId::Text(GOODBYE));
        if encode::disconnect(self.output.buffer(), version, receipt).is_err() {
            return;
        }
        poll_fn(|cx| {
            if let Poll::Ready(Err(_)) = self.poll_flush(cx, Duration::ZERO) {
                return Poll::Ready(());
            }
            loop {
                match self.poll_event(cx, Duration::ZERO) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(LaneEvent::Goodbye) | Err(_)) => return Poll::Ready(()),
                    Poll::Ready(Ok(_)) => {}
                }
            }
        })
        .await;
    }

    /// The next thing the broker says.
    ///
    /// # Errors
    /// [`LaneError`]: the connection ended.
    pub fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
        now: Duration,
    ) -> Poll<Result<LaneEvent, LaneError>> {
        loop {
            if let Some(receipt) = self.grouping.as_mut().and_then(Grouping::next) {
                return Poll::Ready(Ok(LaneEvent::Receipt(receipt)));
            }
            while let Some(event) = self.session.receive(&mut self.input, now)? {
                match event {
                    Event::Receipt(number) => {
                        return Poll::Ready(Ok(LaneEvent::Receipt(Receipt(number))));
                    }
                    Event::OtherReceipt(id) if id == GOODBYE => {
                        return Poll::Ready(Ok(LaneEvent::Goodbye));
                    }
                    Event::OtherReceipt(id) => {
                        if number_in(&id, PROBE) == Some(self.probes) {
                            return Poll::Ready(Ok(LaneEvent::ProbeAnswered));
                        }
                        if let Some(grouping) = &mut self.grouping
                            && let Some(number) = number_in(&id, GROUP)
                        {
                            grouping.answered(number);
                            if let Some(receipt) = grouping.next() {
                                return Poll::Ready(Ok(LaneEvent::Receipt(receipt)));
                            }
                        }
                    }
                    Event::Error(error) => {
                        return Poll::Ready(Ok(LaneEvent::Error(self.told_of_message(error))));
                    }
                    Event::Connected(_) | Event::Message(_) => {}
                }
            }
            self.input.reserve(READ);
            match poll_read_buf(std::pin::Pin::new(&mut self.stream), cx, &mut self.input) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(LaneError::Closed)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// An ERROR for the COMMIT of one message is one for that message.
    fn told_of_message(&self, mut error: ErrorFrame) -> ErrorFrame {
        let number = error.receipt_id.as_deref().and_then(|id| number_in(id, GROUP));
        let alone = number.zip(self.grouping.as_ref()).and_then(|(no, all)| all.alone(no));
        if let Some(receipt) = alone {
            error.receipt_id = Some(receipt.0.to_string());
        }
        error
    }

    /// Writes what is queued, as far as the socket takes it. `Ready`: all is written.
    ///
    /// # Errors
    /// [`LaneError::Io`]: the connection ended.
    pub fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        now: Duration,
    ) -> Poll<Result<(), LaneError>> {
        loop {
            // With room left nothing more was there to be sent.
            if self.has_room() {
                self.commit(false)?;
            }
            if self.output.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let mut wrote = false;
            let flushed = self.output.poll_write(&mut self.stream, cx, &mut wrote);
            if wrote {
                self.session.wrote(now);
            }
            ready!(flushed)?;
        }
    }

    /// Time passed: queues a heart-beat when one is due.
    ///
    /// # Errors
    /// The broker's own heart-beats stayed out.
    pub fn tick(&mut self, now: Duration) -> Result<(), LaneError> {
        // A heart-beat behind bytes that the broker does not read would be one more of them.
        let mut spare = BytesMut::new();
        let out = if self.output.is_empty() { self.output.buffer() } else { &mut spare };
        Ok(self.session.tick(now, out)?)
    }

    /// The broker's silence counts from now on.
    pub fn excuse(&mut self, now: Duration) {
        self.session.excuse(now);
    }

    /// When [`tick`](Self::tick) wants to be called next.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.session.deadline()
    }

    /// Whether heart-beats of the broker are agreed on.
    #[must_use]
    pub fn heartbeats_expected(&self) -> bool {
        self.session.heartbeats_expected()
    }
}

fn group(number: u64) -> String {
    format!("{GROUP}-{number}")
}

/// The number in an id of ours.
fn number_in(id: &str, prefix: &str) -> Option<u64> {
    id.strip_prefix(prefix)?.strip_prefix('-')?.parse().ok()
}
