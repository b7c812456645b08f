//! SCRAM-SHA-256-PLUS: the login is bound to the server's certificate, so that nobody between takes part.

use walpost_testkit::{Postgres, TlsDoor};

use super::{Both, NAME, PASSWORD, Papers, postgres, towards};

const REQUIRED: &str = "?channel_binding=require";

async fn login(port: u16, database: &str, mode: &str) -> Both {
    let login = format!("scram:{PASSWORD}");
    Both::connect(&towards(port, NAME, &login, database, &format!("mode: {mode}"))).await
}

#[tokio::test]
async fn the_login_is_bound_where_the_server_can() {
    let database = postgres().fresh_database();
    let port = postgres().port();
    login(port, database.name(), "require").await.connected(&database, true);
    // Then no login but a bound one is one.
    let bound = format!("{}{REQUIRED}", database.name());
    login(port, &bound, "require").await.connected(&database, true);
    let trusted = towards(port, NAME, "postgres", &bound, "mode: require");
    Both::connect(&trusted).await.refused(&["channel"]);
}

#[tokio::test]
async fn a_login_that_has_to_be_bound_is_none_without_tls() {
    let database = Postgres::shared().fresh_database();
    let bound = format!("{}{REQUIRED}", database.name());
    let config = towards(Postgres::shared().port(), NAME, "postgres", &bound, "mode: disable");
    Both::connect(&config).await.refused(&["channel"]);
}

/// What to bind to is not defined for it (RFC 5929): the login is as good as without TLS.
#[tokio::test]
async fn a_certificate_of_ed25519_is_not_bound_to() {
    let identity = Papers::made("ed25519.crt", "ed25519.key");
    let builder = Postgres::builder().fast().tls(&identity, &Papers::get().authority.pem());
    let server = builder.hba("host all scram 127.0.0.1/32 scram-sha-256").start();
    let role = format!("CREATE ROLE scram LOGIN SUPERUSER REPLICATION PASSWORD '{PASSWORD}'");
    server.sql("postgres", &role);
    let database = server.fresh_database();
    login(server.port(), database.name(), "require").await.connected(&database, true);
    let bound = format!("{}{REQUIRED}", database.name());
    login(server.port(), &bound, "require").await.refused(&["channel"]);
}

/// Whoever does not verify the certificate may speak to somebody between; the login then fails, since
/// PostgreSQL's own certificate is another one.
#[tokio::test]
async fn somebody_between_is_found_out_by_the_server() {
    let papers = Papers::get();
    let database = postgres().fresh_database();
    let between = TlsDoor::of(&papers.stranger.server(&[NAME])).postgres();
    let between = between.to_tls(&papers.authority.pem()).open(postgres().port());
    let both = login(between.port(), database.name(), "require").await;
    both.refused(&["SCRAM channel binding check failed"]);
    // The same way without the binding: it is open.
    let unbound = format!("{}?channel_binding=disable", database.name());
    let both = login(between.port(), &unbound, "require").await;
    both.connected(&database, true);
}
