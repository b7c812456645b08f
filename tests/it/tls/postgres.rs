//! PostgreSQL's modes, names, authorities and clients' certificates, for both connections alike.

use walpost_testkit::{Postgres, TlsDoor};

use super::{Both, NAME, Papers, postgres, towards};
use crate::rig::{LONG, walpost};

const ADDRESS: &str = "127.0.0.1";

/// What comes of it at a server with TLS, and at one without.
enum Outcome {
    Plain,
    Encrypted,
    Refused(&'static [&'static str]),
}

use Outcome::{Encrypted, Plain, Refused};

const NO_TLS: Outcome = Refused(&["does not offer it", "nothing was sent to it"]);

#[tokio::test]
async fn each_mode_at_a_server_with_tls_and_at_one_without() {
    let papers = Papers::get();
    let (with, without) = (postgres().fresh_database(), Postgres::shared().fresh_database());
    let right = format!(", ca_file: {}", papers.path("ca.pem"));
    let wrong = format!(", ca_file: {}", papers.path("stranger.pem"));
    let strange =
        || Refused(&["was issued by nobody whom", "stranger.pem' (postgres.tls.ca_file)"]);
    for (mode, ca, host, at_tls, at_plain) in [
        ("disable", "", ADDRESS, Plain, Plain),
        ("prefer", "", ADDRESS, Encrypted, Plain),
        ("prefer", &right, ADDRESS, Encrypted, Plain),
        ("prefer", &wrong, ADDRESS, strange(), Plain),
        ("require", "", ADDRESS, Encrypted, NO_TLS),
        ("require", &right, ADDRESS, Encrypted, NO_TLS),
        ("require", &wrong, ADDRESS, strange(), NO_TLS),
        ("verify-ca", &right, ADDRESS, Encrypted, NO_TLS),
        ("verify-ca", &wrong, ADDRESS, strange(), NO_TLS),
        ("verify-full", &right, NAME, Encrypted, NO_TLS),
        (
            "verify-full",
            &right,
            ADDRESS,
            Refused(&[
                "is not valid for '127.0.0.1': it is for 'localhost'",
                "correct postgres.url",
            ]),
            NO_TLS,
        ),
        ("verify-full", &wrong, NAME, strange(), NO_TLS),
    ] {
        for (database, outcome) in [(&with, at_tls), (&without, at_plain)] {
            let port = database.server().port();
            let tls = format!("mode: {mode}{ca}");
            let both = Both::connect(&towards(port, host, "postgres", database.name(), &tls)).await;
            match outcome {
                Plain => both.connected(database, false),
                Encrypted => both.connected(database, true),
                Refused(words) => both.refused(words),
            }
        }
    }
}

#[tokio::test]
async fn a_unix_socket_has_no_tls() {
    let database = postgres().fresh_database();
    let folder = database.server().folder().path().display().to_string().replace('/', "%2F");
    let port = database.server().port();
    let config = towards(port, &folder, "postgres", database.name(), "mode: verify-full");
    Both::connect(&config).await.connected(&database, false);
}

#[tokio::test]
async fn a_certificate_that_has_expired() {
    let papers = Papers::get();
    let database = Postgres::shared().fresh_database();
    let expired = papers.authority.expired_server(&[NAME]);
    let door = TlsDoor::of(&expired).postgres().open(database.server().port());
    let connect = async |tls: String| {
        Both::connect(&towards(door.port(), NAME, "postgres", database.name(), &tls)).await
    };
    for mode in ["verify-ca", "verify-full", "require", "prefer"] {
        let both = connect(format!("mode: {mode}, ca_file: {}", papers.path("ca.pem"))).await;
        both.refused(&["localhost:", "has expired: it was valid until 2021-01-01 00:00:00 UTC"]);
    }
    // The door is open to who does not look.
    let both = connect("mode: require".to_owned()).await;
    assert!(both.store.is_ok() && both.source.is_ok());
}

