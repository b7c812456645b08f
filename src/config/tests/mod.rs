//! Files and environments as an operator writes them, and what is answered.

use std::ffi::OsString;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::outbox::HeaderStyle;

mod layers;
mod problems;
mod secrets;

const CONTRACT: &str = include_str!("../../../tests/data/contract.yaml");

/// A file and variables.
fn given(yaml: &str, variables: &[(&str, &str)]) -> Sources {
    let variables =
        variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    Sources::default().text("walpost.yaml", yaml.to_owned()).environment(variables)
}

fn loaded(yaml: &str, variables: &[(&str, &str)]) -> Loaded {
    match load(given(yaml, variables)) {
        Ok(loaded) => loaded,
        Err(error) => panic!("{error}"),
    }
}

fn config(yaml: &str) -> Config {
    loaded(yaml, &[]).config
}

/// The problems' lines.
fn refused(yaml: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let error = load(given(yaml, variables)).map(|loaded| loaded.config).unwrap_err();
    error.to_string().lines().map(str::to_owned).collect()
}

#[test]
fn the_documented_file_says_the_defaults() {
    assert_eq!(config(CONTRACT), Config::default());
    assert_eq!(config(""), Config::default());
    assert_eq!(config("broker:\npostgres:\n# nothing\n"), Config::default());
    assert_eq!(load(Sources::default()).unwrap().config, Config::default());
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let config = Config::default();
    assert_eq!(config.postgres.url.to_string(), "postgresql://postgres@127.0.0.1:5432/postgres");
    assert_eq!(config.postgres.connect_timeout, Duration::from_secs(10));
    assert_eq!(config.replication.slot, "walpost");
    assert!(config.replication.create);
    assert_eq!(config.outbox.destination, "{destination}[.{version}]");
    assert_eq!((config.outbox.key.as_str(), config.outbox.content_type), ("{key}", None));
    assert_eq!(config.outbox.retention, Some(DAY * 7));
    assert!(config.outbox.backfill);
    assert_eq!(config.broker.hosts, [HostPort { host: "127.0.0.1".into(), port: 61613 }]);
    assert_eq!(
        (config.broker.username.as_str(), config.broker.passcode.expose()),
        ("guest", "guest")
    );
    assert_eq!(config.broker.in_flight, InFlight { messages: 1024, bytes: 16 << 20 });
    assert_eq!(config.broker.max_frame_size, 4 << 20);
    assert_eq!(config.broker.headers, [("persistent".to_owned(), "true".to_owned())]);
    assert_eq!(config.http.listen.unwrap().to_string(), "127.0.0.1:9464");
    assert_eq!(config.shutdown_timeout, Duration::from_secs(20));
}

#[test]
fn every_key_that_is_shown_can_be_set_by_a_variable() {
    let lines = load(Sources::default()).unwrap().lines;
    for line in lines.iter().filter(|line| line.value.is_some()) {
        let name = reader::variable_name(&line.path);
        // Read or refused for its value, but known.
        let answer = load(given("", &[(&name, "*")]));
        let text = answer.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(!text.contains("unknown"), "{name}: {text}");
    }
    assert!(lines.len() > 60);
}

#[test]
fn the_layout_decides_defaults() {
    let django = config("outbox: {layout: django}").outbox;
    assert_eq!(django.destination, "{destination}");
    assert_eq!(
        (django.after_publish, django.backfill, django.retention),
        (AfterPublish::Mark, true, None)
    );
    assert_eq!(django.header_style, HeaderStyle::Msg);

    let custom = config(
        "outbox: {layout: custom, tables: [public.events], columns: {id: id, destination: topic}}",
    )
    .outbox;
    assert_eq!(
        (custom.after_publish, custom.backfill, custom.retention),
        (AfterPublish::Keep, false, None)
    );
    assert_eq!(custom.tables, [TableRef { schema: "public".into(), name: "events".into() }]);
    assert_eq!(custom.columns.destination.as_deref(), Some("topic"));
    assert!(
        config("outbox: {layout: custom, tables: [a.b], columns: {id: id}, destination: fixed}")
            .outbox
            .columns
            .destination
            .is_none()
    );
}

#[test]
fn what_this_version_does_not_do_is_marked() {
    let shown = loaded("outbox: {layout: django}", &[]).show();
    let marked = |key: &str| {
        let line = shown.lines().find(|line| line.trim().starts_with(key)).unwrap();
        line.ends_with("; not in this version")
    };
    assert!(!marked("consumers:") && !marked("max_parked:"), "{shown}");
    assert!(
        !marked("layout:") && !marked("after_publish:") && !marked("slot:") && !marked("kind:"),
        "{shown}"
    );
}

