//! `walpost init --dry-run`: the SQL of `walpost init`, as a script. What `init` itself makes is made
//! by [`relay::first_start`](crate::relay::first_start), as on a relay's first start.

use std::io::{self, Write};

use crate::store::ConnectSettings;
use crate::store::setup::{self, SetupError, SetupSettings};

/// Why the script could not be written.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// PostgreSQL refused, or what is there does not fit.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The output could not be written.
    #[error("writing the output: {0}")]
    Output(#[from] io::Error),
}

/// Writes the SQL that `init` would run, with that of a minimal role, and changes nothing.
///
/// # Errors
/// [`InitError`].
pub async fn dry_run(
    connect: &ConnectSettings,
    setup: &SetupSettings,
    out: &mut dyn Write,
) -> Result<(), InitError> {
    let script = setup::script::dry_run(connect, setup).await?;
    out.write_all(script.as_bytes())?;
    Ok(out.flush()?)
}
