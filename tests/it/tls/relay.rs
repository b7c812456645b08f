//! The relay itself over TLS: rows arrive, refusals are said and given up, files are renewed while it runs.

use walpost_testkit::postgres::Database;
use walpost_testkit::walpost::Builder;
use walpost_testkit::{Consumer, Postgres, ScriptedBroker, TlsDoor, http, until};

use super::{NAME, PASSWORD, Papers, postgres, rabbitmq};
use crate::rig::{LONG, walpost};
use crate::scene::{await_all_confirmed, number, publish_each, relay};

fn url(login: &str, host: &str, database: &Database<'_>) -> String {
    format!("postgresql://{login}@{host}:{}/{}", database.server().port(), database.name())
}

/// Certificates on both sides, and nothing but TLS.
fn certified(database: &Database<'_>) -> Builder {
    let papers = Papers::get();
    walpost()
        .set("postgres.url", url("certified", NAME, database))
        .set("postgres.tls.mode", "verify-full")
        .set("postgres.tls.ca_file", papers.path("ca.pem"))
        .set("postgres.tls.cert_file", papers.path("certified.crt"))
        .set("postgres.tls.key_file", papers.path("certified.key"))
        .set("replication.slot", database.name())
        .set("broker.hosts", format!("{NAME}:{}", rabbitmq().port))
        .set("broker.tls.enabled", true)
        .set("broker.tls.ca_file", papers.path("ca.pem"))
        .set("broker.tls.cert_file", papers.path("relay.crt"))
        .set("broker.tls.key_file", papers.path("relay.key"))
}

#[test]
fn rows_arrive_over_tls_on_both_sides_also_after_kills() {
    const EACH: u64 = 2_000;
    let database = postgres().fresh_database();
    let vhost = rabbitmq().node.fresh_vhost();
    vhost.declare_queue("q");
    let builder = certified(&database)
        .set("broker.vhost", vhost.name())
        .set("outbox.destination", "{destination}");
    let mut running = builder.start();
    running.await_ready(LONG);
    let line = running.wait_for_log("streaming from slot", LONG);
    assert!(line.contains("TLSv1.3 TLS13_"), "{line}");
    let line = running.wait_for_log("connected to the broker", LONG);
    assert!(line.contains("TLSv1."), "{line}");
    for round in 0..3 {
        publish_each(&database, "/queue/q", round * EACH + 1, (round + 1) * EACH);
        // In the middle of it.
        until(LONG, "some are on their way", || running.metric("walpost_receipts_total") >= 200.0);
        running.kill();
        running = builder.start();
        running.await_ready(LONG);
    }
    let encrypted = |is: bool| {
        database.sql(&format!(
            "SELECT count(*) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)
             WHERE application_name = 'walpost' AND datname = '{}' AND ssl = {is}",
            database.name()
        ))
    };
    assert_ne!(encrypted(true), "0");
    assert_eq!(encrypted(false), "0");
    await_all_confirmed(&database);
    let consumer = Consumer::of_queue(&vhost, "q");
    consumer.wait_until(LONG, "each has come", |state| {
        let numbers = state.messages.iter().filter_map(|message| number(&message.body));
        numbers.collect::<std::collections::BTreeSet<_>>().len() as u64 == 3 * EACH
    });
    assert!(running.terminate(LONG).success());
}

/// Refused as a login is: tried again, shown, then given up with status 3.
#[test]
fn a_certificate_that_is_refused_ends_it_after_some_attempts() {
    let papers = Papers::get();
    let database = postgres().fresh_database();
    let finished = certified(&database)
        .set("postgres.tls.ca_file", papers.path("stranger.pem"))
        .start()
        .finish(LONG);
    assert_eq!(finished.status.code(), Some(3), "{}", finished.stderr);
    let line = finished.stderr.lines().last().unwrap();
    for word in
        ["error: connecting to PostgreSQL: localhost:", "stranger.pem'", "then start walpost again"]
    {
        assert!(line.contains(word), "{word}: {line}");
    }

    let finished = certified(&database)
        .set("broker.tls.ca_file", papers.path("stranger.pem"))
        .set("broker.reconnect.initial", "10ms")
        .start()
        .finish(LONG);
    assert_eq!(finished.status.code(), Some(3), "{}", finished.stderr);
    let line = finished.stderr.lines().last().unwrap();
    for word in ["error: the broker at localhost:", "stranger.pem'", "then start walpost again"] {
        assert!(line.contains(word), "{word}: {line}");
    }
}

