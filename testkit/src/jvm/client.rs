//! A JMS client: what a consumer in Java gets.

use std::path::PathBuf;

use super::{SMALL, class_path, java, source};
use crate::sandbox::Folder;

/// A message as JMS hands it over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JmsMessage {
    /// A `TextMessage`.
    Text(String),
    /// A `BytesMessage`.
    Bytes(Vec<u8>),
}

/// Reads `count` messages off `queue` with the broker's own JMS client.
pub(super) fn read(
    folder: &Folder,
    jars: &[PathBuf],
    factory: &str,
    url: &str,
    queue: &str,
    count: usize,
) -> Vec<JmsMessage> {
    let read = java(folder, SMALL)
        .args(["-cp", &class_path(jars)])
        .arg(source("java/Read.java"))
        .args([factory, url, queue, &count.to_string()])
        .output()
        .expect("java can be run: `make install`");
    let said = String::from_utf8_lossy(&read.stderr);
    assert!(read.status.success(), "Read.java: {said}");
    String::from_utf8_lossy(&read.stdout).lines().map(parse).collect()
}

/// A line of `Read.java`: the kind and the body in hexadecimal.
fn parse(line: &str) -> JmsMessage {
    let (kind, digits) = line.split_once(' ').unwrap_or((line, ""));
    let body: Vec<u8> = (0..digits.len() / 2)
        .map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).expect("hexadecimal"))
        .collect();
    match kind {
        "text" => JmsMessage::Text(String::from_utf8(body).expect("UTF-8")),
        "bytes" => JmsMessage::Bytes(body),
        other => panic!("a JMS message of class {other}"),
    }
}
