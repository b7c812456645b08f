//! Which source wins.

use super::*;

#[test]
fn the_environment_wins_over_the_file() {
    let yaml = "broker:\n  hosts: [a:1]\n  vhost: file\n  heartbeat: {send: 1s, expect: 2s}\n";
    let variables = [
        ("WALPOST__BROKER__HOSTS", "[::1]:3, b:2"),
        ("WALPOST__BROKER__HEARTBEAT__EXPECT", "5s"),
        ("WALPOST__OUTBOX__HEADERS", r#"{"x": "{id}", "n": 3}"#),
        ("WALPOST__OUTBOX__TABLES", r#"["walpost.outbox"]"#),
        ("PATH", "/bin"),
        ("WALPOST_CONFIG", "walpost.yaml"),
        ("WALPOST_SERVICE_HOST", "10.0.0.1"),
    ];
    let config = loaded(yaml, &variables).config;
    let hosts: Vec<String> = config.broker.hosts.iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["[::1]:3", "b:2"]);
    assert_eq!(config.broker.vhost, "file");
    assert_eq!(config.broker.heartbeat, Heartbeat { send: SECOND, expect: SECOND * 5 });
    assert_eq!(config.outbox.headers, [("n".into(), "3".into()), ("x".into(), "{id}".into())]);
    assert_eq!(config.outbox.tables.len(), 1);
}

#[test]
fn a_section_can_be_one_json_value() {
    let yaml = "broker: {vhost: file, username: file}";
    let variables = [
        ("WALPOST__BROKER", r#"{"vhost": "json", "connections": 1, "heartbeat": {"send": "3s"}}"#),
        ("WALPOST__BROKER__HEARTBEAT__SEND", "4s"),
    ];
    let broker = loaded(yaml, &variables).config.broker;
    assert_eq!((broker.vhost.as_str(), broker.username.as_str()), ("json", "file"));
    assert_eq!(broker.heartbeat.send, SECOND * 4);
}

#[test]
fn a_flag_wins_over_the_environment() {
    let sources = given("log: {level: warn}", &[("WALPOST__LOG__LEVEL", "error")]);
    let config = load(sources.flag("-v", "log.level", "debug")).unwrap().config;
    assert_eq!(config.log.level, LogLevel::Debug);
}

#[test]
fn variables_that_nobody_reads_are_problems() {
    let refused = |name: &str| refused("", &[(name, "x")]).join("\n");
    for (name, answer) in [
        ("WALPOST__BROKER__HOST", "unknown variable; did you mean WALPOST__BROKER__HOSTS?"),
        ("WALPOST__BROKR__PASSCODE", "unknown variable; did you mean WALPOST__BROKER__PASSCODE?"),
        (
            "WALPOST__broker__vhost",
            "unknown variable; write it in capitals: WALPOST__BROKER__VHOST",
        ),
        (
            "WALPOST__BROKER__HEADERS__X",
            "unknown variable; broker.headers is set as a whole, by WALPOST__BROKER__HEADERS",
        ),
        (
            "WALPOST__POSTGRES__PASSWORD",
            "unknown variable; did you mean WALPOST__POSTGRES__PASSWORD_FILE?",
        ),
        ("WALPOST__XYZZY", "unknown variable; 'walpost config show' prints every key"),
        ("WALPOST__", "unknown variable; 'walpost config show' prints every key"),
        ("WALPOST_BROKER_HOSTS", "is not read; write WALPOST__BROKER__HOSTS"),
    ] {
        assert_eq!(refused(name), format!("{name}: {answer}"));
    }
}

#[test]
fn json_that_is_none_is_a_problem_without_its_text() {
    assert_eq!(
        refused("", &[("WALPOST__OUTBOX__HEADERS", "{\"a\": hunter2}")]),
        [
            "outbox.headers: takes one JSON value; this is none (line 1 column 7) (WALPOST__OUTBOX__HEADERS)"
        ]
    );
    assert_eq!(
        refused("", &[("WALPOST__BROKER__TLS", "true")]),
        [
            "broker.tls: takes keys with values below it, not a single value or a list (WALPOST__BROKER__TLS)"
        ]
    );
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_no_text_is_a_problem() {
    use std::os::unix::ffi::OsStringExt as _;
    let variable = (OsString::from("WALPOST__BROKER__VHOST"), OsString::from_vec(vec![0xFF]));
    let error =
        load(Sources::default().environment([variable])).map(|loaded| loaded.config).unwrap_err();
    assert!(error.to_string().contains("WALPOST__BROKER__VHOST: is not UTF-8"), "{error}");
}