#[test]
fn an_empty_value_means_nothing_where_nothing_can_be_meant() {
    assert_eq!(config("outbox: {content_type: }").outbox.content_type.as_deref(), Some(""));
    let config = config(
        "outbox: {key: , logical_messages: ''}\nhttp: {listen: }\nbroker: {username: , passcode: , headers: {}}",
    );
    assert_eq!((config.outbox.key.as_str(), config.outbox.logical_messages), ("", None));
    assert_eq!(config.http.listen, None);
    assert!(config.broker.username.is_empty() && config.broker.passcode.is_empty());
    assert!(config.broker.headers.is_empty());
}

#[test]
fn scalars_need_no_quotes() {
    let broker = config(
        "broker: {tls: {min_version: 1.2}, passcode: 007, headers: {persistent: true, n: 1}}",
    )
    .broker;
    assert_eq!(broker.passcode.expose(), "007");
    assert_eq!(broker.headers, [("persistent".into(), "true".into()), ("n".into(), "1".into())]);
}

#[test]
fn durations_and_sizes_have_units() {
    let config = config(
        "broker: {receipt_timeout: 1h, reconnect: {initial: 250ms}, max_frame_size: 512KiB, in_flight: {bytes: 1GiB}, heartbeat: {send: 0s}}",
    );
    assert_eq!(config.broker.receipt_timeout, HOUR);
    assert_eq!(config.broker.reconnect.initial, Duration::from_millis(250));
    assert_eq!((config.broker.max_frame_size, config.broker.in_flight.bytes), (512 << 10, 1 << 30));
    assert!(config.broker.heartbeat.send.is_zero());
}

#[test]
fn what_is_shown_can_be_read_again() {
    let django = "outbox: {layout: django, headers: {x-y: '{id}: \"1\" #', 'a b': z}, key: 'null'}\nbroker: {hosts: ['[::1]:1', b:2], vhost: '#'}\nhttp: {listen: }";
    for yaml in ["", django] {
        let first = loaded(yaml, &[("WALPOST__LOG__LEVEL", "debug")]);
        let mut again = config(&first.show());
        again.broker.passcode = first.config.broker.passcode.clone();
        assert_eq!(again, first.config);
    }
}

#[test]
fn what_is_shown_names_its_source() {
    let sources = given("broker:\n  hosts: [a:1]\n", &[("WALPOST__HTTP__LISTEN", "")]).flag(
        "-v",
        "log.level",
        "debug",
    );
    let shown = load(sources).unwrap().show();
    for (key, source) in [
        ("hosts: [\"a:1\"]", "walpost.yaml:2"),
        ("listen:", "WALPOST__HTTP__LISTEN"),
        ("level: debug", "-v"),
        ("slot: walpost", "default"),
    ] {
        let line = shown.lines().find(|line| line.trim_start().starts_with(key)).unwrap();
        assert!(line.ends_with(&format!("# {source}")), "{line}");
    }
}

/// Text that is likely to be nearly YAML.
fn nearly_yaml() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        "[a-z_]{1,12}",
        "[ \t\n:,\\[\\]{}#&*!|>'\"%@`~?-]{1,4}",
        Just("\n  ".to_owned()),
        Just("\nbroker:\n  ".to_owned()),
        Just("hosts: ".to_owned()),
        Just("outbox: {columns: {".to_owned()),
        Just("consumers: [{handler: {exec: [".to_owned()),
        "\\PC{0,3}",
    ];
    proptest::collection::vec(word, 0..24).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_text_is_a_configuration_or_problems(text in nearly_yaml()) {
        if let Err(error) = load(given(&text, &[])) {
            prop_assert!(!error.problems.is_empty());
        }
    }

    #[test]
    fn a_cut_off_file_is_a_configuration_or_problems(end in 0..CONTRACT.len()) {
        if let Some(text) = CONTRACT.get(..end) {
            let _ = load(given(text, &[]));
        }
    }

    #[test]
    fn any_value_of_any_key_is_taken_or_refused(index in 0_usize..70, value in "\\PC{0,12}") {
        let lines = load(Sources::default()).unwrap().lines;
        let line = &lines[index % lines.len()];
        let _ = load(given("", &[(&reader::variable_name(&line.path), &value)]));
    }
}

#[test]
fn deep_or_endless_yaml_is_refused() {
    for text in
        ["[".repeat(100_000), "{a: ".repeat(50_000), "- ".repeat(50_000), "? ".repeat(10_000)]
    {
        assert!(load(given(&text, &[])).is_err());
    }
}
