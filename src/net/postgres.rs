//! The way to PostgreSQL: a connection, and TLS on it where the mode and the server say so.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::stream::{self, Address, ConnectError, Stream};
use super::tls::{MinVersion, Settings, Tls, TlsError, Verify};

/// SSLRequest: its length, and the number that stands in place of a protocol version.
const REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xD2, 0x16, 0x2F];

/// Whether TLS is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Never.
    Never,
    /// Where the server has it.
    Offered,
    /// Always; with the mode's name, for errors.
    Always(&'static str),
}

/// How PostgreSQL is spoken to.
#[derive(Clone, Debug)]
pub struct PostgresTls {
    /// Whether TLS is spoken.
    pub demand: Demand,
    /// How.
    pub tls: Tls,
}

impl PostgresTls {
    /// No TLS.
    #[must_use]
    pub fn never() -> Self {
        let tls = Settings {
            section: "postgres.tls",
            hosts: "postgres.url",
            verify: Verify::Nothing,
            ca_file: None,
            client: None,
            server_name: None,
            min_version: MinVersion::V1_2,
        };
        PostgresTls { demand: Demand::Never, tls: Tls::new(tls) }
    }
}

/// Connects, and speaks TLS as `tls` has it; never on a Unix socket, which leads to this machine only.
///
/// # Errors
/// [`ConnectError`]: nothing there, no answer within `timeout`, or no TLS where it has to be.
pub async fn connect_postgres(
    address: &Address,
    tls: &PostgresTls,
    timeout: Duration,
) -> Result<Stream, ConnectError> {
    stream::in_time(address, timeout, async {
        let stream = stream::open(address).await?;
        match (stream, address) {
            (Stream::Tcp(tcp), Address::Tcp(host, _)) if tls.demand != Demand::Never => {
                negotiate(tcp, host, address, tls).await
            }
            (stream, _) => Ok(stream),
        }
    })
    .await
}

async fn negotiate(
    mut tcp: tokio::net::TcpStream,
    host: &str,
    address: &Address,
    tls: &PostgresTls,
) -> Result<Stream, ConnectError> {
    let refused = |reason: String| ConnectError::Tls {
        address: address.clone(),
        error: TlsError::Refused(reason),
    };
    let failed = |error| ConnectError::Io { address: address.clone(), error };
    tcp.write_all(&REQUEST).await.map_err(failed)?;
    // One byte and no more: what comes behind it belongs to TLS, whoever sent it (CVE-2021-23222).
    let answer = tcp.read_u8().await.map_err(failed)?;
    match (answer, tls.demand) {
        (b'S', _) => stream::encrypt(tcp, host, address, &tls.tls).await,
        (b'N', Demand::Always(mode)) => Err(refused(format!(
            "PostgreSQL does not offer it, and postgres.tls.mode is {mode}: set ssl = on there (show ssl), with \
             ssl_cert_file and ssl_key_file; nothing was sent to it"
        ))),
        (b'N', _) => Ok(Stream::Tcp(tcp)),
        // Nobody knows yet who that is: its words are not shown (CVE-2024-10977).
        (b'E', _) => Err(failed(std::io::Error::other(
            "the server answers the request for TLS with an error, which is in its log",
        ))),
        (_, _) => Err(refused(
            "what answers there is no PostgreSQL; does postgres.url name the right port?"
                .to_owned(),
        )),
    }
}
