//! `walpost init`: makes what a relay needs in PostgreSQL, and says so line by line.

use std::io::{self, Write};
use std::time::Duration;

use crate::secret::Secret;
use crate::store::name::TableName;
use crate::store::setup::{self, SetupError, SetupSettings};
use crate::store::sqlstate::Class;
use crate::store::{ConnectSettings, Store};

/// What `init` is told by the configuration.
#[derive(Clone, Debug)]
pub struct InitSettings {
    /// `postgres.url`.
    pub url: Secret,
    /// `postgres.password_file`'s contents; wins over a password in the url.
    pub password: Option<Secret>,
    /// `postgres.connect_timeout`.
    pub connect_timeout: Duration,
    /// `replication.slot`.
    pub slot: String,
    /// `replication.publication`.
    pub publication: String,
    /// The outbox tables: schema and name, unquoted.
    pub tables: Vec<(String, String)>,
    /// Whether a table of layout `walpost` is used, so that its schema is installed.
    pub install_schema: bool,
}

impl InitSettings {
    /// How PostgreSQL is reached.
    fn connect(&self) -> ConnectSettings {
        ConnectSettings {
            url: self.url.clone(),
            password: self.password.clone(),
            connect_timeout: self.connect_timeout,
        }
    }

    /// What is wanted there.
    fn setup(&self) -> SetupSettings {
        SetupSettings {
            slot: Some(self.slot.clone()),
            failover: false,
            publication: self.publication.clone(),
            tables: self.tables.iter().cloned().map(TableName::from).collect(),
            install_schema: self.install_schema,
        }
    }
}

/// Why `init` could not be done.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// PostgreSQL refused, or what is there does not fit.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The output could not be written.
    #[error("writing the output: {0}")]
    Output(#[from] io::Error),
}

impl InitError {
    /// Whether trying again later may help; no: somebody must act first.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            InitError::Setup(error) => error.class() != Class::Operator,
            InitError::Output(_) => false,
        }
    }
}

/// Makes what is missing and writes a line for each thing; with `dry_run` writes the SQL in its
/// place, with that of a minimal role, and changes nothing.
///
/// # Errors
/// [`InitError`]. What was made before an error stays; `init` can be run again at any time.
pub async fn run(
    settings: InitSettings,
    dry_run: bool,
    out: &mut dyn Write,
) -> Result<(), InitError> {
    let setup = settings.setup();
    if dry_run {
        let script = setup::script::dry_run(&settings.connect(), &setup).await?;
        out.write_all(script.as_bytes())?;
        return Ok(out.flush()?);
    }
    let store = Store::connect(&settings.connect()).await.map_err(SetupError::from)?;
    // A closed pipe must not leave the work half done: it is told at the end.
    let mut written = Ok(());
    let mut on_event = |event: setup::Event<'_>| {
        let line = writeln!(out, "{event}").and_then(|()| out.flush());
        written = std::mem::replace(&mut written, Ok(())).and(line);
    };
    setup::ensure(&store, &setup, &mut on_event).await?;
    Ok(written?)
}
