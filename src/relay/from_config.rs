//! The configuration, turned into the settings of each module.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::config::Host;

use super::first_start::FirstStart;
use super::settings::Settings;
use super::tls;
use crate::broker::profile::{Delivery, Kind};
use crate::config::{self, AfterPublish, Config};
use crate::net::tls::FileError;
use crate::net::{Address, PlainPassword};
use crate::outbox::{
    self, HeaderStyle, LayoutKind, ShardColumns, ShardError, TableName, WaitingColumns,
};
use crate::secret::Secret;
use crate::store::marking::{Mark, MarkedTable};
use crate::store::setup::SetupSettings;
use crate::store::sharding::Sharding;
use crate::store::{self, ConnectSettings, OutboxTable};
use crate::template::{Template, TemplateError};
use crate::{broker, engine, source};

/// A lane whose broker answers nothing is probed after this time at the latest, so that a memory
/// alarm shows before `receipt_timeout`.
const PROBE_AFTER: Duration = Duration::from_secs(5);
/// A row's other columns, beside what fits into a frame, that are still read whole.
const OTHER_COLUMNS: usize = 1024 * 1024;

/// What the configuration's own check finds first.
#[derive(Debug, thiserror::Error)]
pub enum Misconfigured {
    /// A template that is none.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// Rows that cannot be divided.
    #[error("{path}: {0}", path = .0.path())]
    Shard(#[from] ShardError),
}

/// The settings of the pump.
///
/// # Errors
/// [`Misconfigured`].
pub fn settings(config: &Config) -> Result<Settings, Misconfigured> {
    Ok(Settings {
        source: Arc::new(source_settings(config)),
        outbox: outbox_settings(config)?,
        engine: engine::Settings {
            lanes: config.broker.connections as usize,
            messages: config.broker.in_flight.messages as usize,
            bytes: bytes(config.broker.in_flight.bytes),
            receipt_timeout: config.broker.receipt_timeout,
            probe_after: PROBE_AFTER.min(config.broker.receipt_timeout),
            ring: engine::RING,
            retry: retry(&config.retry),
        },
        broker: Arc::new(broker_settings(&config.broker, config.outbox.header_style)),
        max_frame_size: bytes(config.broker.max_frame_size),
        shutdown_timeout: config.shutdown_timeout,
    })
}

/// What the first start makes.
///
/// # Errors
/// As [`settings`].
pub fn first_start(config: &Config) -> Result<FirstStart, Misconfigured> {
    let settings = outbox_settings(config)?;
    let shard = settings.shard;
    let columns = || ShardColumns::of(&settings.layout, &settings.key, &settings.destination);
    let columns = shard.is_sharded().then(columns).transpose()?;
    let sharding = columns.map(|columns| Sharding { shard, columns });
    let waiting = settings.waiting_columns();
    let tables = settings.tables();
    let outboxes: Arc<[_]> = tables
        .iter()
        .map(|table| OutboxTable {
            table: store::TableName::new(&table.schema, &table.name),
            id: waiting.id.clone(),
            created_at: waiting.created_at.clone(),
            xid: waiting.xid.clone(),
            status: waiting.status.clone(),
            share: sharding.as_ref().map(Sharding::condition),
        })
        .collect();
    let marked = marks(config.outbox.after_publish, &waiting);
    Ok(FirstStart {
        sql: connect_settings(config),
        source: Arc::new(source_settings(config)),
        tables: Arc::clone(&outboxes),
        create: config.replication.create,
        backfill: config.outbox.backfill,
        remake_lost: config.replication.on_slot_lost == config::OnSlotLost::Recover,
        told: Arc::default(),
        setup: SetupSettings {
            slot: config.replication.slot.clone(),
            publication: config.replication.publication.clone(),
            marks: marked.map_or_else(Vec::new, |(id, mark)| {
                let of = |table: &OutboxTable| MarkedTable {
                    table: table.table.clone(),
                    id: id.clone(),
                    mark: mark.clone(),
                };
                outboxes.iter().map(of).collect()
            }),
            tables: outboxes.iter().map(|table| table.table.clone()).collect(),
            sharding,
            failover: config.replication.failover,
        },
    })
}

/// What becomes of published rows, and the column with their ids.
fn marks(after: AfterPublish, columns: &WaitingColumns) -> Option<(String, Mark)> {
    let id = columns.id.clone()?;
    match after {
        AfterPublish::Keep => None,
        AfterPublish::Mark => columns.status.clone().map(|status| (id, Mark::Status(status))),
        AfterPublish::Delete => Some((id, Mark::Delete)),
    }
}

/// How SQL is spoken.
#[must_use]
pub fn connect_settings(config: &Config) -> ConnectSettings {
    ConnectSettings {
        client: config.postgres.url.client().clone(),
        connect_timeout: config.postgres.connect_timeout,
        tls: tls::postgres(&config.postgres.tls),
    }
}

/// The files that TLS needs, read once before anything is begun.
///
/// # Errors
/// Each that can't be used.
pub fn check_tls(config: &Config) -> Result<(), Vec<FileError>> {
    tls::check(config)
}

fn source_settings(config: &Config) -> source::Settings {
    let url = &config.postgres.url;
    let hosts = url.hosts().map(|(host, port)| match host {
        Host::Tcp(name) => Address::Tcp(name.clone(), port),
        Host::Unix(folder) => Address::Unix(folder.join(format!(".s.PGSQL.{port}"))),
    });
    source::Settings {
        hosts: hosts.collect(),
        user: url.user().to_owned(),
        password: url.password(),
        database: url.database().to_owned(),
        tls: tls::postgres(&config.postgres.tls),
        channel_binding: tls::channel_binding(url.client().get_channel_binding()),
        plain_password: PlainPassword::default(),
        options: url.client().get_options().map(str::to_owned),
        connect_timeout: config.postgres.connect_timeout,
        slot: config.replication.slot.clone(),
        publication: config.replication.publication.clone(),
        status_interval: config.replication.status_interval,
        // bytea comes in hexadecimal: two characters a byte.
        max_row: bytes(config.broker.max_frame_size)
            .saturating_mul(2)
            .saturating_add(OTHER_COLUMNS),
    }
}

fn outbox_settings(config: &Config) -> Result<outbox::Settings, TemplateError> {
    let from = &config.outbox;
    let headers = from.headers.iter();
    Ok(outbox::Settings {
        layout: from.layout_kind(),
        tables: from
            .tables
            .iter()
            .map(|table| TableName { schema: table.schema.clone(), name: table.name.clone() })
            .collect(),
        destination: Template::parse(&from.destination)?,
        key: Template::parse(&from.key)?,
        emitted: emitted_templates(from)?,
        content_type: from.content_type.clone(),
        headers: headers
            .map(|(name, text)| Ok((name.clone(), Template::parse(text)?)))
            .collect::<Result<_, _>>()?,
        header_style: from.header_style,
        broker_headers: config.broker.headers.clone(),
        max_frame_size: bytes(config.broker.max_frame_size),
        logical_prefix: from.logical_messages.clone(),
        shard: config.replication.shard,
    })
}

/// `walpost.emit` takes what a row of `walpost.outbox` has, so what is set for other layouts does not fit.
fn emitted_templates(from: &config::Outbox) -> Result<(Template, Template), TemplateError> {
    let own = from.layout_kind() == LayoutKind::Walpost;
    let [destination, key] = if own {
        [from.destination.as_str(), from.key.as_str()]
    } else {
        ["{destination}[.{version}]", "{key}"]
    };
    Ok((Template::parse(destination)?, Template::parse(key)?))
}

/// How the broker is reached.
#[must_use]
pub fn broker_settings(config: &config::Broker, style: HeaderStyle) -> broker::Settings {
    broker::Settings {
        hosts: config.hosts.iter().map(|at| Address::Tcp(at.host.clone(), at.port)).collect(),
        tls: tls::broker(&config.tls),
        plain_password: PlainPassword::default(),
        vhost: config.vhost.clone(),
        username: config.username.clone(),
        passcode: Secret::clone(&config.passcode),
        heartbeat_send: config.heartbeat.send,
        heartbeat_expect: config.heartbeat.expect,
        kind: match config.kind {
            config::BrokerKind::Auto => None,
            config::BrokerKind::Rabbitmq => Some(Kind::RabbitMq),
            config::BrokerKind::Activemq => Some(Kind::ActiveMq),
            config::BrokerKind::Artemis => Some(Kind::Artemis),
            config::BrokerKind::Other => Some(Kind::Other),
        },
        delivery: match config.delivery {
            config::Delivery::Auto => Delivery::Auto,
            config::Delivery::Receipts => Delivery::Receipts,
            config::Delivery::Transactions => Delivery::Transactions,
        },
        content_length: config.body == config::Body::Bytes,
        amqp_message_id: style == HeaderStyle::Msg,
        reconnect_initial: config.reconnect.initial,
        reconnect_max: config.reconnect.max,
        connect_timeout: CONNECT_TIMEOUT,
    }
}

/// For the TCP connection to a broker and for its CONNECTED, each.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

fn bytes(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

fn retry(retry: &config::Retry) -> engine::Retry {
    engine::Retry {
        first_wait: retry.first_wait,
        pause_after: retry.pause_after,
        pause: retry.pause,
        wait: retry.wait,
        max_attempts: retry.max_attempts,
        max_parked: retry.max_parked,
        halts: retry.on_exhausted == config::OnExhausted::Halt,
    }
}
