//! PostgreSQL's connection URL, shown without its password.

use std::fmt;
use std::time::Duration;

use tokio_postgres::config::{Host, TargetSessionAttrs};

use crate::secret::{HIDDEN, Secret};

/// Where PostgreSQL is and who connects, from a URL (`postgresql://user@host:5432/database`) or
/// from words (`host=… user=… dbname=…`). Several hosts are tried in turn; the one that accepts
/// writes is used.
///
/// `Display` and `Debug` print users, hosts, ports and the database, and never the password.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl {
    client: tokio_postgres::Config,
}

impl PostgresUrl {
    /// Parses it; the complaint never contains a part of the text, since any part may be a piece
    /// of a badly quoted password.
    pub(super) fn parse(text: &str) -> Result<PostgresUrl, String> {
        let mut client = text.parse::<tokio_postgres::Config>().map_err(|error| {
            let cause =
                std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            // Of the client's causes this one names a fixed word only.
            let cause = match misplaced(text) {
                hint if hint.is_empty() && cause.starts_with("invalid value for option") => {
                    format!(" ({cause})")
                }
                hint => hint,
            };
            format!(
                "is no connection URL; write postgresql://user@host:5432/database{cause}. {ENCODE}"
            )
        })?;
        for host in client.get_hosts() {
            let known = match host {
                Host::Tcp(name) => {
                    !name.is_empty()
                        && name
                            .bytes()
                            .all(|byte| byte.is_ascii_alphanumeric() || b".-_:%".contains(&byte))
                }
                #[cfg(unix)]
                Host::Unix(_) => true,
            };
            if !known {
                return Err(format!("has a host that is no name and no address. {ENCODE}"));
            }
        }
        if !client.get_hostaddrs().is_empty() {
            return Err("has a 'hostaddr'; write the address as the host".to_owned());
        }
        // An unencoded password ends early: what is left of it stands where the database should.
        let database = client.get_dbname().unwrap_or_default();
        if text.contains("://") && database.contains(['@', '/', ':']) {
            return Err(format!("has a database name with / @ or : in it. {ENCODE}"));
        }
        if client.get_hosts().is_empty() {
            return Err("names no host; write postgresql://user@host:5432/database".to_owned());
        }
        if client.get_user().is_none_or(str::is_empty) {
            return Err("names no user; write postgresql://user@host:5432/database".to_owned());
        }
        if matches!(client.get_ports().len(), count if count > 1 && count != client.get_hosts().len())
        {
            return Err("has not one port a host".to_owned());
        }
        if client.get_application_name().is_none() {
            client.application_name("walpost");
        }
        client.target_session_attrs(TargetSessionAttrs::ReadWrite);
        Ok(PostgresUrl { client })
    }

    /// Settings for a client, password and connect timeout included.
    #[must_use]
    pub fn client(&self) -> &tokio_postgres::Config {
        &self.client
    }

    /// The user that connects.
    #[must_use]
    pub fn user(&self) -> &str {
        self.client.get_user().unwrap_or_default()
    }

    /// The database; PostgreSQL's own default, the user's name, where none is named.
    #[must_use]
    pub fn database(&self) -> &str {
        self.client.get_dbname().unwrap_or(self.user())
    }

    /// Each host with its port, in the order in which they are tried.
    pub fn hosts(&self) -> impl Iterator<Item = (&Host, u16)> {
        let ports = self.client.get_ports();
        let port = move |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        self.client.get_hosts().iter().enumerate().map(move |(index, host)| (host, port(index)))
    }

    /// The password, if one is known.
    #[must_use]
    pub fn password(&self) -> Option<Secret> {
        let bytes = self.client.get_password()?;
        Some(Secret::new(String::from_utf8_lossy(bytes).into_owned()))
    }

    pub(super) fn set_password(&mut self, password: &Secret) {
        self.client.password(password.expose());
    }

    pub(super) fn set_connect_timeout(&mut self, timeout: Duration) {
        self.client.connect_timeout(timeout);
    }
}

const ENCODE: &str = "A password with one of : / @ ? # % in it goes into postgres.password_file, or is percent-encoded";

/// libpq's options, or values, that the client does not know, with what to use in their place.
fn misplaced(text: &str) -> String {
    let options = [
        ("sslmode=verify", "postgres.tls.mode"),
        ("sslrootcert=", "postgres.tls.ca_file"),
        ("sslcert=", "postgres.tls.cert_file"),
        ("sslkey=", "postgres.tls.key_file"),
        ("passfile=", "postgres.password_file"),
    ];
    let found = options.iter().find(|(option, _)| text.contains(option));
    let named = found.and_then(|(option, key)| Some((option.split('=').next()?, key)));
    named.map(|(option, key)| format!("; use {key} in place of '{option}'")).unwrap_or_default()
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgresql://{}", self.user())?;
        if self.client.get_password().is_some() {
            write!(f, ":{HIDDEN}")?;
        }
        for (index, (host, port)) in self.hosts().enumerate() {
            f.write_str(if index == 0 { "@" } else { "," })?;
            match host {
                Host::Tcp(name) if name.contains(':') => write!(f, "[{name}]:{port}")?,
                Host::Tcp(name) => write!(f, "{name}:{port}")?,
                #[cfg(unix)]
                Host::Unix(path) => {
                    write!(f, "{}:{port}", path.display().to_string().replace('/', "%2F"))?
                }
            }
        }
        write!(f, "/{}", self.database())
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
