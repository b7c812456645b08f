//! The programs beside walpost: built with this one, or PostgreSQL's own.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use walpost_testkit::Walpost;
use walpost_testkit::sandbox::Folder;
use walpost_testkit::walpost::Builder;

/// For whatever should end by itself.
pub const LONG: Duration = Duration::from_secs(300);

/// A program of this workspace, built beside this one.
#[must_use]
pub fn sibling(name: &str) -> PathBuf {
    let here = std::env::current_exe().expect("a process knows its program");
    let path = here.with_file_name(name);
    assert!(path.exists(), "{} is not built: run `make bench`", path.display());
    path
}

/// A walpost that reads `slot` at `url`.
#[must_use]
pub fn walpost(url: &str, slot: &str) -> Builder {
    Walpost::builder(sibling("walpost")).set("postgres.url", url).set("replication.slot", slot)
}

/// The broker that only answers receipts, as a process.
pub struct ReceiptBroker {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Where it listens.
    pub address: String,
    _folder: Folder,
}

impl ReceiptBroker {
    /// Starts one.
    #[must_use]
    pub fn start() -> Self {
        let folder = Folder::new("receipt-broker", None);
        let mut child = folder
            .command(sibling("receipt-broker"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("receipt-broker can be started");
        let ask = child.stdin.take().expect("piped above");
        let mut answers = BufReader::new(child.stdout.take().expect("piped above"));
        let address = line(&mut answers);
        ReceiptBroker { child, ask, answers, address, _folder: folder }
    }

    /// SENDs that it has answered so far.
    pub fn sends(&mut self) -> u64 {
        self.ask.write_all(b"\n").expect("receipt-broker lives");
        line(&mut self.answers).parse().expect("receipt-broker counts")
    }

    /// Waits until it has answered `count` SENDs of `walpost`.
    pub fn await_sends(&mut self, walpost: &mut Walpost, count: u64) {
        let started = Instant::now();
        while self.sends() < count {
            let lives = walpost.ended().is_none() && started.elapsed() < LONG;
            assert!(lives, "{} of {count} messages came: {}", self.sends(), walpost.log());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for ReceiptBroker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn line(reader: &mut impl BufRead) -> String {
    let mut text = String::new();
    reader.read_line(&mut text).expect("a program of ours prints text");
    text.trim().to_owned()
}
