//! How a text becomes a duration, a size, an address, a name.
//!
//! Each parser answers a text that it does not take with a complaint that follows the quoted
//! text: `"5x"` *is no duration; write 250ms, 10s, 1h or 7d*.

use std::fmt;
use std::net::Ipv6Addr;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytesize::ByteSize;

use crate::template::Template;

/// A host and a TCP port. Prints as `host:port`, an IPv6 address in brackets: `[::1]:61613`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// A name or an address, without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A table by its schema and name, as the catalogue spells them (no quotes, case kept). Prints
/// as `schema.name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TableRef {
    /// The schema.
    pub schema: String,
    /// The table.
    pub name: String,
}

impl fmt::Display for TableRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

pub(super) fn duration(text: &str, range: &RangeInclusive<Duration>) -> Result<Duration, String> {
    let wrong = || "is no duration; write 250ms, 10s, 1h or 7d".to_owned();
    let value = humantime::parse_duration(text).map_err(|_| wrong())?;
    within(
        value,
        range,
        |limit| humantime::format_duration(*limit).to_string().replace("days", "d"),
        ["short", "long"],
    )
}

pub(super) fn size(text: &str, range: &RangeInclusive<u64>) -> Result<u64, String> {
    let wrong = || "is no size; write 512KiB, 16MiB or 1GiB".to_owned();
    let value = text.parse::<ByteSize>().map_err(|_| wrong())?.as_u64();
    within(
        value,
        range,
        |limit| ByteSize(*limit).to_string().replace(' ', "").replace(".0", ""),
        ["small", "large"],
    )
}

pub(super) fn number(text: &str, range: &RangeInclusive<u64>) -> Result<u64, String> {
    let value = text.parse::<u64>().map_err(|_| "is no whole number".to_owned())?;
    within(value, range, u64::to_string, ["small", "large"])
}

fn within<T: PartialOrd>(
    value: T,
    range: &RangeInclusive<T>,
    show: impl Fn(&T) -> String,
    [less, more]: [&str; 2],
) -> Result<T, String> {
    if value < *range.start() {
        Err(format!("is too {less}; the least is {}", show(range.start())))
    } else if value > *range.end() {
        Err(format!("is too {more}; the most is {}", show(range.end())))
    } else {
        Ok(value)
    }
}

pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "true" | "True" | "TRUE" => Ok(true),
        "false" | "False" | "FALSE" => Ok(false),
        _ => Err("is neither true nor false".to_owned()),
    }
}

/// `host:port`, the host a name, an IPv4 address or an IPv6 address in brackets.
pub(super) fn host_port(text: &str) -> Result<HostPort, String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) =
                rest.split_once(']').ok_or("has '[' without ']'; write [::1]:61613")?;
            host.parse::<Ipv6Addr>()
                .map_err(|_| "has no IPv6 address in its brackets; write [::1]:61613")?;
            (host, rest.strip_prefix(':'))
        }
        None if text.matches(':').count() > 1 => {
            return Err(
                "has more than one ':'; write an IPv6 address in brackets, as in [::1]:61613"
                    .to_owned(),
            );
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() {
        return Err("has no host before the ':'; write host:port".to_owned());
    }
    if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte)) {
        return Err("has a host that is no name and no address; write host:port".to_owned());
    }
    if port.is_none() && !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("is no host:port; write 127.0.0.1:{host}"));
    }
    let port = port.ok_or("has no port; write host:port, as in 127.0.0.1:61613")?;
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(port) if is_number => Ok(HostPort { host: host.to_owned(), port }),
        _ => Err("has a port that is no number up to 65535".to_owned()),
    }
}

/// [`host_port`] for a peer to connect to: port 0 is nobody's.
pub(super) fn peer(text: &str) -> Result<HostPort, String> {
    match host_port(text)? {
        HostPort { port: 0, .. } => Err("has port 0, which nobody can listen on".to_owned()),
        peer => Ok(peer),
    }
}

/// A replication slot's name by PostgreSQL's own rule.
pub(super) fn slot(text: &str) -> Result<String, String> {
    let fits =
        text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    match text.len() {
        1..=63 if fits => Ok(text.to_owned()),
        1..=63 => Err("is no slot name; PostgreSQL takes a-z, 0-9 and _ only".to_owned()),
        _ => Err("is no slot name; PostgreSQL takes 1 to 63 characters".to_owned()),
    }
}

/// Any PostgreSQL identifier, as the catalogue spells it.
pub(super) fn identifier(text: &str) -> Result<String, String> {
    if text.contains('"') {
        return Err("has a quote; write the name as it is, without quotes".to_owned());
    }
    if text.is_empty() || text.len() > 63 || text.chars().any(char::is_control) {
        return Err("is no name; PostgreSQL takes 1 to 63 bytes".to_owned());
    }
    Ok(text.to_owned())
}

/// `schema.table`.
pub(super) fn table(text: &str) -> Result<TableRef, String> {
    match text.split_once('.') {
        Some((schema, name)) if !name.contains('.') => {
            Ok(TableRef { schema: identifier(schema)?, name: identifier(name)? })
        }
        Some(_) => Err("has more than one '.'; write schema.table".to_owned()),
        None => Err(format!("has no schema; write public.{text}")),
    }
}

/// Any text that STOMP can carry, that is, without NUL.
pub(super) fn text(text: &str) -> Result<String, String> {
    if text.contains('\0') {
        return Err("has a NUL character".to_owned());
    }
    Ok(text.to_owned())
}

/// A template, checked and kept as it is written.
pub(super) fn template(text: &str) -> Result<String, String> {
    Template::parse(text).map_err(|error| format!("is no template: {error}"))?;
    self::text(text)
}

/// A header name that may be set for every message.
pub(super) fn header_name(name: &str) -> Result<(), String> {
    const OURS: [&str; 7] =
        ["destination", "receipt", "transaction", "content-length", "id", "ack", "message-id"];
    if name.is_empty() || name.contains('\0') {
        return Err("is no header name".to_owned());
    }
    if OURS.contains(&name) {
        return Err("is a header that only the relay may set; choose another name".to_owned());
    }
    Ok(())
}

/// Declares an enum of a key's possible values, each with its spelling.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// As it is written in the configuration.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl $crate::config::values::Choice for $name {
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn spelling(self) -> &'static str {
                self.as_str()
            }
        }
    };
}
pub(super) use choice;

/// One of a few words.
pub(super) trait Choice: Copy + 'static {
    /// Every value, in the order of the documentation.
    const ALL: &'static [Self];

    /// As it is written in the configuration.
    fn spelling(self) -> &'static str;

    /// The value of that spelling.
    fn parse(text: &str) -> Result<Self, String> {
        Self::ALL.iter().copied().find(|choice| choice.spelling() == text).ok_or_else(|| {
            let words: Vec<&str> = Self::ALL.iter().map(|choice| choice.spelling()).collect();
            let (last, others) = words.split_last().unwrap_or((&"", &[]));
            match others {
                [] => format!("is not {last}"),
                _ => format!("is none of {} and {last}", others.join(", ")),
            }
        })
    }
}
