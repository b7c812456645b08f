//! A database, a virtual host and a walpost between them.

use std::time::Duration;

use walpost_testkit::postgres::Database;
use walpost_testkit::rabbitmq::Vhost;
use walpost_testkit::walpost::Builder;
use walpost_testkit::{Postgres, RabbitMq, Walpost};

/// For whatever should happen soon, on a busy machine.
pub const LONG: Duration = Duration::from_secs(60);

/// The binary under test.
pub fn walpost() -> Builder {
    Walpost::builder(env!("CARGO_BIN_EXE_walpost"))
}

/// A database of the shared PostgreSQL and a virtual host of the shared RabbitMQ.
pub struct Rig {
    pub database: Database<'static>,
    pub vhost: Vhost<'static>,
}

impl Rig {
    pub fn new() -> Self {
        Rig {
            database: Postgres::shared().fresh_database(),
            vhost: RabbitMq::shared().fresh_vhost(),
        }
    }

    /// A walpost for this database and virtual host. The slot has the database's name, since
    /// slots are the server's.
    pub fn walpost(&self) -> Builder {
        walpost()
            .set("postgres.url", self.database.url())
            .set("replication.slot", self.database.name())
            .set("broker.hosts", self.vhost.broker().stomp_address())
            .set("broker.vhost", self.vhost.name())
    }

    /// `walpost run`, streaming.
    pub fn start(&self) -> Walpost {
        let mut running = self.walpost().start();
        running.await_ready(LONG);
        running
    }
}
