//! TLS towards the broker.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;

use walpost_testkit::{RabbitMq, ScriptedBroker, TlsDoor};

use super::{NAME, Papers, attempt, rabbitmq};
use crate::rig::LONG;

const KEY_PASSWORD: &str = "the-key's-password";

/// The section `broker` for a host and a port; `tls` is what its TLS section has besides.
fn broker(host: &str, port: u16, tls: &str) -> String {
    format!("broker: {{hosts: ['{host}:{port}'], tls: {{enabled: true{tls}}}}}")
}

fn trusting(authority: &str) -> String {
    format!(", ca_file: {}", Papers::get().path(authority))
}

fn client(name: &str) -> String {
    let path = |end: &str| Papers::get().path(&format!("{name}.{end}"));
    format!(", cert_file: {}, key_file: {}", path("crt"), path("key"))
}

#[track_caller]
fn refused(result: Result<(), String>, words: &[&str]) {
    let error = result.expect_err("connected");
    for word in words {
        assert!(error.contains(word), "{word}: {error}");
    }
}

#[tokio::test]
async fn rabbitmq_takes_who_is_certified_and_is_verified_itself() {
    let port = rabbitmq().port;
    let (right, mine) = (trusting("ca.pem"), client("relay"));
    attempt(&broker(NAME, port, &format!("{right}{mine}"))).await.unwrap();

    let result = attempt(&broker(NAME, port, &format!("{}{mine}", trusting("stranger.pem")))).await;
    refused(result, &["was issued by nobody whom", "stranger.pem' (broker.tls.ca_file)"]);

    let result = attempt(&broker("127.0.0.1", port, &format!("{right}{mine}"))).await;
    refused(
        result,
        &["is not valid for '127.0.0.1': it is for 'localhost'", "or set broker.tls.server_name"],
    );
    let named = format!("{right}{mine}, server_name: {NAME}");
    attempt(&broker("127.0.0.1", port, &named)).await.unwrap();

    let result = attempt(&broker(NAME, port, &right)).await;
    refused(result, &["does it ask for a client's certificate? Set broker.tls.cert_file"]);
    let result = attempt(&broker(NAME, port, &format!("{right}{}", client("impostor")))).await;
    refused(result, &["refuses the certificate in", "impostor.crt' (broker.tls.cert_file)"]);
}

#[tokio::test]
async fn an_encrypted_key() {
    let papers = Papers::get();
    let identity = papers.authority.client("relay");
    papers.file("locked.crt", &identity.certificate);
    papers.file("locked.key", &identity.encrypted_key(KEY_PASSWORD));
    let tls = format!("{}{}", trusting("ca.pem"), client("locked"));
    let quoted = KEY_PASSWORD.replace('\'', "''");
    let port = rabbitmq().port;
    attempt(&broker(NAME, port, &format!("{tls}, key_password: '{quoted}'"))).await.unwrap();
    let result = attempt(&broker(NAME, port, &format!("{tls}, key_password: hunter2"))).await;
    refused(result, &["broker.tls.key_file: ", "locked.key' can't be decrypted"]);
}

#[tokio::test]
async fn a_certificate_that_has_expired() {
    let papers = Papers::get();
    let broker_behind = ScriptedBroker::start();
    let door = TlsDoor::of(&papers.authority.expired_server(&[NAME])).open(broker_behind.port());
    let result = attempt(&broker(NAME, door.port(), &trusting("ca.pem"))).await;
    refused(result, &["has expired: it was valid until 2021-01-01 00:00:00 UTC"]);
    assert_eq!(broker_behind.connections(), 0);
}

#[tokio::test]
async fn the_oldest_version_of_tls() {
    let papers = Papers::get();
    let broker_behind = ScriptedBroker::start();
    let identity = papers.authority.server(&[NAME]);
    let door = TlsDoor::of(&identity).only_tls_1_2().open(broker_behind.port());
    attempt(&broker(NAME, door.port(), &trusting("ca.pem"))).await.unwrap();
    let newer = format!("{}, min_version: '1.3'", trusting("ca.pem"));
    let result = attempt(&broker(NAME, door.port(), &newer)).await;
    refused(result, &["speaks no TLS 1.3, and broker.tls.min_version is \"1.3\""]);
    let door = TlsDoor::of(&identity).open(broker_behind.port());
    attempt(&broker(NAME, door.port(), &newer)).await.unwrap();
}

/// A broker without TLS, and somebody who answers anything: neither sees a CONNECT.
#[tokio::test]
async fn nothing_goes_out_in_plain_text_where_tls_is_asked_for() {
    let result = attempt(&broker(NAME, RabbitMq::shared().stomp_port(), "")).await;
    refused(result, &["TLS: "]);

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut said = vec![0; 64];
        let count = client.read(&mut said).unwrap();
        said.truncate(count);
        client.write_all(b"CONNECTED\nversion:1.2\n\n\0").unwrap();
        let _ = client.read_to_end(&mut said);
        tell.send(said).unwrap();
    });
    refused(attempt(&broker(NAME, port, "")).await, &["speaks no TLS; is this the right port?"]);
    let said = told.recv_timeout(LONG).unwrap();
    assert_eq!(said[..2], [0x16, 0x03]);
    assert!(memchr::memmem::find(&said, b"CONNECT").is_none(), "{}", said.escape_ascii());
}
