//! The connection: making it, pinning its session, knowing when it has ended.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_postgres::config::{Host, SslMode, SslNegotiation};
use tokio_postgres::{Client, Config};

use super::error::{StoreError, tls_refusal};
use super::handed::Handed;
use super::slot_settings::APPLICATION_NAME;
use super::sqlstate::Class;
use crate::net::{Address, ConnectError, PostgresTls, connect_postgres};

/// Settings that change what is read or promised, so that neither the role's nor the database's
/// own settings may decide: no row hidden by a policy, a commit is on disk when it is answered (here:
/// a synchronous standby may be missing, and what it lacks of ours is only older), no other schema in
/// between, nothing waits for ever, and no short statement is compiled first. They come last and so
/// win over the url's.
const SESSION: &str = "-c row_security=off -c synchronous_commit=local -c search_path=pg_catalog \
    -c datestyle=ISO -c intervalstyle=postgres -c timezone=UTC -c extra_float_digits=1 -c bytea_output=hex \
    -c default_transaction_isolation=read\\ committed -c jit=off \
    -c lock_timeout=10s -c statement_timeout=30s -c idle_in_transaction_session_timeout=60s";

/// Settings for what an application's own function does: its role's own, but nothing that is called
/// takes for ever ([`HANDLER_LIMIT`]).
const OF_THE_ROLE: &str = "-c statement_timeout=60s";

/// How long a message may be handled.
pub const HANDLER_LIMIT: Duration = Duration::from_secs(60);

const CONNECTING: &str = "connecting to PostgreSQL";

/// The oldest `server_version_num` that works.
const OLDEST: u32 = 140_000;

/// How PostgreSQL is reached.
#[derive(Clone, Debug)]
pub struct ConnectSettings {
    /// `postgres.url` with its password; several hosts allowed. `Debug` hides the password.
    pub client: Config,
    /// For each host: name, TCP, login.
    pub connect_timeout: Duration,
    /// Whether TLS is spoken, and how. What the url says of it does not count here.
    pub tls: PostgresTls,
}

impl ConnectSettings {
    /// The client's configuration, with the session pinned.
    ///
    /// # Errors
    /// [`StoreError::Url`].
    fn pinned(&self, session: &str) -> Result<Config, StoreError> {
        let mut config = self.client.clone();
        if config.get_hosts().is_empty() {
            return Err(StoreError::Url);
        }
        let options = match config.get_options() {
            Some(options) => format!("{options} {session}"),
            None => session.to_owned(),
        };
        config
            .options(options)
            .application_name(APPLICATION_NAME)
            // The connection is handed over when TLS has been spoken, or not.
            .ssl_mode(SslMode::Require)
            .ssl_negotiation(SslNegotiation::Direct);
        Ok(config)
    }

    /// User and database (the database is the user's namesake unless given).
    #[must_use]
    pub fn user_and_database(&self) -> (String, String) {
        let user = self.client.get_user().unwrap_or("postgres").to_owned();
        let database = self.client.get_dbname().map_or_else(|| user.clone(), str::to_owned);
        (user, database)
    }
}

/// Why a connection has ended.
#[derive(Clone, Debug)]
pub struct ConnectionEnd {
    /// [`Class::ShuttingDown`] where the server said so (57P01).
    pub class: Class,
    /// The reason in words, on one line.
    pub reason: String,
}

/// An open SQL connection with its session pinned.
///
/// The connection itself is driven by a task on the runtime of the caller and ends with the
/// `Store`. There is no reconnecting in here: whoever owns a `Store` makes a new one.
#[derive(Debug)]
pub struct Store {
    client: Client,
    version: u32,
    ended: watch::Receiver<Option<ConnectionEnd>>,
    task: AbortHandle,
}

/// The client alone would wait for the answer to a statement that was given up, for as long as the
/// statement takes.
impl Drop for Store {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Store {
    /// Connects to the host that accepts writes, trying the hosts of the url in order.
    ///
    /// # Errors
    /// Of several hosts, what a server answered, else what befell the last one.
    /// [`StoreError::class`] says whether to try again.
    pub async fn connect(settings: &ConnectSettings) -> Result<Store, StoreError> {
        Store::connect_with(settings, SESSION).await
    }

    /// The same, with the role's own settings: for functions of the application.
    ///
    /// # Errors
    /// As [`Store::connect`].
    pub async fn connect_as_role(settings: &ConnectSettings) -> Result<Store, StoreError> {
        Store::connect_with(settings, OF_THE_ROLE).await
    }

