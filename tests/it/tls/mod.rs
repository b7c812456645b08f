//! TLS towards both sides, against real servers with certificates of an authority of the tests' own.

mod broker;
mod files;
mod postgres;
mod relay;
mod scram;
mod scripted;

use std::fs;
use std::future::poll_fn;
use std::net::TcpStream;
use std::sync::{Arc, OnceLock};

use tokio::time::Instant;
use walpost::broker::lane::{Attempt, Lane};
use walpost::config::{Config, Sources, load};
use walpost::relay::from_config;
use walpost::source;
use walpost::store::Store;
use walpost_testkit::postgres::Database;
use walpost_testkit::sandbox::Folder;
use walpost_testkit::{Authority, Identity, Postgres, RabbitMq, ports, until};

use crate::rig::LONG;

/// The name that the servers' certificates are for; their address is not in them.
const NAME: &str = "localhost";
const PASSWORD: &str = "hunter2-and-more";

/// Authorities, and files for whoever needs them.
struct Papers {
    folder: Folder,
    authority: Authority,
    /// Nobody trusts it.
    stranger: Authority,
}

impl Papers {
    fn get() -> &'static Papers {
        static PAPERS: OnceLock<Papers> = OnceLock::new();
        PAPERS.get_or_init(|| {
            let papers = Papers {
                folder: Folder::new("papers", None),
                authority: Authority::new("walpost's tests"),
                stranger: Authority::new("a stranger"),
            };
            papers.file("ca.pem", &papers.authority.pem());
            papers.file("stranger.pem", &papers.stranger.pem());
            for name in ["certified", "relay"] {
                papers.identity(name, &papers.authority.client(name));
            }
            papers.identity("impostor", &papers.stranger.client("certified"));
            papers
        })
    }

    /// Writes a file and gives its path.
    fn file(&self, name: &str, text: &str) -> String {
        self.folder.write(name, text);
        self.path(name)
    }

    fn identity(&self, name: &str, identity: &Identity) {
        self.file(&format!("{name}.crt"), &identity.certificate);
        self.file(&format!("{name}.key"), &identity.key);
    }

    /// What OpenSSL has made: a certificate and a key of `tests/data/tls`.
    fn made(certificate: &str, key: &str) -> Identity {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls");
        let read = |name: &str| fs::read_to_string(format!("{folder}/{name}")).unwrap();
        Identity { certificate: read(certificate), key: read(key) }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

/// A PostgreSQL with TLS. Roles: `certified` logs in by certificate, `scram` by password over TLS only,
/// `cleartext` by a password that is sent as it is.
fn postgres() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(|| {
        let papers = Papers::get();
        let server = Postgres::builder()
            .fast()
            .tls(&papers.authority.server(&[NAME]), &papers.authority.pem())
            .hba("hostssl all certified 127.0.0.1/32 cert")
            .hba("hostssl all scram 127.0.0.1/32 scram-sha-256")
            .hba("hostnossl all scram 127.0.0.1/32 reject")
            .hba("host all cleartext 127.0.0.1/32 password")
            .start();
        for role in ["certified", "scram", "cleartext"] {
            let sql =
                format!("CREATE ROLE {role} LOGIN SUPERUSER REPLICATION PASSWORD '{PASSWORD}'");
            server.sql("postgres", &sql);
        }
        server
    })
}

/// A RabbitMQ that takes STOMP in plain text as all do, and on another port by TLS from whoever has a certificate.
struct TlsRabbit {
    node: RabbitMq,
    port: u16,
}

fn rabbitmq() -> &'static TlsRabbit {
    static NODE: OnceLock<TlsRabbit> = OnceLock::new();
    NODE.get_or_init(|| {
        let papers = Papers::get();
        papers.identity("rabbitmq", &papers.authority.server(&[NAME]));
        let port = ports::free();
        let node = RabbitMq::start_with(&format!(
            "stomp.listeners.ssl.1 = 127.0.0.1:{port}\n\
             ssl_options.cacertfile = {}\n\
             ssl_options.certfile = {}\n\
             ssl_options.keyfile = {}\n\
             ssl_options.verify = verify_peer\n\
             ssl_options.fail_if_no_peer_cert = true\n",
            papers.path("ca.pem"),
            papers.path("rabbitmq.crt"),
            papers.path("rabbitmq.key"),
        ));
        until(LONG, "the listener for TLS is there", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        TlsRabbit { node, port }
    })
}

fn config(yaml: &str) -> Config {
    match load(Sources::default().text("walpost.yaml", yaml.to_owned())) {
        Ok(loaded) => loaded.config,
        Err(error) => panic!("{yaml}: {error}"),
    }
}

/// The same for PostgreSQL: `login` is user and password, `tls` the section's keys.
fn towards(port: u16, host: &str, login: &str, database: &str, tls: &str) -> Config {
    config(&format!(
        "postgres: {{url: 'postgresql://{login}@{host}:{port}/{database}', tls: {{{tls}}}}}"
    ))
}

/// Both connections, or what each of them says.
struct Both {
    store: Result<Store, String>,
    source: Result<source::Replication, String>,
}

impl Both {
    async fn connect(config: &Config) -> Both {
        let store = Store::connect(&from_config::connect_settings(config)).await;
        let settings = from_config::settings(config).unwrap();
        let source = source::connect(&settings.source).await;
        Both {
            store: store.map_err(|error| error.to_string()),
            source: source.map_err(|error| error.to_string()),
        }
    }

    /// Both are refused, with the same words.
    #[track_caller]
    fn refused(self, words: &[&str]) {
        let errors = [self.store.map(drop), self.source.map(drop)];
        for error in errors {
            let error = error.expect_err("connected");
            for word in words {
                assert!(error.contains(word), "{word}: {error}");
            }
            assert!(!error.contains(PASSWORD), "{error}");
        }
    }

    /// Both are there, and PostgreSQL itself says whether they are encrypted.
    #[track_caller]
    fn connected(self, database: &Database<'_>, encrypted: bool) {
        let (_store, source) = (self.store.expect("SQL"), self.source.expect("replication"));
        assert_eq!(source.cipher().is_some(), encrypted);
        let told = database.sql(&format!(
            "SELECT count(*) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)
             WHERE application_name = 'walpost' AND datname = '{}' AND ssl = {encrypted}",
            database.name()
        ));
        assert_eq!(told, "2");
    }
}

/// One attempt to connect to a broker.
async fn attempt(yaml: &str) -> Result<(), String> {
    let settings = from_config::settings(&config(yaml)).unwrap();
    let mut lane = Lane::new(Arc::clone(&settings.broker), Instant::now());
    let attempt = tokio::time::timeout(LONG, poll_fn(|cx| lane.poll_connect(cx))).await.unwrap();
    match attempt {
        Attempt::Connected => {
            let connection = lane.connection().unwrap();
            assert!(connection.cipher().is_some());
            connection.leave().await;
            Ok(())
        }
        Attempt::Failed { error, .. } => Err(error.to_string()),
    }
}
