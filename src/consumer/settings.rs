//! What a consumer is made of.

use std::sync::Arc;
use std::time::Duration;

use super::http::{Target, UrlError};
use super::profile::Wanted;
use crate::broker;
use crate::config::{self, Config, Layout};
use crate::store::{ConnectSettings, Inbox, InboxError};

/// What a consumer is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What is subscribed to.
    pub destination: String,
    /// The queue's name.
    pub queue: String,
    /// What handles a message.
    pub handler: Handler,
    /// Messages that the broker sends ahead, at least as many as are handled at the same time.
    pub prefetch: u32,
    /// Headers of SUBSCRIBE, which win over walpost's own.
    pub headers: Vec<(String, String)>,
    /// Messages handled at the same time.
    pub concurrency: usize,
    /// How the broker is reached.
    pub broker: Arc<broker::Settings>,
    /// A longer message is not read.
    pub max_body: usize,
    /// How PostgreSQL is reached.
    pub sql: ConnectSettings,
    /// Whether the predecessor's table is the inbox.
    pub django: bool,
    /// How often something is tried.
    pub retry: Retry,
    /// How long messages that are being handled are waited for at the end.
    pub shutdown_timeout: Duration,
    /// What to do about what does not pass by itself.
    pub patience: Patience,
}

/// What handles a message.
#[derive(Clone, Debug)]
pub enum Handler {
    /// A SQL function.
    Call(String),
    /// A POST to a URL.
    Http(Target),
    /// A command and its arguments.
    Exec(Vec<String>),
    /// It is printed.
    Print,
}

/// How often a message is tried whose handling failed for a reason that may pass.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// The first wait; doubled each time.
    pub first_wait: Duration,
    /// The longest wait.
    pub longest_wait: Duration,
    /// After so many attempts the message is refused.
    pub max_attempts: u32,
}

/// What to do about a refused login, a missing function, queue arguments that do not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Say it, and try again: others depend on this process.
    Forever,
    /// Some attempts, then stop for good.
    Some,
}

/// So much is read in any case, whatever may be sent: RabbitMQ's own limit since 4.0.
const LEAST_BODY: u64 = 16 * 1024 * 1024;

impl Settings {
    /// Those of a consumer of the configuration, or one that was typed; how its peers are reached was
    /// made of the configuration before.
    ///
    /// # Errors
    /// The URL of the handler is none.
    pub fn new(
        consumer: &config::Consumer,
        config: &Config,
        broker: Arc<broker::Settings>,
        sql: ConnectSettings,
        patience: Patience,
    ) -> Result<Settings, UrlError> {
        let config::Handler { call, http, exec } = &consumer.handler;
        let handler = match (call, http) {
            (Some(function), _) => Handler::Call(function.clone()),
            (None, Some(url)) => Handler::Http(Target::parse(url)?),
            (None, None) if exec.is_empty() => Handler::Print,
            (None, None) => Handler::Exec(exec.clone()),
        };
        let concurrency = match handler {
            // Lines are printed one after the other.
            Handler::Print => 1,
            _ => consumer.concurrency,
        };
        let largest = config.broker.max_frame_size.max(LEAST_BODY);
        Ok(Settings {
            destination: consumer.destination.clone(),
            queue: consumer.queue.clone().unwrap_or_else(|| last_part(&consumer.destination)),
            handler,
            prefetch: consumer.prefetch.max(concurrency),
            headers: consumer.headers.clone(),
            concurrency: concurrency as usize,
            broker,
            max_body: usize::try_from(largest).unwrap_or(usize::MAX),
            sql,
            django: config.outbox.layout == Layout::Django,
            retry: Retry {
                first_wait: config.retry.first_wait,
                longest_wait: config.retry.wait,
                max_attempts: config.retry.max_attempts,
            },
            shutdown_timeout: config.shutdown_timeout,
            patience,
        })
    }
}

impl Settings {
    /// A connection to the inbox.
    pub(super) async fn open_inbox(&self) -> Result<Inbox, InboxError> {
        let function = match &self.handler {
            Handler::Call(function) => Some(function.as_str()),
            _ => None,
        };
        Inbox::open(&self.sql, &self.queue, self.django, function).await
    }

    /// What is subscribed to.
    pub(super) fn wanted(&self) -> Wanted<'_> {
        Wanted {
            destination: &self.destination,
            queue: &self.queue,
            prefetch: self.prefetch,
            concurrency: self.concurrency,
            headers: &self.headers,
        }
    }
}

/// What is behind the last slash: the queue's name where none is given.
#[must_use]
pub fn last_part(destination: &str) -> String {
    destination.rsplit('/').next().unwrap_or(destination).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_is_called_by_the_last_part_of_the_destination() {
        for (destination, queue) in
            [("/topic/orders.v1", "orders.v1"), ("/exchange/shop/order.*", "order.*"), ("q", "q")]
        {
            assert_eq!(last_part(destination), queue);
        }
    }
}
