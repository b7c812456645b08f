//! From nothing to a subscription: one host, one attempt.

use std::fmt;

use tracing::warn;

use super::profile::{Profile, Subscription};
use super::settings::Settings;
use crate::broker::{HostError, LaneError, Wire};
use crate::net::Address;
use crate::stomp::consume::{self, Subscribe};
use crate::stomp::decode::Limits;
use crate::stomp::encode::{self, EncodeError, ReceiptId};
use crate::stomp::session::Event;
use crate::stomp::{ErrorFrame, Frame};

/// The only subscription of a connection.
const ID: &str = "walpost";
/// The receipt of SUBSCRIBE.
const SUBSCRIBED: u64 = 1;
/// The first receipt of anything else.
pub(super) const FIRST_RECEIPT: u64 = 2;
/// The receipt of DISCONNECT.
pub(super) const GOODBYE: &str = "walpost-goodbye";
/// What others send may have more and longer headers than what brokers do.
const HEADER_LINE: usize = 64 * 1024;
const HEADERS: usize = 1024;

/// A subscription.
pub(super) struct Link {
    pub(super) wire: Wire,
    pub(super) profile: Profile,
    /// Messages that came before the receipt of SUBSCRIBE.
    pub(super) early: Vec<Frame>,
}

/// Why there is none.
#[derive(Debug)]
pub(super) enum LinkError {
    /// No connection.
    Host(HostError),
    /// The broker says no to the subscription.
    Refused { address: Address, queue: String, error: ErrorFrame },
    /// The connection ended, or nothing was said.
    Lost { address: Address, why: String },
    /// A header of the configuration can't be sent.
    Header(EncodeError),
}

impl LinkError {
    /// Whether trying again changes nothing, unless somebody is just changing it.
    pub(super) fn needs_an_operator(&self) -> bool {
        match self {
            LinkError::Host(error) => error.kind.needs_an_operator(),
            LinkError::Refused { .. } | LinkError::Header(_) => true,
            LinkError::Lost { .. } => false,
        }
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkError::Host(error) => write!(f, "{error}"),
            LinkError::Refused { address, queue, error } => write!(
                f,
                "{address}: the subscription of queue {queue} is refused: {error}; check the user's permissions \
                 there, and whether the queue was declared with other arguments (consumers[].headers)"
            ),
            LinkError::Lost { address, why } => write!(f, "{address}: {why}"),
            LinkError::Header(error) => write!(f, "consumers[].headers: {error}"),
        }
    }
}

/// Connects to a host and subscribes there.
pub(super) async fn establish(settings: &Settings, address: &Address) -> Result<Link, LinkError> {
    let (wire, profile) = open(settings, address).await?;
    if let Some(before) = &profile.made_before {
        // A connection of its own: whatever the queue sends goes back at its end.
        let (mut wire, _) = open(settings, address).await?;
        match subscribe(settings, &mut wire, before, &profile).await {
            Ok(_) => goodbye(&mut wire, settings).await,
            Err(LinkError::Refused { queue, error, .. }) => warn!(
                queue,
                "cannot be declared: {error}; if it is there, with other arguments, all is well, else refused \
                 messages are lost"
            ),
            Err(error) => return Err(error),
        }
    }
    let mut wire = wire;
    let early = subscribe(settings, &mut wire, &profile.subscription, &profile).await?;
    Ok(Link { wire, profile, early })
}

async fn open(settings: &Settings, address: &Address) -> Result<(Wire, Profile), LinkError> {
    let limits = Limits { header_line: HEADER_LINE, headers: HEADERS, body: settings.max_body };
    let wanted = settings.wanted();
    let client = wanted.client_id();
    let wire = Wire::open(&settings.broker, address, limits, client.as_deref()).await;
    let wire = wire.map_err(LinkError::Host)?;
    let profile = wanted.at(wire.kind, wire.version());
    Ok((wire, profile))
}

/// SUBSCRIBE, and its receipt; gives what came before that.
async fn subscribe(
    settings: &Settings,
    wire: &mut Wire,
    subscription: &Subscription,
    profile: &Profile,
) -> Result<Vec<Frame>, LinkError> {
    let version = wire.version();
    let frame = Subscribe {
        id: ID,
        destination: &subscription.destination,
        ack: profile.ack,
        receipt: Some(ReceiptId::Number(SUBSCRIBED)),
    };
    let headers = subscription.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    consume::subscribe(wire.buffer(), version, &frame, headers).map_err(LinkError::Header)?;
    let address = wire.address.clone();
    let lost = |why| LinkError::Lost { address: address.clone(), why };
    let mut early = Vec::new();
    let answered = tokio::time::timeout(settings.broker.connect_timeout, async {
        loop {
            match wire.turn(true).await {
                Ok(Event::Receipt(SUBSCRIBED)) => return Ok(()),
                Ok(Event::Message(frame)) => early.push(frame),
                Ok(Event::Error(error)) => {
                    let (address, queue) = (address.clone(), subscription.destination.clone());
                    return Err(LinkError::Refused { address, queue, error });
                }
                Ok(_) => {}
                Err(error) => return Err(lost(error.to_string())),
            }
        }
    });
    match answered.await {
        Ok(answer) => answer.map(|()| early),
        Err(_) => Err(lost("no answer to SUBSCRIBE".to_owned())),
    }
}

/// DISCONNECT, and its answer or the end of the connection: what was written before is read by then.
pub(super) async fn goodbye(wire: &mut Wire, settings: &Settings) {
    let version = wire.version();
    if encode::disconnect(wire.buffer(), version, Some(ReceiptId::Text(GOODBYE))).is_err() {
        return;
    }
    let answered = async {
        loop {
            match wire.turn(true).await {
                Ok(Event::OtherReceipt(id)) if id == GOODBYE => return,
                Ok(_) => {}
                Err(LaneError::Closed | LaneError::Io(_) | LaneError::Session(_)) => return,
                Err(LaneError::Unsendable { .. }) => {}
            }
        }
    };
    // It is leaving in any case.
    let _ = tokio::time::timeout(settings.broker.connect_timeout, answered).await;
}
