//! What went wrong, in words that name the file and what to set.

use std::io;

use jiff::Timestamp;
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use super::{MinVersion, Settings};

/// A file of ours that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct FileError {
    /// Which setting names it.
    pub key: String,
    /// What is wrong; the file is named.
    pub reason: String,
}

/// Why there is no encrypted connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A file of ours can't be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// One of the two does not take the other.
    #[error("TLS: {0}")]
    Refused(String),
    /// The connection broke.
    #[error("TLS: the connection broke during the handshake: {0}")]
    Broken(String),
}

impl TlsError {
    /// Whether it will be the same until somebody mends a certificate or a setting, here or there.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        !matches!(self, TlsError::Broken(_))
    }
}

/// What the errors of a connection name.
#[derive(Clone, Debug)]
pub struct Words {
    pub(super) settings: Settings,
    /// Whom the server's certificate must be valid for.
    pub(super) name: String,
}

impl Words {
    /// What an error of the handshake means.
    pub(super) fn of_handshake(&self, error: &io::Error) -> TlsError {
        self.of(error).unwrap_or_else(|| match error.kind() {
            io::ErrorKind::UnexpectedEof => TlsError::Broken(
                "the server closed it; does it speak TLS there, and what does its log say?"
                    .to_owned(),
            ),
            _ => TlsError::Broken(error.to_string()),
        })
    }

    /// What an error of the connection means, if it is one of TLS. Servers refuse a client's certificate
    /// only after the client has seen the end of the handshake.
    #[must_use]
    pub fn of(&self, error: &io::Error) -> Option<TlsError> {
        let error = error.get_ref()?.downcast_ref::<Error>()?;
        Some(TlsError::Refused(match error {
            Error::InvalidCertificate(error) => {
                format!("the server's certificate {}", self.certificate(error))
            }
            Error::AlertReceived(alert) => self.alert(*alert),
            Error::PeerIncompatible(
                PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
                | PeerIncompatible::ServerDoesNotSupportTls12Or13,
            ) => self.version(),
            Error::InvalidMessage(_) => {
                "what answers there speaks no TLS; is this the right port?".to_owned()
            }
            error => format!("{error}"),
        }))
    }

    fn certificate(&self, error: &CertificateError) -> String {
        let key = |key| self.settings.key(key);
        match error {
            CertificateError::ExpiredContext { not_after, .. } => {
                format!("has expired: it was valid until {}; renew it there", day(*not_after))
            }
            CertificateError::NotValidYetContext { not_before, .. } => format!(
                "is not valid yet: it will be from {}; is this machine's clock right?",
                day(*not_before)
            ),
            CertificateError::UnknownIssuer => match &self.settings.ca_file {
                Some(file) => format!(
                    "was issued by nobody whom '{file}' ({}) has; put the certificate of the authority that issued it there",
                    key("ca_file")
                ),
                None => format!(
                    "was issued by nobody whom this system trusts; set {} to the certificate of the authority that issued it",
                    key("ca_file")
                ),
            },
            CertificateError::BadSignature => format!(
                "was not signed by the authority that it names, as '{}' ({}) has it",
                self.settings.ca_file.as_deref().unwrap_or("the system"),
                key("ca_file")
            ),
            CertificateError::NotValidForNameContext { presented, .. } => {
                let names: Vec<_> = presented.iter().map(|name| bare(name)).collect();
                let valid = match names.is_empty() {
                    true => "it has no subjectAltName, and its common name does not count".to_owned(),
                    false => format!("it is for {}", names.join(", ")),
                };
                let instead = match self.settings.section {
                    "broker.tls" => format!("or set {}", key("server_name")),
                    _ => format!("or have {}: verify-ca look at no name", key("mode")),
                };
                format!(
                    "is not valid for '{}': {valid}; correct {}, {instead}",
                    self.name, self.settings.hosts
                )
            }
            CertificateError::Other(other) if is_authority(other) => {
                "is an authority's own (CA:TRUE), which can't be a server's; have the authority issue one for the server"
                    .to_owned()
            }
            CertificateError::Other(other) => format!("can't be verified: {}", other.0),
            error => format!("can't be verified: {error}"),
        }
    }

    fn alert(&self, alert: AlertDescription) -> String {
        let key = |key| self.settings.key(key);
        let said = alert.as_str().map_or_else(|| format!("{alert:?}"), str::to_owned);
        match (&self.settings.client, alert) {
            (_, AlertDescription::ProtocolVersion) => self.version(),
            (None, AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure) => {
                format!(
                    "the server refuses ({said}); does it ask for a client's certificate? Set {} and {}",
                    key("cert_file"),
                    key("key_file")
                )
            }
            (
                Some(client),
                AlertDescription::CertificateRequired
                | AlertDescription::HandshakeFailure
                | AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA
                | AlertDescription::AccessDenied
                | AlertDescription::DecryptError,
            ) => format!(
                "the server refuses the certificate in '{}' ({}): {said}; is it issued by an authority that the server \
                 trusts, and not expired?",
                client.cert_file,
                key("cert_file")
            ),
            _ => format!("the server refuses: {said}"),
        }
    }

    fn version(&self) -> String {
        match self.settings.min_version {
            MinVersion::V1_3 => format!(
                "the server speaks no TLS 1.3, and {} is \"1.3\"",
                self.settings.key("min_version")
            ),
            MinVersion::V1_2 => "the server speaks neither TLS 1.2 nor TLS 1.3".to_owned(),
        }
    }
}

fn is_authority(error: &rustls::OtherError) -> bool {
    error.0.to_string() == "CaUsedAsEndEntity"
}

/// `DnsName("db.example")` as `'db.example'`.
fn bare(name: &str) -> String {
    let inner = name.split_once('(').map_or(name, |(_, rest)| rest.trim_end_matches(')'));
    format!("'{}'", inner.trim_matches('"'))
}

fn day(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds)
        .map_or_else(|_| "ever".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}
