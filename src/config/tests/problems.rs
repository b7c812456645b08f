//! What is refused, and in which words.

use super::*;

/// The one problem with a file.
fn problem(yaml: &str) -> String {
    refused(yaml, &[]).join("\n")
}

#[test]
fn all_problems_come_together_in_the_order_of_the_lines() {
    let yaml = "\
broker:
  hosts: [localhost]
  recept_timeout: 3s
replication:
  slot: Walpost-1
  status_interval: 0s
outbox:
  layout: djnago
";
    assert_eq!(
        refused(yaml, &[("WALPOST__RETRY__PAUSE_AFTER", "0")]),
        [
            "broker.hosts: \"localhost\" has no port; write host:port, as in 127.0.0.1:61613 (walpost.yaml:2)",
            "broker.recept_timeout: unknown key; did you mean broker.receipt_timeout? (walpost.yaml:3)",
            "replication.slot: \"Walpost-1\" is no slot name; PostgreSQL takes a-z, 0-9 and _ only (walpost.yaml:5)",
            "replication.status_interval: \"0s\" is too short; the least is 100ms (walpost.yaml:6)",
            "outbox.layout: \"djnago\" is none of walpost, django, debezium and custom (walpost.yaml:8)",
            "retry.pause_after: \"0\" is too small; the least is 1 (WALPOST__RETRY__PAUSE_AFTER)",
        ]
    );
}

#[test]
fn an_unknown_key_comes_with_the_nearest_known_one() {
    for (yaml, answer) in [
        ("brokr: {hosts: [a:1]}", "brokr: unknown key; did you mean broker? (walpost.yaml:1)"),
        (
            "broker: {slot: x}",
            "broker.slot: unknown key; did you mean replication.slot? (walpost.yaml:1)",
        ),
        (
            "postgres: {password: x}",
            "postgres.password: unknown key; did you mean postgres.password_file? (walpost.yaml:1)",
        ),
        (
            "broker: {reconnect: {min: 1s}}",
            "broker.reconnect.min: unknown key; did you mean broker.reconnect.max? (walpost.yaml:1)",
        ),
        ("http: {zzzzzz: 1}", "http.zzzzzz: unknown key; here can stand listen (walpost.yaml:1)"),
        (
            "broker: {passcode_fil: x}",
            "broker.passcode_fil: unknown key; did you mean broker.passcode_file? (walpost.yaml:1)",
        ),
    ] {
        assert_eq!(problem(yaml), answer);
    }
}

