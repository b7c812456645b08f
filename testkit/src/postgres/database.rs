//! SQL on a private server, and a database a test.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio_postgres::{Client, NoTls};

use super::Postgres;

impl Postgres {
    /// A connection to the database `postgres`.
    pub async fn client(&self) -> Client {
        self.client_to("postgres").await
    }

    /// A connection to `database`; its task ends with the client.
    pub async fn client_to(&self, database: &str) -> Client {
        let (client, connection) =
            tokio_postgres::connect(&self.url(database), NoTls).await.unwrap_or_else(|error| {
                panic!("no connection to {database}: {error:?}\n{}", self.log())
            });
        tokio::spawn(async move {
            // A killed server ends it with an error; the client's next call reports that.
            let _ = connection.await;
        });
        client
    }

    /// Runs `sql` (several statements allowed) and gives what it prints, unaligned, without headings. Blocks.
    ///
    /// # Errors
    /// What `psql` wrote to its standard error.
    pub fn try_sql(&self, database: &str, sql: &str) -> Result<String, String> {
        let output = Command::new(self.psql())
            .args([
                "-X",
                "-A",
                "-t",
                "-q",
                "-w",
                "-v",
                "ON_ERROR_STOP=1",
                "-d",
                &self.url(database),
                "-c",
                sql,
            ])
            .env("PGCONNECT_TIMEOUT", "20")
            .output()
            .expect("psql can be started");
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// The same as [`Postgres::try_sql`]; panics on errors.
    #[track_caller]
    pub fn sql(&self, database: &str, sql: &str) -> String {
        self.try_sql(database, sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Makes a database.
    pub fn create_database(&self, name: &str) {
        self.sql("postgres", &format!("CREATE DATABASE \"{name}\""));
    }

    /// A new, empty database. Dropping the handle drops it with its slots.
    #[must_use]
    pub fn fresh_database(&self) -> Database<'_> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.create_database(&name);
        Database { server: self, name }
    }
}

/// A database of a shared server, for one test.
#[derive(Debug)]
pub struct Database<'a> {
    server: &'a Postgres,
    name: String,
}

impl Database<'_> {
    /// Its name. Slot names are global to the server: this one is unique there and a legal slot name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its server.
    #[must_use]
    pub fn server(&self) -> &Postgres {
        self.server
    }

    /// A connection URL.
    #[must_use]
    pub fn url(&self) -> String {
        self.server.url(&self.name)
    }

    /// A connection.
    pub async fn client(&self) -> Client {
        self.server.client_to(&self.name).await
    }

    /// Runs `sql` in it, see [`Postgres::sql`].
    #[track_caller]
    pub fn sql(&self, sql: &str) -> String {
        self.server.sql(&self.name, sql)
    }
}

impl Drop for Database<'_> {
    fn drop(&mut self) {
        // Best effort: a slot left behind only holds WAL of a server that ends with this process.
        let slots = format!("FROM pg_replication_slots WHERE database = '{}'", self.name);
        let ended = format!("SELECT pg_terminate_backend(active_pid) {slots} AND active");
        let _ = self.server.try_sql("postgres", &ended);
        let dropped = format!("SELECT pg_drop_replication_slot(slot_name) {slots} AND NOT active");
        let _ = self.server.try_sql("postgres", &dropped);
        let _ = self.server.try_sql(
            "postgres",
            &format!("DROP DATABASE IF EXISTS \"{}\" WITH (FORCE)", self.name),
        );
    }
}
