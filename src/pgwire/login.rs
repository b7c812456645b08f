//! From the first byte to the first ReadyForQuery: trust, cleartext, MD5 and SCRAM-SHA-256, bound to TLS
//! where there is TLS.

use std::fmt;

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};

use super::backend::{Backend, BackendError};
use super::frontend::{self, EncodeError};
use super::scram::check_server_first;
use super::server_error::ServerError;
use crate::secret::Secret;

pub use super::scram::{MAX_ITERATIONS, ScramError};

/// The most ParameterStatus messages that are kept; PostgreSQL 18 sends 15.
const MAX_PARAMETERS: usize = 256;

/// Who logs in, to what, and with which session settings.
#[derive(Clone, Debug)]
pub struct LoginSettings {
    /// The role.
    pub user: String,
    /// The database; logical replication always has one.
    pub database: String,
    /// Its password, if it has one. An empty one is none: PostgreSQL never accepts that.
    pub password: Option<Secret>,
    /// Session settings (`datestyle`, `wal_sender_timeout`, …) and their values.
    pub parameters: Vec<(String, String)>,
    /// `tls-server-end-point` of the connection (RFC 5929): SCRAM is bound to it where the server can.
    /// None: there is no TLS, or no binding is wanted.
    pub end_point: Option<Vec<u8>>,
    /// Whether a login that is not bound is none.
    pub must_bind: bool,
}

/// What came of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginStep {
    /// The login goes on: write what was appended to `out`, and read the next message.
    Continue,
    /// Logged in, and the server is ready for a command.
    Done {
        /// What the server said of its session settings, `server_version` among them.
        parameters: Vec<(String, String)>,
        /// The server process, as in `pg_stat_activity.pid`.
        process_id: u32,
    },
}

/// Why there is no session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// The server refuses.
    #[error(transparent)]
    Server(#[from] Box<ServerError>),
    /// A message that cannot be read.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A setting that cannot be sent.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// SCRAM parameters that are not acted on.
    #[error(transparent)]
    Scram(#[from] ScramError),
    /// The server wants a password, and there is none.
    #[error("PostgreSQL asks for a password ({method}), but none is configured")]
    NoPassword {
        /// The method by which it asks.
        method: &'static str,
    },
    /// A way to log in that is not built: Kerberos, GSSAPI, SSPI, …
    #[error("PostgreSQL asks for {method} authentication, which is not supported")]
    UnsupportedMethod {
        /// The method.
        method: String,
    },
    /// SASL without SCRAM-SHA-256.
    #[error("PostgreSQL offers the SASL mechanisms '{offered}', none of which is SCRAM-SHA-256")]
    UnsupportedMechanisms {
        /// What it offers.
        offered: String,
    },
    /// The login would not be bound to TLS, and has to be.
    #[error(
        "PostgreSQL asks for {method}, which is not bound to the TLS connection, and postgres.url has \
         channel_binding=require"
    )]
    Unbound {
        /// How it asks.
        method: &'static str,
    },
    /// The exchange failed: the server answered for another nonce, or does not know the password.
    #[error("SCRAM authentication of the server failed: {0}")]
    ScramFailed(String),
    /// The server ended SCRAM early: whoever it is has not shown that it knows the password.
    #[error("PostgreSQL ended the SCRAM login without proving that it knows the password")]
    Unproven,
    /// More ParameterStatus messages than a server has settings to report.
    #[error("PostgreSQL reports more than {MAX_PARAMETERS} settings during the login")]
    TooManyParameters,
    /// A message that has no place at this point.
    #[error("unexpected PostgreSQL message '{}' {during}", tag.escape_ascii())]
    Unexpected {
        /// Its type byte.
        tag: u8,
        /// At which point.
        during: &'static str,
    },
}

/// The login of one connection.
pub struct Login {
    settings: LoginSettings,
    state: State,
    parameters: Vec<(String, String)>,
    process_id: u32,
    sent_cleartext: bool,
}

enum State {
    /// Nothing was asked yet.
    Start,
    /// A password or its MD5 hash was sent.
    Password,
    /// Our first SCRAM message was sent.
    ScramFirst(Box<ScramSha256>),
    /// Our proof was sent.
    ScramFinal(Box<ScramSha256>),
    /// The server has proved itself as well.
    ScramDone,
    /// Logged in; the server reports its settings.
    In,
    /// An error was returned, or [`LoginStep::Done`].
    Over,
}

impl Login {
    /// A login that has not begun.
    #[must_use]
    pub fn new(settings: LoginSettings) -> Self {
        Login {
            settings,
            state: State::Start,
            parameters: Vec::new(),
            process_id: 0,
            sent_cleartext: false,
        }
    }

    /// Whether the password itself was sent, and not a proof of it.
    #[must_use]
    pub fn sent_cleartext(&self) -> bool {
        self.sent_cleartext
    }

    /// Appends the first message of the connection (after TLS, if any) to `out`.
    ///
    /// # Errors
    /// A setting with a NUL in it.
    pub fn start(&mut self, out: &mut BytesMut) -> Result<(), LoginError> {
        let LoginSettings { user, database, parameters, .. } = &self.settings;
        Ok(frontend::startup(out, user, database, parameters)?)
    }

