//! A door that speaks TLS, with whatever certificate, and leads to a server that may or may not.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::authority::Identity;

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// How a door is made.
#[derive(Clone)]
pub struct Builder {
    identity: Identity,
    postgres: bool,
    only_1_2: bool,
    trusted: Option<String>,
}

impl Builder {
    /// Clients ask for TLS as PostgreSQL's do.
    #[must_use]
    pub fn postgres(mut self) -> Self {
        self.postgres = true;
        self
    }

    /// TLS 1.2 and nothing newer.
    #[must_use]
    pub fn only_tls_1_2(mut self) -> Self {
        self.only_1_2 = true;
        self
    }

    /// The server behind speaks TLS, too; it is `localhost` by a certificate of this authority (PEM).
    #[must_use]
    pub fn to_tls(mut self, authority: &str) -> Self {
        self.trusted = Some(authority.to_owned());
        self
    }

    /// Opens it to 127.0.0.1:`to`.
    #[must_use]
    pub fn open(self, to: u16) -> TlsDoor {
        let versions: &[_] = if self.only_1_2 { &[&TLS12] } else { &[&TLS12, &TLS13] };
        let chain = CertificateDer::pem_slice_iter(self.identity.certificate.as_bytes());
        let chain = chain.collect::<Result<Vec<_>, _>>().expect("PEM");
        let key = PrivateKeyDer::from_pem_slice(self.identity.key.as_bytes()).expect("PEM");
        let server = ServerConfig::builder_with_protocol_versions(versions)
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a certificate and its key");
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let connector = self.trusted.as_ref().map(|authority| {
            let mut roots = RootCertStore::empty();
            let certificate = CertificateDer::from_pem_slice(authority.as_bytes()).expect("PEM");
            roots.add(certificate).expect("an authority");
            let client = ClientConfig::builder().with_root_certificates(roots);
            TlsConnector::from(Arc::new(client.with_no_client_auth()))
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        listener.set_nonblocking(true).expect("a socket");
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let postgres = self.postgres;
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let listener = TcpListener::from_std(listener).expect("a socket");
                let serve = async {
                    while let Ok((client, _)) = listener.accept().await {
                        let way = (acceptor.clone(), connector.clone());
                        // A connection that ends early is its two ends' matter.
                        tokio::spawn(async move { pass(client, to, way, postgres).await });
                    }
                };
                tokio::select! {
                    () = serve => {}
                    _ = ended => {}
                }
            });
        });
        TlsDoor { port, end: Some(end), thread: Some(thread) }
    }
}

/// A door. Its connections are closed on drop.
pub struct TlsDoor {
    port: u16,
    end: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl TlsDoor {
    /// One that shows this certificate.
    #[must_use]
    pub fn of(identity: &Identity) -> Builder {
        Builder { identity: identity.clone(), postgres: false, only_1_2: false, trusted: None }
    }

    /// Where it listens on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for TlsDoor {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn pass(
    mut client: TcpStream,
    to: u16,
    (acceptor, connector): (TlsAcceptor, Option<TlsConnector>),
    postgres: bool,
) -> io::Result<()> {
    if postgres {
        let mut request = [0; 8];
        client.read_exact(&mut request).await?;
        if request != SSL_REQUEST {
            return Err(io::Error::other("the client does not ask for TLS"));
        }
        client.write_all(b"S").await?;
    }
    let client = acceptor.accept(client).await?;
    let mut server = TcpStream::connect(("127.0.0.1", to)).await?;
    let Some(connector) = connector else { return join(client, server).await };
    if postgres {
        server.write_all(&SSL_REQUEST).await?;
        server.read_u8().await?;
    }
    let name = ServerName::try_from("localhost").expect("a name");
    join(client, connector.connect(name, server).await?).await
}

async fn join(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    mut server: impl AsyncRead + AsyncWrite + Unpin,
) -> io::Result<()> {
    copy_bidirectional(&mut client, &mut server).await.map(|_| ())
}
