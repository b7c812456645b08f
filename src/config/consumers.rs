//! The list `consumers`: what `run` consumes beside relaying.

use super::outbox::check_header;
use super::section::Section;
use super::values;

/// One subscription and what handles its messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// The destination to subscribe to.
    pub destination: String,
    /// The queue's name; `None`: the last part of the destination.
    pub queue: Option<String>,
    /// What handles a message.
    pub handler: Handler,
    /// Messages that the broker sends ahead.
    pub prefetch: u32,
    /// Headers added to SUBSCRIBE.
    pub headers: Vec<(String, String)>,
    /// Messages handled at the same time.
    pub concurrency: u32,
}

/// What handles a message; exactly one is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handler {
    /// An SQL function.
    pub call: Option<String>,
    /// A URL that gets a POST.
    pub http: Option<String>,
    /// A command and its arguments.
    pub exec: Vec<String>,
}

pub(super) fn read(section: &mut Section<'_>) -> Consumer {
    let consumer = Consumer {
        destination: section.text("destination", ""),
        queue: section.optional("queue", "", values::text),
        handler: section.section("handler", |section| Handler {
            call: section.optional("call", "", values::text),
            http: section.optional("http", "", values::text),
            exec: section.list("exec", &[], values::text),
        }),
        prefetch: section.number("prefetch", 1, 1..=65_535),
        headers: section.map("headers", &[], check_header),
        concurrency: section.number("concurrency", 1, 1..=1024),
    };
    if consumer.destination.is_empty() {
        section.problem("destination", "is needed");
    }
    let Handler { call, http, exec } = &consumer.handler;
    if usize::from(call.is_some()) + usize::from(http.is_some()) + usize::from(!exec.is_empty())
        != 1
    {
        section.problem("handler", "has exactly one of call, http and exec");
    }
    consumer
}
