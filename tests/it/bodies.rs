//! Bodies and headers arrive as they were committed, whatever is in them.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use walpost_testkit::{Consumer, ScriptedBroker};

use crate::rig::{LONG, Rig};
use crate::scene::{await_all_confirmed, database, relay};

/// What a text can hold; PostgreSQL's has no NUL.
fn texts() -> Vec<String> {
    let controls: String = (1u8..32).chain([127]).map(char::from).collect();
    let mut texts = vec![
        String::new(),
        " \t\r\n ".to_owned(),
        "\"quotes\" 'and' \\back\\slashes\\n".to_owned(),
        "gr\u{fc}n \u{1f600} \u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467} \u{2028}\u{feff}"
            .to_owned(),
        "a:b\nc:d\n\nlooks like a frame".to_owned(),
        controls,
    ];
    // Longer than what is copied into one buffer.
    texts.push("line\n".repeat(20_000));
    texts
}

const JSONS: [&str; 6] = [
    "{}",
    r#"{"b" :  1,  "a": [1.10, 1e3, null],"b":2}"#,
    r#""\u0001\u001f \"\\ \ud83d\ude00""#,
    "[\n\t\"\u{1f600}\"\n]",
    "\"\"",
    "null",
];

fn bytes() -> Vec<Vec<u8>> {
    let all: Vec<u8> = (0..=255).collect();
    vec![vec![], vec![0], b"\0\n\0".to_vec(), all.clone(), all.repeat(400)]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_body_arrives_unchanged() {
    let rig = Rig::new();
    rig.vhost.declare_queue("all");
    rig.database.sql(
        "CREATE TABLE texts (id text, body text); CREATE TABLE jsons (body json, id text);
         CREATE TABLE jsonbs (id text, body jsonb); CREATE TABLE bytes (id text, body bytea)",
    );
    let mut walpost = rig
        .walpost()
        .set("outbox.layout", "custom")
        .set(
            "outbox.tables",
            r#"["public.texts", "public.jsons", "public.jsonbs", "public.bytes"]"#,
        )
        .set("outbox.columns", r#"{"id": "id", "body": "body"}"#)
        .set("outbox.destination", "/queue/all")
        .start();
    walpost.await_ready(LONG);

    let client = rig.database.client().await;
    let mut expected = BTreeMap::new();
    let mut expect = |id: String, body: Vec<u8>| expected.insert(id, body);
    for (number, text) in texts().into_iter().enumerate() {
        let id = format!("text {number}");
        client.execute("INSERT INTO texts VALUES ($1, $2)", &[&id, &text]).await.unwrap();
        expect(id, text.into_bytes());
    }
    for (number, json) in JSONS.into_iter().enumerate() {
        let id = format!("json {number}");
        let insert = "INSERT INTO jsons VALUES ($2::text::json, $1)";
        client.execute(insert, &[&id, &json]).await.unwrap();
        expect(id, json.as_bytes().to_vec());
        let id = format!("jsonb {number}");
        let insert = "INSERT INTO jsonbs VALUES ($1, $2::text::jsonb) RETURNING body::text";
        let printed: String = client.query_one(insert, &[&id, &json]).await.unwrap().get(0);
        expect(id, printed.into_bytes());
    }
    for (number, body) in bytes().into_iter().enumerate() {
        let id = format!("bytes {number}");
        client.execute("INSERT INTO bytes VALUES ($1, $2)", &[&id, &body]).await.unwrap();
        expect(id, body);
    }
    for table in ["texts", "jsons", "jsonbs", "bytes"] {
        let id = format!("null of {table}");
        let insert = format!("INSERT INTO {table} (id, body) VALUES ($1, NULL)");
        client.execute(&insert, &[&id]).await.unwrap();
        expect(id, vec![]);
    }

    let consumer = Consumer::of_queue(&rig.vhost, "all");
    let messages = consumer.wait_for(expected.len() as u64, LONG);
    for message in messages {
        let id = message.header("msg-id").unwrap();
        let body = expected.remove(id).unwrap_or_else(|| panic!("{id} came twice"));
        assert!(message.body == body, "{id}: {:?} is not {body:?}", message.body);
        let content_type = match id {
            _ if id.starts_with("bytes") => "application/octet-stream",
            _ => "application/json",
        };
        assert_eq!(message.header("content-type"), Some(content_type), "{id}");
    }
    assert!(expected.is_empty(), "{expected:?}");
    assert!(walpost.terminate(LONG).success());
}

#[tokio::test(flavor = "multi_thread")]
async fn twelve_mebibytes_arrive_unchanged() {
    let rig = Rig::new();
    rig.vhost.declare_queue("big.v1");
    let mut walpost = rig.walpost().set("broker.max_frame_size", "13MiB").start();
    walpost.await_ready(LONG);
    let consumer = Consumer::of_queue(&rig.vhost, "big.v1");
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut bytes = vec![0; 12 << 20];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    let client = rig.database.client().await;
    let publish = "SELECT walpost.publish_bytes('/queue/big', $1)";
    client.execute(publish, &[&bytes]).await.unwrap();
    // Quotes and escapes, so that text and printed form differ in length.
    let text = "\"\\\u{1f600}".repeat(3 << 19);
    let publish = "SELECT walpost.publish('/queue/big', to_jsonb($1::text))";
    client.execute(publish, &[&text]).await.unwrap();
    client.execute("SELECT walpost.publish('/queue/big', '\"after\"')", &[]).await.unwrap();

    let messages = consumer.wait_for(3, LONG);
    let hash = |bytes: &[u8]| Sha256::digest(bytes);
    assert_eq!(messages[0].body.len(), bytes.len());
    assert_eq!(hash(&messages[0].body), hash(&bytes), "the 12 MiB have changed");
    let printed = serde_json::to_string(&text).unwrap();
    assert_eq!(printed.len(), (12 << 20) + 2);
    assert_eq!(hash(&messages[1].body), hash(printed.as_bytes()), "the JSON has changed");
    assert_eq!(messages[2].text(), "\"after\"");
    await_all_confirmed(&rig.database);
    assert_eq!(walpost.metric("walpost_connects_total{peer=\"broker\"}"), 1.0);
    assert!(walpost.terminate(LONG).success());
}

#[test]
fn text_bodies_go_without_content_length_unless_they_need_it() {
    let broker = ScriptedBroker::start();
    let database = database();
    let mut walpost = relay(&database, &broker.address()).set("broker.body", "text").start();
    walpost.await_ready(LONG);
    database.sql(
        r#"SELECT walpost.publish('/queue/q', '{"a": "ü"}');
           SELECT walpost.publish('/queue/q', NULL);
           SELECT walpost.publish_bytes('/queue/q', '\x610062');
           SELECT walpost.publish_bytes('/queue/q', '\x6162')"#,
    );
    await_all_confirmed(&database);
    let got: Vec<_> = broker
        .messages()
        .into_iter()
        .map(|frame| {
            let length = frame.header("content-length").map(str::to_owned);
            (String::from_utf8(frame.body).unwrap(), length)
        })
        .collect();
    let expected =
        [(r#"{"a": "ü"}"#, None), ("", None), ("a\0b", Some("3".to_owned())), ("ab", None)];
    assert_eq!(got, expected.map(|(body, length)| (body.to_owned(), length)));
    assert_eq!(broker.complaints(), Vec::<String>::new());
    assert!(walpost.terminate(LONG).success());
}

/// Names and values that need escaping or are otherwise unusual.
const HEADERS: &str = r#"{
    "colon": "a:b::", "backslash": "\\n \\\\ \\", "lines": "one\ntwo\r\nthree", "name:of\\one": "x",
    "grün": "\ud83d\ude00", " spaces ": "  around  ", "empty": "", "number": 1.10, "true": true,
    "object": {"k": ["v", null]}, "null": null, "persistent": "true", "content-type": "text/x-own"
}"#;

#[tokio::test(flavor = "multi_thread")]
async fn headers_arrive_as_they_were() {
    let rig = Rig::new();
    rig.vhost.declare_queue("q.v1");
    let mut walpost = rig.start();
    let client = rig.database.client().await;
    let publish = "SELECT walpost.publish('/queue/q', '{}', headers => $1::text::jsonb)::text";
    let id: String = client.query_one(publish, &[&HEADERS]).await.unwrap().get(0);
    let consumer = Consumer::of_queue(&rig.vhost, "q.v1");
    let message = consumer.wait_for(1, LONG).remove(0);
    for (name, value) in [
        ("colon", "a:b::"),
        ("backslash", "\\n \\\\ \\"),
        ("lines", "one\ntwo\r\nthree"),
        ("name:of\\one", "x"),
        ("grün", "\u{1f600}"),
        (" spaces ", "  around  "),
        ("empty", ""),
        ("number", "1.10"),
        ("true", "true"),
        ("object", r#"{"k":["v",null]}"#),
        ("content-type", "text/x-own"),
        ("msg-id", &id),
        ("msg-type", "Published"),
    ] {
        assert_eq!(message.header(name), Some(value), "{name}: {:?}", message.headers);
        let times = message.headers.iter().filter(|(known, _)| known == name).count();
        assert_eq!(times, 1, "{name}");
    }
    assert_eq!(message.header("null"), None);
    drop(consumer);

    // Those that a row may not set.
    let forbidden = r#"{"destination": "/queue/else", "receipt": "r", "transaction": "t",
        "content-length": "1", "id": "i", "ack": "a", "message-id": "m", "kept": "k"}"#;
    let id: String = client.query_one(publish, &[&forbidden]).await.unwrap().get(0);
    await_all_confirmed(&rig.database);
    let got = rig.vhost.get("q.v1", 10);
    assert_eq!(got.len(), 1, "{got:?}");
    let (payload, properties) = (&got[0]["payload"], &got[0]["properties"]);
    assert_eq!(payload, "{}");
    // What AMQP knows by a name of its own.
    assert_eq!(properties["message_id"], id.as_str());
    assert_eq!(properties["delivery_mode"], 2);
    assert_eq!(properties["content_type"], "application/json");
    assert_eq!(properties["headers"]["kept"], "k");
    assert_eq!(walpost.metric("walpost_headers_dropped_total"), 7.0);
    assert!(walpost.terminate(LONG).success());
}