    /// Takes one message of the server, and appends what is to be answered to `out`.
    ///
    /// # Errors
    /// [`LoginError`], after which the connection is to be closed.
    pub fn on_frame(
        &mut self,
        tag: u8,
        body: &[u8],
        out: &mut BytesMut,
    ) -> Result<LoginStep, LoginError> {
        let state = std::mem::replace(&mut self.state, State::Over);
        self.state = match (state, Backend::parse(tag, body)?) {
            (_, Backend::ErrorResponse(error)) => return Err(error.into()),
            (state, Backend::NoticeResponse(_)) => state,
            (state, Backend::Authentication { kind, data }) => {
                self.authentication(state, kind, data, out)?
            }
            (State::In, Backend::ParameterStatus { name, value }) => {
                if self.parameters.len() == MAX_PARAMETERS {
                    return Err(LoginError::TooManyParameters);
                }
                self.parameters.push((name.to_owned(), value.to_owned()));
                State::In
            }
            (State::In, Backend::BackendKeyData { process_id }) => {
                self.process_id = process_id;
                State::In
            }
            (State::In, Backend::ReadyForQuery { .. }) => {
                let parameters = std::mem::take(&mut self.parameters);
                return Ok(LoginStep::Done { parameters, process_id: self.process_id });
            }
            (state, _) => return Err(LoginError::Unexpected { tag, during: state.during() }),
        };
        Ok(LoginStep::Continue)
    }

    /// One Authentication message; gives the state after it.
    fn authentication(
        &mut self,
        state: State,
        kind: u32,
        data: &[u8],
        out: &mut BytesMut,
    ) -> Result<State, LoginError> {
        let unexpected = LoginError::Unexpected { tag: b'R', during: state.during() };
        match (kind, state) {
            (0, State::Start) => {
                self.unbound("no proof of the password")?;
                Ok(State::In)
            }
            (0, State::Password | State::ScramDone) => Ok(State::In),
            (0, State::ScramFirst(_) | State::ScramFinal(_)) => Err(LoginError::Unproven),
            (3, State::Start) => {
                self.unbound("a cleartext password")?;
                frontend::password(out, self.password("cleartext")?.as_bytes())?;
                self.sent_cleartext = true;
                Ok(State::Password)
            }
            (5, State::Start) => {
                self.unbound("an MD5 password")?;
                let salt = data.try_into().map_err(|_| BackendError::Malformed {
                    message: "AuthenticationMD5Password",
                    field: "salt",
                })?;
                let password = self.password("MD5")?.as_bytes();
                let hash = md5_hash(self.settings.user.as_bytes(), password, salt);
                frontend::password(out, hash.as_bytes())?;
                Ok(State::Password)
            }
            (10, State::Start) => self.scram_begin(data, out),
            (11, State::ScramFirst(mut scram)) => {
                check_server_first(data)?;
                scram.update(data).map_err(|error| LoginError::ScramFailed(error.to_string()))?;
                frontend::sasl_response(out, scram.message())?;
                Ok(State::ScramFinal(scram))
            }
            (12, State::ScramFinal(mut scram)) => {
                scram.finish(data).map_err(|error| LoginError::ScramFailed(error.to_string()))?;
                Ok(State::ScramDone)
            }
            (0 | 3 | 5 | 10..=12, _) => Err(unexpected),
            (other, _) => Err(LoginError::UnsupportedMethod { method: method_name(other) }),
        }
    }

    fn scram_begin(&self, offered: &[u8], out: &mut BytesMut) -> Result<State, LoginError> {
        let offers =
            |name: &str| offered.split(|byte| *byte == 0).any(|one| one == name.as_bytes());
        let (mechanism, binding) = match (&self.settings.end_point, offers(SCRAM_SHA_256_PLUS)) {
            (Some(end_point), true) => {
                (SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(end_point.clone()))
            }
            // "y": we could have bound it. A server that could, too, knows then that somebody between
            // has changed its offer.
            (Some(_), false) => (SCRAM_SHA_256, ChannelBinding::unrequested()),
            // "n": we can't, which a server accepts with and without TLS.
            (None, _) => (SCRAM_SHA_256, ChannelBinding::unsupported()),
        };
        if !offers(mechanism) {
            let offered = offered.split(|byte| *byte == 0).filter(|name| !name.is_empty()).take(8);
            let offered = offered.map(|name| name.escape_ascii().to_string());
            let offered = offered.collect::<Vec<_>>().join(", ");
            return Err(LoginError::UnsupportedMechanisms { offered });
        }
        if mechanism != SCRAM_SHA_256_PLUS {
            self.unbound(SCRAM_SHA_256)?;
        }
        let password = self.password(mechanism)?.as_bytes();
        let scram = ScramSha256::new(password, binding);
        frontend::sasl_initial(out, mechanism, scram.message())?;
        Ok(State::ScramFirst(Box::new(scram)))
    }

    /// The server asks for a login that is not bound to TLS.
    fn unbound(&self, method: &'static str) -> Result<(), LoginError> {
        if self.settings.must_bind { Err(LoginError::Unbound { method }) } else { Ok(()) }
    }

    fn password(&self, method: &'static str) -> Result<&str, LoginError> {
        let password = self.settings.password.as_ref().map(Secret::expose);
        password.filter(|password| !password.is_empty()).ok_or(LoginError::NoPassword { method })
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("settings", &self.settings)
            .field("state", &self.state.during())
            .finish_non_exhaustive()
    }
}

impl State {
    fn during(&self) -> &'static str {
        match self {
            State::Start => "before authentication",
            State::Password => "after the password",
            State::ScramFirst(_) | State::ScramFinal(_) | State::ScramDone => "within SCRAM",
            State::In => "before the first ReadyForQuery",
            State::Over => "after the login",
        }
    }
}

fn method_name(kind: u32) -> String {
    match kind {
        2 => "Kerberos V5".to_owned(),
        6 => "SCM credential".to_owned(),
        7 | 8 => "GSSAPI".to_owned(),
        9 => "SSPI".to_owned(),
        other => format!("number {other}"),
    }
}

#[cfg(test)]
mod tests;
