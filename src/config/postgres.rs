//! The section `postgres`: the server whose WAL is read.

use std::time::Duration;

use tokio_postgres::config::SslMode;

use super::problem::Origin;
use super::section::Section;
use super::show;
use super::twin::Found;
use super::url::PostgresUrl;
use super::values::choice;

const DEFAULT_URL: &str = "postgresql://postgres@127.0.0.1:5432/postgres";

/// How PostgreSQL is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Postgres {
    /// Hosts, database, user, and the password in force: `password_file`'s, else the URL's own.
    /// The connect timeout is in it, too.
    pub url: PostgresUrl,
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
    /// TLS towards PostgreSQL.
    pub tls: PostgresTls,
}

/// TLS towards PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresTls {
    /// Whether TLS is used and what is verified.
    pub mode: TlsMode,
    /// Certificates of the authorities to trust, PEM; the system's where empty.
    pub ca_file: Option<String>,
    /// The client's own certificate, PEM.
    pub cert_file: Option<String>,
    /// Its private key, PEM.
    pub key_file: Option<String>,
}

choice! {
    /// libpq's `sslmode`.
    TlsMode {
        /// Never TLS.
        Disable = "disable",
        /// TLS where the server has it.
        Prefer = "prefer",
        /// TLS, whoever answers.
        Require = "require",
        /// TLS with a certificate of a trusted authority.
        VerifyCa = "verify-ca",
        /// The same, and the certificate names the host.
        VerifyFull = "verify-full",
    }
}

pub(super) fn read(section: &mut Section<'_>) -> Postgres {
    let mut url = read_url(section);
    let password = section.secret_file("password_file");
    let connect_timeout = section.duration("connect_timeout", "10s", super::MS_100..=super::HOUR);
    let by_url = match url.client().get_ssl_mode() {
        SslMode::Disable => TlsMode::Disable,
        SslMode::Require => TlsMode::Require,
        _ => TlsMode::Prefer,
    };
    let tls = section.section("tls", |section| PostgresTls {
        mode: section.choice("mode", by_url),
        ca_file: section.optional("ca_file", "", super::values::text),
        cert_file: section.optional("cert_file", "", super::values::text),
        key_file: section.optional("key_file", "", super::values::text),
    });
    if tls.cert_file.is_some() && tls.key_file.is_none() {
        section.problem("tls.cert_file", "needs key_file beside it");
    }
    if tls.key_file.is_some() && tls.cert_file.is_none() {
        section.problem("tls.key_file", "needs cert_file beside it");
    }
    if let Some(password) = password {
        url.set_password(&password);
    }
    url.set_connect_timeout(connect_timeout);
    Postgres { url, connect_timeout, tls }
}

fn read_url(section: &mut Section<'_>) -> PostgresUrl {
    let found = section.text_or_file("url", "url_file");
    let found = found.unwrap_or(Found {
        text: DEFAULT_URL.to_owned(),
        origin: Origin::Default,
        from_file: false,
    });
    let key = if found.from_file { "url_file" } else { "url" };
    match PostgresUrl::parse(found.text.trim()) {
        Ok(url) => {
            if !found.from_file {
                section.line(key, Some(show::scalar(&url.to_string())), found.origin);
            }
            url
        }
        Err(complaint) => {
            section.problem_at(key, complaint, found.origin);
            default_url()
        }
    }
}

#[expect(clippy::expect_used, reason = "a constant that a test parses")]
fn default_url() -> PostgresUrl {
    PostgresUrl::parse(DEFAULT_URL).expect("a constant of ours that a test parses")
}
