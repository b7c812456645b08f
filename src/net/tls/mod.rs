//! TLS by rustls: from settings and files to an encrypted connection.
//!
//! The files are looked at before each connection, and read again when one of them has changed:
//! a renewed certificate needs no restart. Sessions are not resumed, so that each connection verifies
//! the peer anew.

mod certificate;
mod error;
mod files;
mod trust;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub use error::{FileError, TlsError, Words};
use files::State;

use crate::secret::Secret;

/// How much is asked of the server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Nothing: whoever answers is spoken to.
    Nothing,
    /// Somebody who is trusted has issued it.
    Chain,
    /// The same, and it is valid for the host's name.
    Full,
}

/// The oldest version of TLS that is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MinVersion {
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

/// The client's own certificate.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    /// With the certificates that lead to the authority, PEM.
    pub cert_file: String,
    /// Its private key, PEM.
    pub key_file: String,
    /// Where the key is encrypted.
    pub key_password: Secret,
}

/// How TLS is spoken to one peer.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The section of the configuration, which errors name.
    pub section: &'static str,
    /// Where the peer's hosts stand in the configuration, for the same purpose.
    pub hosts: &'static str,
    /// How much is asked of the server's certificate.
    pub verify: Verify,
    /// Certificates of the authorities to trust, PEM; the system's where there is none.
    pub ca_file: Option<String>,
    /// The client's own certificate.
    pub client: Option<ClientCertificate>,
    /// The name that the server is asked for in place of the host's.
    pub server_name: Option<String>,
    /// The oldest version of TLS that is spoken.
    pub min_version: MinVersion,
}

impl Settings {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.section)
    }
}

/// Makes TLS connections. Clones share what was read of the files.
#[derive(Clone)]
pub struct Tls(Arc<Shared>);

struct Shared {
    settings: Settings,
    provider: Arc<CryptoProvider>,
    /// What was made of the files as they were.
    made: Mutex<Option<(State, Arc<ClientConfig>)>>,
    /// Read once: it takes its time.
    system: Mutex<Option<Arc<[CertificateDer<'static>]>>>,
}

impl Tls {
    /// Reads nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Tls(Arc::new(Shared {
            settings,
            provider: Arc::new(ring::default_provider()),
            made: Mutex::default(),
            system: Mutex::default(),
        }))
    }

    /// Reads the files, for whoever wants to know before the first connection.
    ///
    /// # Errors
    /// [`FileError`]: which file, and what is wrong with it.
    pub fn check(&self) -> Result<(), FileError> {
        self.0.config().map(drop)
    }

    /// What the errors of a connection to `host` are to name.
    pub(super) fn words(&self, host: &str) -> Words {
        Words { settings: self.0.settings.clone(), name: self.name(host).to_owned() }
    }

    fn name<'a>(&'a self, host: &'a str) -> &'a str {
        self.0.settings.server_name.as_deref().unwrap_or(host)
    }

    /// Speaks TLS on a connection over which nothing was sent or read yet.
    pub(super) async fn handshake(
        &self,
        tcp: TcpStream,
        host: &str,
    ) -> Result<Box<TlsStream<TcpStream>>, TlsError> {
        let shared = Arc::clone(&self.0);
        // Files, and with an encrypted key some work on purpose: not on the relay's thread.
        let config = tokio::task::spawn_blocking(move || shared.config());
        let config = config.await.map_err(|error| TlsError::Broken(error.to_string()))??;
        let name = self.server_name(host)?;
        let words = self.words(host);
        let stream = TlsConnector::from(config).connect(name, tcp).await;
        stream.map(Box::new).map_err(|error| words.of_handshake(&error))
    }

    fn server_name(&self, host: &str) -> Result<ServerName<'static>, TlsError> {
        let name = self.name(host);
        let bare = name.split('%').next().unwrap_or(name);
        match ServerName::try_from(bare.to_owned()) {
            Ok(name) => Ok(name),
            // It is not looked at, and an address is not sent.
            Err(_) if self.0.settings.verify != Verify::Full => {
                Ok(ServerName::IpAddress(std::net::IpAddr::from([0, 0, 0, 0]).into()))
            }
            Err(_) => Err(TlsError::Refused(format!("'{name}' is no name that a certificate has"))),
        }
    }
}

