//! What `walpost subscribe` takes.

use clap::Args;

/// Examples, below the help.
pub const EXAMPLES: &str = "\
Examples:
  walpost subscribe /topic/orders.v1                            print what is published
  walpost subscribe /topic/orders.v1 --queue billing --call billing.on_order
  walpost subscribe /queue/orders --http http://127.0.0.1:8000/orders
  walpost subscribe /queue/orders --exec ./on-order --verbose

A function has the parameters (body jsonb, headers jsonb). A command gets the body on standard input
and the headers as WALPOST_HEADER_… in its environment; --exec takes the rest of the line.";

/// Flags of `subscribe`.
#[derive(Clone, Debug, Args)]
pub struct Subscribe {
    /// What to subscribe to, as the broker names it: /topic/…, /queue/…
    pub destination: String,
    /// The queue's name; by default the last part of the destination
    #[arg(long, value_name = "NAME")]
    pub queue: Option<String>,
    /// Call this SQL function; its effect and the note that the message is handled commit together
    #[arg(long, value_name = "FUNCTION", group = "handler")]
    pub call: Option<String>,
    /// POST to this URL: 2xx handled, 4xx refused, anything else again later
    #[arg(long, value_name = "URL", group = "handler")]
    pub http: Option<String>,
    /// Run this command: exit status 0 handled, else refused; killed after a minute
    #[arg(
        long,
        value_name = "CMD",
        group = "handler",
        num_args = 1..,
        allow_hyphen_values = true
    )]
    pub exec: Vec<String>,
}