    async fn connect_with(settings: &ConnectSettings, session: &str) -> Result<Store, StoreError> {
        let mut failure = StoreError::Url;
        let config = settings.pinned(session)?;
        for address in addresses(&config) {
            match Store::connect_to(&address, &config, settings).await {
                Ok(store) => return Ok(store),
                Err(_) if matches!(failure, StoreError::Server { .. }) => {}
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Connects to one host. A frozen server accepts connections, so that everything is timed here.
    async fn connect_to(
        address: &Address,
        config: &Config,
        settings: &ConnectSettings,
    ) -> Result<Store, StoreError> {
        let (after, server) = (settings.connect_timeout, address.to_string());
        let late = || StoreError::Timeout { what: CONNECTING, server: server.clone(), after };
        let logged_in = tokio::time::timeout(after, log_in(address, config, settings));
        let mut store = logged_in.await.map_err(|_| late())??;
        let introduced = tokio::time::timeout(after, store.introduce(&server));
        introduced.await.map_err(|_| late())??;
        Ok(store)
    }

    /// `server_version_num`: 150008 for 15.8.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Waits until the connection has ended, and says why.
    pub async fn ended(&self) -> ConnectionEnd {
        let mut ended = self.ended.clone();
        let end = match ended.wait_for(Option::is_some).await {
            Ok(end) => end.clone(),
            Err(_) => None,
        };
        end.unwrap_or(ConnectionEnd {
            class: Class::Retry,
            reason: "the connection's task ended".to_owned(),
        })
    }

    /// The client, for the queries of this module.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Asks who is at the other end, and whether it accepts writes.
    async fn introduce(&mut self, server: &str) -> Result<(), StoreError> {
        let sql = "SELECT current_setting('server_version_num')::integer, \
                          current_setting('transaction_read_only')::boolean";
        let row = self.one("asking for the server's version", sql, &[]).await?;
        if row.get(1)? {
            return Err(StoreError::ReadOnly { server: server.to_owned() });
        }
        self.version = u32::try_from(row.get::<i32>(0)?).unwrap_or(0);
        if self.version < OLDEST { Err(StoreError::TooOld(self.version)) } else { Ok(()) }
    }
}

/// From nothing to a login, with a task that drives the connection.
async fn log_in(
    address: &Address,
    config: &Config,
    settings: &ConnectSettings,
) -> Result<Store, StoreError> {
    let stream = connect_postgres(address, &settings.tls, settings.connect_timeout).await;
    let stream = stream.map_err(|error| match error {
        ConnectError::Tls { address, error } => StoreError::Tls { address, error },
        ConnectError::Io { error, .. } => {
            StoreError::Connection { what: CONNECTING, cause: format!("{address}: {error}") }
        }
        ConnectError::TimedOut { timeout, .. } => {
            StoreError::Timeout { what: CONNECTING, server: address.to_string(), after: timeout }
        }
    })?;
    let words = stream.words().cloned();
    let (client, connection) = config.connect_raw(stream, Handed).await.map_err(|error| {
        // A server refuses a certificate of ours only now.
        match words.and_then(|words| tls_refusal(&error, &words)) {
            Some(error) => StoreError::Tls { address: address.clone(), error },
            None => StoreError::from_client(CONNECTING, &error).at(&address.to_string()),
        }
    })?;
    let (tell, ended) = watch::channel(None);
    let task = tokio::spawn(async move {
        let end = match connection.await {
            Ok(()) => ConnectionEnd { class: Class::Retry, reason: "closed".to_owned() },
            Err(error) => {
                let error = StoreError::from_client("the SQL connection ended", &error);
                ConnectionEnd { class: error.class(), reason: error.to_string() }
            }
        };
        // Nobody listens any more when the Store itself was dropped.
        let _ = tell.send(Some(end));
    });
    Ok(Store { client, version: 0, ended, task: task.abort_handle() })
}

/// Where the hosts of a configuration listen.
fn addresses(config: &Config) -> Vec<Address> {
    let (hosts, ips, ports) = (config.get_hosts(), config.get_hostaddrs(), config.get_ports());
    let one = |at: usize| {
        let port = ports.get(at).or(ports.first()).copied().unwrap_or(5432);
        match (ips.get(at), hosts.get(at)?) {
            (Some(ip), _) => Some(Address::Tcp(ip.to_string(), port)),
            (None, Host::Tcp(name)) => Some(Address::Tcp(name.clone(), port)),
            (None, Host::Unix(folder)) => {
                Some(Address::Unix(folder.join(format!(".s.PGSQL.{port}"))))
            }
        }
    };
    (0..hosts.len()).filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> ConnectSettings {
        ConnectSettings {
            client: url.parse().unwrap(),
            connect_timeout: Duration::from_secs(1),
            tls: PostgresTls::never(),
        }
    }

    #[test]
    fn the_password_does_not_show() {
        let shown = format!("{:?}", settings("postgresql://me:hunter2@db/x"));
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn a_url_names_a_host() {
        assert!(matches!(settings("user=me").pinned(SESSION), Err(StoreError::Url)));
    }

    #[test]
    fn the_session_is_pinned_after_the_options_of_the_url() {
        let url = "postgresql://me@a:1,b:2/x?options=-c%20row_security%3Don";
        let config = settings(url).pinned(SESSION).unwrap();
        let options = config.get_options().unwrap();
        assert!(options.starts_with("-c row_security=on -c row_security=off"), "{options}");
        let hosts = addresses(&config);
        assert_eq!(hosts, [Address::Tcp("a".to_owned(), 1), Address::Tcp("b".to_owned(), 2)]);
        assert_eq!(config.get_user(), Some("me"));
    }

    #[test]
    fn the_database_is_the_users_namesake() {
        let names = |url| settings(url).user_and_database();
        assert_eq!(names("postgresql://me@db"), ("me".to_owned(), "me".to_owned()));
        assert_eq!(names("postgresql://me@db/shop"), ("me".to_owned(), "shop".to_owned()));
    }
}
