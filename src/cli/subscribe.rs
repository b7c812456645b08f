//! `walpost subscribe`, and the consumers that `walpost run` runs.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::error;

use super::args::subscribe::Subscribe;
use super::exit::{Exit, complain};
use super::run::start_log;
use crate::config::{Config, Consumer, Handler, Loaded, LogFormat};
use crate::consumer::{self, Patience, Settings, UrlError};
use crate::relay::{Stop, from_config};
use crate::telemetry::Telemetry;

/// Consumes until stopped.
pub(super) async fn run(flags: Subscribe, loaded: Loaded) -> Exit {
    let config = &loaded.config;
    let settings = match settings(&typed(flags, config), config, Patience::Some) {
        Ok(settings) => settings,
        Err(error) => {
            complain(format_args!("--http: {error}"));
            return Exit::Usage;
        }
    };
    if let Err(error) = start_log(config) {
        complain(error);
        return Exit::Failed;
    }
    let stop = match stop() {
        Ok(stop) => stop,
        Err(error) => {
            complain(format_args!("signals: {error}"));
            return Exit::Failed;
        }
    };
    let replication = &config.replication;
    let telemetry = Telemetry::new(&replication.slot, &replication.publication);
    match consumer::run(settings, telemetry, stop).await {
        Ok(()) => Exit::Done,
        Err(end) => {
            match config.log.format {
                LogFormat::Text => complain(&end),
                // Whoever reads the log as JSON reads its last line, too.
                LogFormat::Json => error!("{end}"),
            }
            Exit::Stopped
        }
    }
}

/// The consumers of the configuration, each a task.
pub(super) struct Consumers {
    tasks: JoinSet<()>,
    tell: Option<watch::Sender<bool>>,
}

/// Starts the consumers of the configuration.
pub(super) fn all(config: &Config, telemetry: &Arc<Telemetry>) -> Result<Consumers, Stop> {
    let mut tasks = JoinSet::new();
    let (tell, told) = watch::channel(false);
    for (index, wanted) in config.consumers.iter().enumerate() {
        let wrong = |error: UrlError| Stop::ForGood {
            what: format!("consumers[{index}].handler.http: {error}"),
            remedy: "correct the configuration".to_owned(),
        };
        let settings = settings(wanted, config, Patience::Forever).map_err(wrong)?;
        let (telemetry, mut told) = (Arc::clone(telemetry), told.clone());
        let signalled = stop().map_err(|error| Stop::Failed(format!("signals: {error}")))?;
        let (both, stop) = watch::channel(false);
        tasks.spawn(async move {
            let mut signalled = signalled;
            let relayed = async {
                tokio::select! {
                    _ = signalled.wait_for(|stop| *stop) => {}
                    _ = told.wait_for(|stop| *stop) => {}
                }
                let _ = both.send(true);
                std::future::pending::<()>().await;
            };
            let queue = settings.queue.clone();
            tokio::select! {
                () = relayed => {}
                ended = consumer::run(settings, telemetry, stop) => {
                    if let Err(end) = ended {
                        error!(queue, "the consumer has ended: {end}");
                    }
                }
            }
        });
    }
    Ok(Consumers { tasks, tell: Some(tell) })
}

impl Consumers {
    /// Tells them to stop, and waits until they have.
    pub(super) async fn finish(mut self) {
        if let Some(tell) = self.tell.take() {
            let _ = tell.send(true);
        }
        while self.tasks.join_next().await.is_some() {}
    }
}

/// What was typed, with what the configuration says of the same queue.
fn typed(flags: Subscribe, config: &Config) -> Consumer {
    let queue = |queue: &Option<String>, destination: &str| {
        queue.clone().unwrap_or_else(|| consumer::last_part(destination))
    };
    let name = queue(&flags.queue, &flags.destination);
    let same = config.consumers.iter().find(|known| {
        known.destination == flags.destination && queue(&known.queue, &known.destination) == name
    });
    let Subscribe { destination, call, http, exec, .. } = flags;
    let handler = Handler { call, http, exec };
    let (prefetch, concurrency, headers) = match same {
        Some(same) => (same.prefetch, same.concurrency, same.headers.clone()),
        None => (1, 1, Vec::new()),
    };
    Consumer { destination, queue: Some(name), handler, prefetch, headers, concurrency }
}

fn settings(
    consumer: &Consumer,
    config: &Config,
    patience: Patience,
) -> Result<Settings, UrlError> {
    let broker = from_config::broker_settings(&config.broker, config.outbox.header_style);
    let sql = from_config::connect_settings(config);
    Settings::new(consumer, config, Arc::new(broker), sql, patience)
}

/// Becomes true with SIGTERM or SIGINT.
fn stop() -> std::io::Result<watch::Receiver<bool>> {
    let (tell, told) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        let _ = tell.send(true);
        // Whoever has the other end asks again.
        tell.closed().await;
    });
    Ok(told)
}
