//! `walpost run`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::error;
use tracing_subscriber::filter::LevelFilter;

use super::args;
use super::exit::{Exit, complain};
use super::subscribe;
use crate::config::{Config, Loaded, LogFormat, LogLevel};
use crate::http;
use crate::relay::supervisor::{self, Plan};
use crate::relay::{Stop, from_config};
use crate::telemetry::{Telemetry, logs};

/// Relays until stopped.
pub(super) async fn run(flags: args::Run, loaded: Loaded) -> Exit {
    if let Err(error) = start_log(&loaded.config) {
        complain(error);
        return Exit::Failed;
    }
    match relay(&loaded.config, flags.recover).await {
        Ok(()) => Exit::Done,
        Err(stop) => {
            match loaded.config.log.format {
                LogFormat::Text => complain(&stop),
                // Whoever reads the log as JSON reads its last line, too.
                LogFormat::Json => error!("{stop}"),
            }
            match stop {
                Stop::ForGood { .. } => Exit::Stopped,
                Stop::Failed(_) => Exit::Failed,
            }
        }
    }
}

async fn relay(config: &Config, recover: bool) -> Result<(), Stop> {
    let misfit = |error: &dyn std::fmt::Display| Stop::ForGood {
        what: error.to_string(),
        remedy: "correct the configuration".to_owned(),
    };
    let first_start = from_config::first_start(config).map_err(|error| misfit(&error))?;
    first_start.told.store(recover, Ordering::Relaxed);
    let settings = from_config::settings(config).map_err(|error| misfit(&error))?;
    let retention = config.outbox.retention;
    let plan = Plan { settings, first_start, retention };
    let telemetry = Telemetry::new(&config.replication.slot, &config.replication.publication);
    if let Some(listen) = &config.http.listen {
        let server = http::Server::bind(&listen.to_string(), Arc::clone(&telemetry)).await;
        let server = server.map_err(|error| Stop::Failed(error.to_string()))?;
        tokio::spawn(server.run(std::future::pending()));
    }
    let consumers = subscribe::all(config, &telemetry)?;
    let ended = supervisor::run(plan, telemetry).await;
    // They were told to stop by the same signal, or are now.
    consumers.finish().await;
    ended
}

pub(super) fn start_log(config: &Config) -> Result<(), String> {
    let level = match config.log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let format = match config.log.format {
        LogFormat::Text => logs::Format::Text,
        LogFormat::Json => logs::Format::Json,
    };
    logs::init(format, level).map_err(|error| format!("the log can't be started: {error}"))
}
