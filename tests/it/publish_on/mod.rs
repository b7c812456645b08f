//! `walpost.publish_on`: a message for each row that is written, in the writer's own transaction.

mod calls;
mod changed;
mod dumped;
mod predecessor;
mod relayed;
mod rights;
mod tables;
mod values;
mod wrong;

use tokio_postgres::error::DbError;
use walpost::store::schema;
use walpost_testkit::Postgres;
use walpost_testkit::postgres::Database;

/// A database with the schema and nothing else.
fn database() -> Database<'static> {
    let database = Postgres::shared().fresh_database();
    install(&database);
    database
}

fn install(database: &Database<'_>) {
    database.sql(&schema::upgrade_sql(0));
}

/// A table with a key and a text.
fn orders() -> Database<'static> {
    let database = database();
    database.sql("CREATE TABLE orders (id int PRIMARY KEY, name text)");
    database
}

/// What was published since the last call, in order: destination, key (`-`: none), headers where there are some, body.
fn published(database: &Database<'_>) -> Vec<String> {
    let rows = database.sql(
        "SELECT concat_ws(' ', destination, coalesce(key, '-'), nullif(headers, '{}'), coalesce(body::text, 'nothing'))
         FROM walpost.outbox ORDER BY created_at",
    );
    database.sql("TRUNCATE walpost.outbox");
    rows.lines().map(str::to_owned).collect()
}

/// The same, bodies only.
fn bodies(database: &Database<'_>) -> Vec<serde_json::Value> {
    let rows = database.sql("SELECT body FROM walpost.outbox ORDER BY created_at");
    database.sql("TRUNCATE walpost.outbox");
    rows.lines().map(|body| serde_json::from_str(body).unwrap()).collect()
}

/// Why a statement is refused.
async fn refused(client: &tokio_postgres::Client, sql: &str) -> DbError {
    let done = client.batch_execute(sql).await;
    let error = done.err().unwrap_or_else(|| panic!("{sql}: was not refused"));
    error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error}")).clone()
}

/// How many functions `publish_on` has left in the schemas of applications.
fn functions(database: &Database<'_>) -> String {
    database.sql(
        r"SELECT count(*) FROM pg_proc WHERE proname LIKE 'walpost\_publish\_%' AND prorettype = 'trigger'::regtype",
    )
}
