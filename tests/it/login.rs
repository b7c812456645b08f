//! Logins to a PostgreSQL that asks for a password, for both connections; and that no password is ever shown.

use std::fs;
use std::sync::OnceLock;

use walpost_testkit::walpost::Builder;
use walpost_testkit::{Postgres, ScriptedBroker};

use crate::rig::{LONG, walpost};

/// With characters that mean something in a URL, and more than ASCII.
const PASSWORD: &str = "p@ss:w\u{f6}rd/%41 '?#";
const WRONG: &str = "hunter2-not-it";

/// Roles `scram`, `md5` and `cleartext`, each let in by its method only.
fn server() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(|| {
        let server = Postgres::builder()
            .fast()
            .setting("log_connections", "on")
            .hba("host all scram 127.0.0.1/32 scram-sha-256")
            .hba("host all md5 127.0.0.1/32 md5")
            .hba("host all cleartext 127.0.0.1/32 password")
            .start();
        let password = PASSWORD.replace('\'', "''");
        for (role, encryption) in
            [("scram", "scram-sha-256"), ("md5", "md5"), ("cleartext", "scram-sha-256")]
        {
            server.sql(
                "postgres",
                &format!(
                    "SET password_encryption = '{encryption}';
                     CREATE ROLE {role} LOGIN SUPERUSER REPLICATION PASSWORD '{password}'"
                ),
            );
        }
        server
    })
}

fn server_log() -> String {
    fs::read_to_string(server().folder().path().join("server.log")).unwrap()
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn relay(role: &str, database: &str, password: Option<&str>, broker: &ScriptedBroker) -> Builder {
    let password = password.map(|text| format!(":{}", encoded(text))).unwrap_or_default();
    walpost()
        .set(
            "postgres.url",
            format!("postgresql://{role}{password}@127.0.0.1:{}/{database}", server().port()),
        )
        .set("replication.slot", database)
        .set("broker.hosts", broker.address())
        .set("log.level", "trace")
}

fn assert_secret(said: &str) {
    for secret in [PASSWORD, WRONG, &encoded(PASSWORD), &encoded(WRONG)] {
        assert!(!said.contains(secret), "{said}");
    }
}

/// Logs in with the right password, out of the URL and out of a file, and not with a wrong one.
#[track_caller]
fn logs_in_by(role: &str, method: &str) {
    let (database, broker) = (server().fresh_database(), ScriptedBroker::start());
    let mut running = relay(role, database.name(), Some(PASSWORD), &broker).start();
    running.await_ready(LONG);
    database.sql("SELECT walpost.publish('/queue/q', '1')");
    broker.wait_for_sends(1, LONG);
    assert!(running.terminate(LONG).success());
    assert_secret(&running.log());
    // PostgreSQL itself says which method it was, for the SQL and for the replication connection.
    let log = server_log();
    assert!(log.contains(&format!("identity=\"{role}\" method={method}")), "{log}");
    assert!(log.contains(&format!("replication connection authorized: user={role}")), "{log}");

    // A file, with the line end that editors leave; it wins over the URL.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    for in_url in [None, Some(WRONG)] {
        let with_file = relay(role, database.name(), in_url, &broker);
        let mut running = with_file.set("postgres.password_file", file.display()).start();
        running.await_ready(LONG);
        assert!(running.terminate(LONG).success());
        assert_secret(&running.log());
    }

    // The relay's own log is sparing with what repeats.
    let refusal = format!("password authentication failed for user \"{role}\"");
    let refusals = || server_log().matches(&refusal).count();
    let before = refusals();
    let finished = relay(role, database.name(), Some(WRONG), &broker).output(LONG);
    assert_eq!(finished.status.code(), Some(3), "{}", finished.stderr);
    assert_eq!(refusals() - before, 5, "{}", finished.stderr);
    let line = finished.stderr.lines().last().unwrap();
    assert!(line.starts_with("error: ") && line.contains(role), "{line}");
    assert!(line.contains("correct user and password"), "{line}");
    assert_secret(&finished.stderr);
    assert_secret(&finished.stdout);
}

#[test]
fn scram() {
    logs_in_by("scram", "scram-sha-256");
}

#[test]
fn md5() {
    logs_in_by("md5", "md5");
}

#[test]
fn cleartext() {
    logs_in_by("cleartext", "password");
}

#[test]
fn a_password_that_is_changed_while_the_relay_runs_stops_it_for_good() {
    let (database, broker) = (server().fresh_database(), ScriptedBroker::start());
    server().sql("postgres", "CREATE ROLE changing LOGIN SUPERUSER REPLICATION");
    let hba = server().folder().path().join("data/pg_hba.conf");
    let before = fs::read_to_string(&hba).unwrap();
    let running = {
        let mut running = relay("changing", database.name(), Some(WRONG), &broker).start();
        running.await_ready(LONG);
        running
    };
    // In place: the file stays its owner's. Other roles' lines stay as they are.
    fs::write(&hba, format!("host all changing 127.0.0.1/32 scram-sha-256\n{before}")).unwrap();
    server().reload();
    let end = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'changing' AND datname = '{}'",
        database.name()
    );
    walpost_testkit::until(LONG, "the new line is in force", || {
        server().sql("postgres", &end);
        running.log().contains("password authentication failed")
    });
    let finished = running.finish(LONG);
    assert_eq!(finished.status.code(), Some(3), "{}", finished.stderr);
    assert_secret(&finished.stderr);
}
