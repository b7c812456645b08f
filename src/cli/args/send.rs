//! The arguments of `walpost send`.

use clap::Args;

/// Examples of `walpost send`.
pub const EXAMPLES: &str = "\
Examples:
  walpost send /queue/orders '{\"id\": 7}'
  walpost send /topic/orders --version v2 --header tenant:a - < order.json
  walpost send /queue/text --header content-type:text/plain 'hello'";

/// Flags of `send`.
#[derive(Clone, Debug, Args)]
pub struct Send {
    /// Where to, such as /queue/orders
    pub destination: String,
    /// The body; - reads it from standard input; none: the message is empty
    pub body: Option<String>,
    /// Goes behind the destination: v1 makes /queue/orders.v1
    #[arg(long, value_name = "V")]
    pub version: Option<String>,
    /// A header, its name up to the first colon; can be repeated
    #[arg(long = "header", value_name = "K:V", value_parser = header)]
    pub headers: Vec<(String, String)>,
}

fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME:VALUE".to_owned()),
    }
}