/// As `openssl x509 -req` of before 3.2 makes it, and PostgreSQL's documentation with it.
#[tokio::test]
async fn a_certificate_of_x509_version_1_will_do_where_nothing_is_verified() {
    let papers = Papers::get();
    let old = Papers::made("version1.crt", "plain.key");
    let server = Postgres::builder().fast().tls(&old, &papers.authority.pem()).start();
    let database = server.fresh_database();
    let ca = papers.file("version1.pem", &old.certificate);
    let connect = async |tls: String| {
        Both::connect(&towards(server.port(), NAME, "postgres", database.name(), &tls)).await
    };
    connect("mode: require".to_owned()).await.connected(&database, true);
    let both = connect(format!("mode: verify-ca, ca_file: {ca}")).await;
    both.refused(&["can't be verified: UnsupportedCertVersion"]);
}

#[tokio::test]
async fn a_certificate_without_a_name_and_one_that_is_an_authoritys() {
    let papers = Papers::get();
    let database = Postgres::shared().fresh_database();
    let port = database.server().port();
    let nameless = papers.authority.client(NAME);
    let itself = Papers::made("ecdsa-sha256.crt", "plain.key");
    let ca = papers.file("itself.pem", &itself.certificate);
    for (identity, ca, words) in [
        (&nameless, &papers.path("ca.pem"), "it has no subjectAltName, and its common name"),
        (&itself, &ca, "is an authority's own (CA:TRUE), which can't be a server's"),
    ] {
        let door = TlsDoor::of(identity).postgres().open(port);
        let tls = format!("mode: verify-full, ca_file: {ca}");
        let config = towards(door.port(), NAME, "postgres", database.name(), &tls);
        Both::connect(&config).await.refused(&[words]);
    }
}

#[tokio::test]
async fn clients_certificates() {
    let papers = Papers::get();
    let database = postgres().fresh_database();
    let connect = async |tls: &str| {
        let tls = format!("mode: verify-full, ca_file: {}{tls}", papers.path("ca.pem"));
        let port = database.server().port();
        Both::connect(&towards(port, NAME, "certified", database.name(), &tls)).await
    };
    let own = |name: &str| {
        let path = |end: &str| papers.path(&format!("{name}.{end}"));
        format!(", cert_file: {}, key_file: {}", path("crt"), path("key"))
    };
    connect(&own("certified")).await.connected(&database, true);
    connect("").await.refused(&["valid client certificate", "28000"]);
    // The same name, issued by nobody whom the server trusts.
    connect(&own("impostor")).await.refused(&[
        "the server refuses the certificate in",
        "impostor.crt' (postgres.tls.cert_file)",
    ]);
    // Somebody else's.
    connect(&own("relay")).await.refused(&["certificate authentication failed"]);
}

#[test]
fn where_no_authority_is_named_the_systems_are_trusted() {
    let papers = Papers::get();
    let database = postgres().fresh_database();
    let url = format!("postgresql://postgres@{NAME}:{}/{}", postgres().port(), database.name());
    let look = |bundle: &str| {
        walpost()
            .arguments(["init", "--dry-run"])
            .set("postgres.url", &url)
            .set("postgres.tls.mode", "verify-full")
            .env("SSL_CERT_FILE", bundle)
            .output(LONG)
    };
    let finished = look(&papers.path("ca.pem"));
    assert!(finished.status.success(), "{}", finished.stderr);
    let finished = look(&papers.path("stranger.pem"));
    assert_eq!(finished.status.code(), Some(1), "{}", finished.stderr);
    assert!(
        finished.stderr.contains("nobody whom this system trusts; set postgres.tls.ca_file"),
        "{}",
        finished.stderr
    );
    assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
}

/// `sslmode` in the url is the mode where no other is set.
#[tokio::test]
async fn the_urls_own_word_counts() {
    let database = postgres().fresh_database();
    let port = database.server().port();
    for (word, encrypted) in [("disable", false), ("prefer", true), ("require", true)] {
        let name = format!("{}?sslmode={word}", database.name());
        let both = Both::connect(&towards(port, ADDRESS, "postgres", &name, "")).await;
        both.connected(&database, encrypted);
    }
    let name = format!("{}?sslmode=require", database.name());
    let both = Both::connect(&towards(port, ADDRESS, "postgres", &name, "mode: disable")).await;
    both.connected(&database, false);
}