#[test]
fn a_file_that_is_renewed_is_read_at_the_next_connection() {
    let papers = Papers::get();
    let (database, broker) = (Postgres::shared().fresh_database(), ScriptedBroker::start());
    let door = TlsDoor::of(&papers.authority.server(&[NAME])).open(broker.port());
    let ca = papers.file("renewed.pem", &papers.authority.pem());
    let mut running = relay(&database, &format!("{NAME}:{}", door.port()))
        .set("broker.tls.enabled", true)
        .set("broker.tls.ca_file", &ca)
        .set("broker.reconnect.initial", "10ms")
        .set("broker.reconnect.max", "100ms")
        .start();
    running.await_ready(LONG);
    papers.file("renewed.pem", &papers.stranger.pem());
    broker.drop_connections();
    running.wait_for_log("was issued by nobody whom", LONG);
    until(LONG, "whoever asks hears of it", || {
        let ready = http::get(running.http_port(), "/readyz").unwrap();
        let status = running.status().to_string();
        ready.status == 503
            && ready.text().contains("was issued by nobody whom")
            && status.contains("was issued by nobody whom")
    });
    // The login was right before: it is tried for longer than five times.
    let failed = |text: &str| running.log().matches(text).count();
    assert!(failed("error: ") == 0, "{}", running.log());
    papers.file("renewed.pem", &papers.authority.pem());
    running.await_ready(LONG);
    publish_each(&database, "/queue/q", 1, 1);
    broker.wait_for_sends(1, LONG);
    assert!(running.terminate(LONG).success());
}

/// 0.0.0.0 is this machine, too, but does not look like it.
#[test]
fn a_password_in_plain_text_to_another_machine_is_said_once() {
    const WORDS: &str = "the password is sent in plain text to another machine";
    let (database, broker) = (postgres().fresh_database(), ScriptedBroker::start());
    let run = |host: &str, mode: &str| {
        let mut running = walpost()
            .set("postgres.url", url(&format!("cleartext:{PASSWORD}"), host, &database))
            .set("postgres.tls.mode", mode)
            .set("replication.slot", database.name())
            .set("broker.hosts", format!("{host}:{}", broker.port()))
            .set("broker.passcode", PASSWORD)
            .set("broker.reconnect.initial", "10ms")
            .start();
        running.await_ready(LONG);
        let connects =
            |peer: &str| running.metric(&format!("walpost_connects_total{{peer=\"{peer}\"}}"));
        broker.drop_connections();
        postgres().sql("postgres", &format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_replication JOIN pg_stat_activity USING (pid) WHERE datname = '{}'",
            database.name()
        ));
        until(LONG, "both connect again", || {
            connects("broker") >= 2.0 && connects("postgresql") >= 2.0
        });
        running.await_ready(LONG);
        let log = running.log();
        assert!(running.terminate(LONG).success());
        assert!(!log.contains(PASSWORD), "{log}");
        log
    };
    let log = run("0.0.0.0", "disable");
    assert_eq!(log.matches(WORDS).count(), 2, "{log}");
    assert!(
        log.contains("set postgres.tls.mode") && log.contains("set broker.tls.enabled"),
        "{log}"
    );
    let log = run("127.0.0.1", "disable");
    assert_eq!(log.matches(WORDS).count(), 0, "{log}");
    // The broker's alone.
    let log = run("0.0.0.0", "require");
    assert_eq!(log.matches(WORDS).count(), 1, "{log}");
}