#[test]
fn values_that_do_not_fit() {
    for (yaml, words) in [
        ("broker: {hosts: []}", "broker.hosts: is empty"),
        ("broker: {hosts: a:1}", "broker.hosts: takes a list; write [first, second]"),
        ("broker: {hosts: [::1:61613]}", "write an IPv6 address in brackets"),
        ("broker: {hosts: ['[::1:61613']}", "'[' without ']'"),
        ("broker: {hosts: ['[a]:61613']}", "no IPv6 address in its brackets"),
        ("broker: {hosts: ['a:70000']}", "no number up to 65535"),
        ("broker: {hosts: ['a:+1']}", "no number up to 65535"),
        ("broker: {hosts: ['a:0']}", "port 0"),
        ("broker: {hosts: [':1']}", "no host before"),
        ("broker: {hosts: ['a/b:1']}", "no name and no address"),
        ("broker: {in_flight: {messages: 0}}", "\"0\" is too small; the least is 1"),
        ("broker: {in_flight: {messages: -1}}", "\"-1\" is no whole number"),
        ("broker: {in_flight: 5}", "takes keys with values below it"),
        ("broker: {max_frame_size: 4XB}", "\"4XB\" is no size; write 512KiB, 16MiB or 1GiB"),
        ("broker: {max_frame_size: 2GiB}", "\"2GiB\" is too large; the most is 1GiB"),
        ("broker: {heartbeat: {send: 10}}", "\"10\" is no duration; write 250ms, 10s, 1h or 7d"),
        ("broker: {receipt_timeout: 2h}", "\"2h\" is too long; the most is 1h"),
        (
            "broker: {reconnect: {initial: 1m, max: 1s}}",
            "broker.reconnect.max: is shorter than broker.reconnect.initial",
        ),
        ("broker: {headers: {receipt: x}}", "\"receipt\" is a header that only the relay may set"),
        ("broker: {headers: {a: [b]}}", "broker.headers.a: is no text"),
        ("broker: {vhost: {a: b}}", "broker.vhost: takes one value, not a list or a map"),
        ("broker: {vhost: }", "broker.vhost: is empty; leave the key out for the default, /"),
        (
            "outbox: {headers: {message-id: x}}",
            "\"message-id\" is a header that only the relay may set",
        ),
        ("outbox: {headers: {'': x}}", "\"\" is no header name"),
        ("outbox: {headers: {a: \"\\0\"}}", "the value of \"a\" has a NUL character"),
        ("outbox: {destination: '{nix}'}", "outbox.destination: \"{nix}\" is no template: "),
        ("outbox: {key: '[x'}", "outbox.key: \"[x\" is no template: "),
        ("outbox: {headers: {a: '{'}}", "outbox.headers: the value of \"a\" is no template: "),
        ("outbox: {destination: ''}", "outbox.destination: is empty"),
        ("outbox: {tables: [outbox]}", "has no schema; write public.outbox"),
        ("outbox: {tables: [a.b.c]}", "more than one '.'"),
        ("outbox: {tables: ['\"A\".b']}", "has a quote"),
        ("outbox: {columns: {id: id}}", "is for the layout custom only"),
        (
            "outbox: {layout: custom, tables: [a.b], columns: {ident: x, id: x}, destination: d}",
            "\"ident\" is nothing that a column can hold",
        ),
        (
            "outbox: {layout: custom, columns: {id: x}, destination: d}",
            "outbox.tables: is needed by the layout custom",
        ),
        ("outbox: {layout: custom, tables: [a.b], destination: d}", "no column for the message id"),
        (
            "outbox: {layout: custom, tables: [a.b], columns: {id: x}}",
            "no column for the destination",
        ),
        ("outbox: {backfill: maybe}", "\"maybe\" is neither true nor false"),
        ("replication: {create: yes}", "\"yes\" is neither true nor false"),
        ("replication: {slot: ''}", "replication.slot: is empty"),
        ("replication: {shard: {index: 1}}", "1 is no share of 1; the first is 0, the last 0"),
        (
            "{replication: {shard: {count: 2}}, outbox: {key: '{key}-{version}'}}",
            "outbox.key: with replication.shard.count over 1 it is one column",
        ),
        (
            "{replication: {shard: {count: 2}}, outbox: {destination: '{column:a}{column:b}'}}",
            "outbox.destination: with replication.shard.count over 1 it holds {destination}",
        ),
        (
            "{replication: {shard: {count: 2}}, outbox: {key: '', destination: x}}",
            "replication.shard.count: all messages are for one destination",
        ),
        ("postgres: {tls: {cert_file: x}}", "postgres.tls.cert_file: needs key_file beside it"),
        (
            "broker: {tls: {ca_file: x}}",
            "broker.tls.enabled: is false, and the keys beside it ask for TLS; write enabled: true",
        ),
        (
            "broker: {tls: {enabled: true, key_password: x}}",
            "broker.tls.key_password: needs key_file beside it",
        ),
        ("retry: {max_attempts: 1}", "retry.max_attempts: is less than retry.pause_after"),
        ("http: {listen: 9464}", "\"9464\" is no host:port; write 127.0.0.1:9464"),
        ("log: {level: loud}", "\"loud\" is none of error, warn, info, debug and trace"),
        ("consumers: [{handler: {call: f}}]", "consumers[0].destination: is needed"),
        (
            "consumers: [{destination: d, handler: {call: f, http: g}}]",
            "consumers[0].handler: has exactly one of call, http and exec",
        ),
        (
            "consumers: [{destination: d, handler: {call: f}, prefech: 2}]",
            "did you mean consumers[0].prefetch?",
        ),
        ("consumers: [x]", "consumers[0]: takes keys with values below it"),
    ] {
        let problem = problem(yaml);
        assert!(problem.contains(words), "{yaml}\n{problem}");
        assert!(problem.contains("(walpost.yaml:1)"), "{problem}");
    }
}