impl Shared {
    /// Made of the files as they are now.
    fn config(&self) -> Result<Arc<ClientConfig>, FileError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let state = State::of(&self.settings);
        if let Some((before, config)) = &*made
            && *before == state
        {
            return Ok(Arc::clone(config));
        }
        // What was made of the files before is not used in place of files that are wrong now.
        *made = None;
        let config = Arc::new(self.make()?);
        *made = Some((state, Arc::clone(&config)));
        Ok(config)
    }

    fn make(&self) -> Result<ClientConfig, FileError> {
        let settings = &self.settings;
        let versions: &[_] = match settings.min_version {
            MinVersion::V1_2 => &[&TLS13, &TLS12],
            MinVersion::V1_3 => &[&TLS13],
        };
        let whole = |error: rustls::Error| FileError {
            key: settings.section.to_owned(),
            reason: error.to_string(),
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(versions)
            .map_err(whole)?
            .dangerous()
            .with_custom_certificate_verifier(self.verifier()?);
        let mut config = match &settings.client {
            None => builder.with_no_client_auth(),
            Some(client) => {
                let (chain, key) = client_files(settings, client)?;
                builder.with_client_auth_cert(chain, key).map_err(|error| {
                    let reason = match error {
                        rustls::Error::InconsistentKeys(_) => {
                            format!(
                                "'{}' is not the key of the certificate in '{}'",
                                client.key_file, client.cert_file
                            )
                        }
                        error => format!("'{}' can't be used: {error}", client.key_file),
                    };
                    FileError { key: settings.key("key_file"), reason }
                })?
            }
        };
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    fn verifier(&self) -> Result<Arc<trust::Verifier>, FileError> {
        let settings = &self.settings;
        let trusted = match (&settings.ca_file, settings.verify) {
            (_, Verify::Nothing) => return Ok(Arc::new(trust::Verifier::nothing(&self.provider))),
            (Some(file), _) => files::certificates(file)
                .map_err(|reason| FileError { key: settings.key("ca_file"), reason })?
                .into(),
            (None, _) => self.system()?,
        };
        trust::Verifier::of(&trusted, settings.verify, &self.provider).map(Arc::new).map_err(
            |reason| {
                let whose = settings.ca_file.as_deref().unwrap_or("the system's");
                FileError { key: settings.key("ca_file"), reason: format!("'{whose}' {reason}") }
            },
        )
    }

    /// The certificates that the system trusts.
    fn system(&self) -> Result<Arc<[CertificateDer<'static>]>, FileError> {
        let mut system = self.system.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(certificates) = &*system {
            return Ok(Arc::clone(certificates));
        }
        let certificates: Arc<[_]> = files::system()
            .map_err(|reason| FileError { key: self.settings.key("ca_file"), reason })?;
        *system = Some(Arc::clone(&certificates));
        Ok(certificates)
    }
}

fn client_files(
    settings: &Settings,
    client: &ClientCertificate,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), FileError> {
    let chain = files::certificates(&client.cert_file)
        .map_err(|reason| FileError { key: settings.key("cert_file"), reason })?;
    let key = files::key(&client.key_file, &client.key_password, &settings.key("key_password"))
        .map_err(|reason| FileError { key: settings.key("key_file"), reason })?;
    Ok((chain, key))
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.0.settings).finish()
    }
}

/// What `tls-server-end-point` of RFC 5929 is on this connection: the hash of the server's certificate.
pub(super) fn end_point(stream: &TlsStream<TcpStream>) -> Option<Vec<u8>> {
    let (_, session) = stream.get_ref();
    certificate::end_point(session.peer_certificates()?.first()?)
}

/// Version and cipher, for the log.
pub(super) fn cipher(stream: &TlsStream<TcpStream>) -> String {
    let (_, session) = stream.get_ref();
    let version = session.protocol_version().and_then(|version| version.as_str());
    let suite = session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
    let version = version.unwrap_or("TLS").replace('_', ".");
    format!("{version} {}", suite.unwrap_or_default())
}

#[cfg(test)]
mod tests;
