//! The connection: making it, pinning its session, knowing when it has ended.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::{Client, Config, NoTls};

use super::error::{self, StoreError};
use super::slot_settings::APPLICATION_NAME;
use super::sqlstate::Class;

/// Settings that change what is read or promised, so that neither the role's nor the database's
/// own settings may decide: no row hidden by a policy, a commit is on disk when it is answered (here:
/// a synchronous standby may be missing, and what it lacks of ours is only older), no other schema in
/// between, nothing waits for ever, and no short statement is compiled first. They come last and so
/// win over the url's.
const SESSION: &str = "-c row_security=off -c synchronous_commit=local -c search_path=pg_catalog \
    -c datestyle=ISO -c intervalstyle=postgres -c timezone=UTC -c extra_float_digits=1 -c bytea_output=hex \
    -c default_transaction_isolation=read\\ committed -c jit=off \
    -c lock_timeout=10s -c statement_timeout=30s -c idle_in_transaction_session_timeout=60s";

/// The oldest `server_version_num` that works.
const OLDEST: u32 = 140_000;

/// How PostgreSQL is reached.
#[derive(Clone, Debug)]
pub struct ConnectSettings {
    /// `postgres.url` with its password; several hosts allowed. `Debug` hides the password.
    pub client: Config,
    /// For each host: name, TCP, login.
    pub connect_timeout: Duration,
}

impl ConnectSettings {
    /// The client's configuration, with the session pinned.
    ///
    /// # Errors
    /// [`StoreError::Url`] and [`StoreError::Tls`].
    fn pinned(&self) -> Result<Config, StoreError> {
        let mut config = self.client.clone();
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(StoreError::Url);
        }
        if config.get_ssl_mode() == SslMode::Require {
            return Err(StoreError::Tls);
        }
        let options = match config.get_options() {
            Some(options) => format!("{options} {SESSION}"),
            None => SESSION.to_owned(),
        };
        config
            .options(options)
            .application_name(APPLICATION_NAME)
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .connect_timeout(self.connect_timeout)
            .tcp_user_timeout(Duration::from_secs(30))
            .keepalives_idle(Duration::from_secs(30))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3);
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
        let mut failure = StoreError::Url;
        for (server, config) in one_config_a_host(&settings.pinned()?) {
            match Store::connect_to(&server, &config, settings.connect_timeout).await {
                Ok(store) => return Ok(store),
                Err(_) if matches!(failure, StoreError::Server { .. }) => {}
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Connects to one host. The client's own timeout covers TCP only, and a frozen server accepts
    /// connections, so that the login is timed here.
    async fn connect_to(
        server: &str,
        config: &Config,
        after: Duration,
    ) -> Result<Store, StoreError> {
        const WHAT: &str = "connecting to PostgreSQL";
        let attempt = tokio::time::timeout(after, config.connect(NoTls)).await;
        let late = |_| StoreError::Timeout { what: WHAT, server: server.to_owned(), after };
        let connected = attempt.map_err(late)?;
        let (client, connection) = connected.map_err(|error| match error::io_kind(&error) {
            // How the client says that the host did not pass target_session_attrs.
            Some(std::io::ErrorKind::PermissionDenied) => {
                StoreError::ReadOnly { server: server.to_owned() }
            }
            _ => StoreError::from_client(WHAT, &error).at(server),
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

        let mut store = Store { client, version: 0, ended, task: task.abort_handle() };
        store.introduce().await?;
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

    /// Asks who is at the other end.
    async fn introduce(&mut self) -> Result<(), StoreError> {
        let sql = "SELECT current_setting('server_version_num')::integer";
        let row = self.one("asking for the server's version", sql, &[]).await?;
        self.version = u32::try_from(row.get::<i32>(0)?).unwrap_or(0);
        if self.version < OLDEST { Err(StoreError::TooOld(self.version)) } else { Ok(()) }
    }
}

/// A configuration for each host of a configuration, with the host's name and port for messages.
fn one_config_a_host(all: &Config) -> Vec<(String, Config)> {
    let (hosts, addresses, ports) = (all.get_hosts(), all.get_hostaddrs(), all.get_ports());
    let one = |at: usize| {
        let port = ports.get(at).or(ports.first()).copied().unwrap_or(5432);
        let mut config = Config::new();
        let mut server = String::new();
        if let Some(address) = addresses.get(at) {
            config.hostaddr(*address);
            server = address.to_string();
        }
        match hosts.get(at) {
            Some(Host::Tcp(name)) => {
                config.host(name);
                server.clone_from(name);
            }
            Some(Host::Unix(path)) => {
                config.host_path(path);
                server = path.display().to_string();
            }
            None => {}
        }
        copy_settings(all, config.port(port));
        (format!("{server}:{port}"), config)
    };
    (0..hosts.len().max(addresses.len())).map(one).collect()
}

/// Everything but the hosts. The client offers no way to take a host out of a configuration.
fn copy_settings(from: &Config, to: &mut Config) {
    from.get_user().map(|user| to.user(user));
    from.get_password().map(|password| to.password(password));
    from.get_dbname().map(|name| to.dbname(name));
    from.get_options().map(|options| to.options(options));
    from.get_application_name().map(|name| to.application_name(name));
    from.get_connect_timeout().map(|timeout| to.connect_timeout(*timeout));
    from.get_tcp_user_timeout().map(|timeout| to.tcp_user_timeout(*timeout));
    from.get_keepalives_interval().map(|interval| to.keepalives_interval(interval));
    from.get_keepalives_retries().map(|retries| to.keepalives_retries(retries));
    to.ssl_mode(from.get_ssl_mode())
        .keepalives(from.get_keepalives())
        .keepalives_idle(from.get_keepalives_idle())
        .target_session_attrs(from.get_target_session_attrs())
        .channel_binding(from.get_channel_binding());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> ConnectSettings {
        ConnectSettings { client: url.parse().unwrap(), connect_timeout: Duration::from_secs(1) }
    }

    #[test]
    fn the_password_does_not_show() {
        let shown = format!("{:?}", settings("postgresql://me:hunter2@db/x"));
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn tls_is_refused_rather_than_left_out() {
        let error = settings("postgresql://me@db/x?sslmode=require").pinned().unwrap_err();
        assert!(matches!(error, StoreError::Tls));
        assert!(matches!(settings("user=me").pinned(), Err(StoreError::Url)));
    }

    #[test]
    fn the_session_is_pinned_after_the_options_of_the_url() {
        let url = "postgresql://me@a:1,b:2/x?options=-c%20row_security%3Don";
        let config = settings(url).pinned().unwrap();
        let options = config.get_options().unwrap();
        assert!(options.starts_with("-c row_security=on -c row_security=off"), "{options}");
        assert_eq!(config.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
        let hosts = one_config_a_host(&config);
        assert_eq!(hosts.iter().map(|host| &*host.0).collect::<Vec<_>>(), ["a:1", "b:2"]);
        assert_eq!(hosts[1].1.get_hosts(), [Host::Tcp("b".to_owned())]);
        assert_eq!(hosts[1].1.get_ports(), [2]);
        assert_eq!(hosts[1].1.get_options(), config.get_options());
        assert_eq!(hosts[1].1.get_user(), Some("me"));
    }

    #[test]
    fn the_database_is_the_users_namesake() {
        let names = |url| settings(url).user_and_database();
        assert_eq!(names("postgresql://me@db"), ("me".to_owned(), "me".to_owned()));
        assert_eq!(names("postgresql://me@db/shop"), ("me".to_owned(), "shop".to_owned()));
    }
}