#[test]
fn slot_names_are_postgres_own() {
    let slot = |name: &str| load(given(&format!("replication: {{slot: {name}}}"), &[])).is_ok();
    assert!(slot("a") && slot("walpost_2") && slot(&"a".repeat(63)));
    assert!(!slot("A") && !slot("a-b") && !slot("a.b") && !slot("ä") && !slot(&"a".repeat(64)));
}

#[test]
fn what_is_no_plain_yaml_is_refused_with_its_line() {
    for (yaml, answer) in [
        (
            "hello",
            "walpost.yaml:1: is no configuration; it begins with keys such as 'postgres:' and 'broker:'",
        ),
        (
            "broker:\n  vhost: x\n  vhost: y",
            "walpost.yaml:3: the key 'vhost' stands here again (first: walpost.yaml:2); keep one",
        ),
        (
            "broker:\n  vhost: &a x",
            "walpost.yaml:2: has a YAML anchor or alias ('&…', '*…'); write the value out, or put it in quotes",
        ),
        (
            "broker:\n  vhost: !x y",
            "walpost.yaml:2: has a YAML tag ('!…'); put the value in quotes or leave the tag out",
        ),
        (
            "log:\n---\nlog:\n",
            "walpost.yaml:2: holds a second document; keep one, without '---' between",
        ),
        ("? [a]\n: b", "walpost.yaml:1: has a list or a map where a key must be"),
    ] {
        assert_eq!(problem(yaml), answer);
    }
    assert!(
        problem("broker:\n\tvhost: x").starts_with("walpost.yaml:2: is no YAML: tabs disallowed")
    );
    assert!(problem("broker: [").contains("is no YAML: "));
}

#[test]
fn settings_of_later_versions_are_refused() {
    assert_eq!(
        problem("outbox: {layout: debezium}"),
        "outbox.layout: debezium is not in this version; write walpost, django or custom (walpost.yaml:1)"
    );
}

#[test]
fn settings_of_later_versions_pass_where_they_change_nothing() {
    let yaml = "\
replication: {failover: false, on_slot_lost: halt, shard: {index: 0, count: 1}}
outbox: {backfill: false, after_publish: keep, retention: never}
broker: {kind: rabbitmq, delivery: receipts, body: text, connections: 4}
retry: {first_wait: 2s, pause: 1s, wait: 2s, max_attempts: 5, max_parked: 10, on_exhausted: halt}
consumers: [{destination: d, handler: {exec: [cat, '-']}}]
";
    let loaded = loaded(yaml, &[]);
    assert_eq!(loaded.config.broker.body, Body::Text);
}

#[test]
fn long_and_strange_values_are_quoted_safely() {
    let long = "x".repeat(500);
    let line = problem(&format!("log: {{level: {long}}}"));
    assert!(line.len() < 200, "{line}");
    assert!(problem("log: {level: \"a\\nb\\e[31m\"}").contains(r#""a\nb\u{1b}[31m" is none of"#));
}

#[test]
fn transactions_only_where_they_prove_something() {
    for kind in ["rabbitmq", "artemis"] {
        let said = problem(&format!("broker: {{kind: {kind}, delivery: transactions}}"));
        assert!(said.contains("broker.delivery: transactions "), "{said}");
        assert!(said.contains("write auto or receipts"), "{said}");
    }
}
