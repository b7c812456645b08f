//! Servers that do what no PostgreSQL does: what walpost sends them is looked at byte by byte.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::sync::mpsc;

use super::{Both, PASSWORD, towards};
use crate::rig::LONG;

const REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const WORDS: &[u8] = b"SFATAL\0C28000\0Mpay here\0\0";

/// Answers the first eight bytes of two clients with `answer`, and gives all that each of them sent.
fn server(answer: Vec<u8>) -> (u16, mpsc::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for client in listener.incoming().take(2) {
            let mut client = client.unwrap();
            let mut said = vec![0; REQUEST.len()];
            client.read_exact(&mut said).unwrap();
            client.write_all(&answer).unwrap();
            // A client that waits for more is told that there is none.
            let _ = client.shutdown(Shutdown::Write);
            let _ = client.read_to_end(&mut said);
            tell.send(said).unwrap();
        }
    });
    (port, told)
}

async fn connect(port: u16, mode: &str) -> Both {
    let login = format!("somebody:{PASSWORD}");
    Both::connect(&towards(port, "127.0.0.1", &login, "secrets", &format!("mode: {mode}"))).await
}

fn error() -> Vec<u8> {
    let length = u32::try_from(WORDS.len() + 4).unwrap();
    [&b"E"[..], &length.to_be_bytes(), WORDS].concat()
}

#[tokio::test]
async fn a_no_is_not_followed_by_plain_text() {
    for mode in ["require", "verify-ca", "verify-full"] {
        let (port, told) = server(b"N".to_vec());
        connect(port, mode).await.refused(&["does not offer it", mode]);
        for _ in 0..2 {
            assert_eq!(told.recv_timeout(LONG).unwrap(), REQUEST, "{mode}");
        }
    }
    // Where plain text is allowed it follows.
    let (port, told) = server(b"N".to_vec());
    let both = connect(port, "prefer").await;
    assert!(both.store.is_err() && both.source.is_err());
    for _ in 0..2 {
        let said = told.recv_timeout(LONG).unwrap();
        assert!(memchr::memmem::find(&said, b"somebody").is_some(), "{}", said.escape_ascii());
    }
}

/// CVE-2021-23222: what somebody between has put behind the answer is never taken for the server's.
#[tokio::test]
async fn bytes_in_plain_text_behind_the_yes_are_an_error() {
    for mode in ["prefer", "require"] {
        let (port, told) = server([&b"S"[..], &error()].concat());
        let both = connect(port, mode).await;
        for error in [both.store.map(drop), both.source.map(drop)] {
            let error = error.unwrap_err();
            assert!(error.contains("speaks no TLS"), "{error}");
            assert!(!error.contains("pay here"), "{error}");
        }
        for _ in 0..2 {
            let said = told.recv_timeout(LONG).unwrap();
            // A ClientHello, and no more of us.
            assert_eq!(said[8..10], [0x16, 0x03], "{}", said.escape_ascii());
            assert!(memchr::memmem::find(&said, b"somebody").is_none());
        }
    }
}

/// CVE-2024-10977: nobody knows who says that.
#[tokio::test]
async fn an_error_in_answer_is_not_shown_and_not_followed_by_plain_text() {
    for mode in ["prefer", "require"] {
        let (port, told) = server(error());
        let both = connect(port, mode).await;
        for error in [both.store.map(drop), both.source.map(drop)] {
            let error = error.unwrap_err();
            assert!(error.contains("answers the request for TLS with an error"), "{error}");
            assert!(!error.contains("pay here"), "{error}");
        }
        for _ in 0..2 {
            assert_eq!(told.recv_timeout(LONG).unwrap(), REQUEST, "{mode}");
        }
    }
}

#[tokio::test]
async fn something_else_in_answer_is_no_postgresql() {
    let (port, told) = server(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec());
    connect(port, "prefer").await.refused(&["is no PostgreSQL; does postgres.url name the right"]);
    assert_eq!(told.recv_timeout(LONG).unwrap(), REQUEST);
}
