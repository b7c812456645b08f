//! The configuration's words on TLS, turned into what `net` is told.

use tokio_postgres::config::ChannelBinding;

use crate::config::{BrokerTls, Config, PostgresTls, TlsMode, TlsVersion};
use crate::net::tls::{ClientCertificate, FileError, MinVersion, Settings, Tls, Verify};
use crate::net::{self, Demand};
use crate::secret::Secret;
use crate::source;

/// libpq's modes. As there, a file of authorities is used whatever the mode.
pub(super) fn postgres(tls: &PostgresTls) -> net::PostgresTls {
    let verify = match tls.mode {
        TlsMode::VerifyFull => Verify::Full,
        TlsMode::VerifyCa => Verify::Chain,
        _ if tls.ca_file.is_some() => Verify::Chain,
        TlsMode::Disable | TlsMode::Prefer | TlsMode::Require => Verify::Nothing,
    };
    let demand = match tls.mode {
        TlsMode::Disable => Demand::Never,
        TlsMode::Prefer => Demand::Offered,
        TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => {
            Demand::Always(tls.mode.as_str())
        }
    };
    let settings = Settings {
        section: "postgres.tls",
        hosts: "postgres.url",
        verify,
        ca_file: tls.ca_file.clone(),
        client: client(&tls.cert_file, &tls.key_file, &Secret::default()),
        server_name: None,
        min_version: MinVersion::V1_2,
    };
    net::PostgresTls { demand, tls: Tls::new(settings) }
}

/// None: no TLS.
pub(super) fn broker(tls: &BrokerTls) -> Option<Tls> {
    let settings = Settings {
        section: "broker.tls",
        hosts: "broker.hosts",
        verify: Verify::Full,
        ca_file: tls.ca_file.clone(),
        client: client(&tls.cert_file, &tls.key_file, &tls.key_password),
        server_name: tls.server_name.clone(),
        min_version: match tls.min_version {
            TlsVersion::V1_2 => MinVersion::V1_2,
            TlsVersion::V1_3 => MinVersion::V1_3,
        },
    };
    tls.enabled.then(|| Tls::new(settings))
}

fn client(
    cert_file: &Option<String>,
    key_file: &Option<String>,
    key_password: &Secret,
) -> Option<ClientCertificate> {
    Some(ClientCertificate {
        cert_file: cert_file.clone()?,
        key_file: key_file.clone()?,
        key_password: key_password.clone(),
    })
}

/// libpq's word, out of the url.
pub(super) fn channel_binding(word: ChannelBinding) -> source::ChannelBinding {
    match word {
        ChannelBinding::Disable => source::ChannelBinding::Never,
        ChannelBinding::Require => source::ChannelBinding::Always,
        _ => source::ChannelBinding::Offered,
    }
}

pub(super) fn check(config: &Config) -> Result<(), Vec<FileError>> {
    let towards_postgres = postgres(&config.postgres.tls);
    let mut wrong = Vec::new();
    if towards_postgres.demand != Demand::Never {
        wrong.extend(towards_postgres.tls.check().err());
    }
    wrong.extend(broker(&config.broker.tls).and_then(|tls| tls.check().err()));
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}
