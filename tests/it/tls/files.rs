//! Files of ours that can't be used: exit status 2 before anything is begun, with the file's name.

use walpost_testkit::walpost::Finished;

use super::Papers;
use crate::rig::{LONG, walpost};

#[track_caller]
fn refused(finished: &Finished, lines: &[&[&str]]) {
    assert_eq!(finished.status.code(), Some(2), "{}", finished.stderr);
    let said: Vec<_> = finished.stderr.lines().collect();
    assert_eq!(said.len(), lines.len(), "{}", finished.stderr);
    for (line, words) in said.iter().zip(lines) {
        for word in *words {
            assert!(line.starts_with("error: ") && line.contains(word), "{word}: {line}");
        }
    }
}

#[test]
fn whatever_uses_them_looks_at_them_first() {
    let papers = Papers::get();
    let locked = papers.authority.client("relay").encrypted_key("right");
    let locked = papers.file("looked-at.key", &locked);
    let with_wrong_files = |command: &[&str]| {
        walpost()
            .arguments(command.iter().copied())
            .set("postgres.tls.ca_file", "/nowhere/ca.pem")
            .set("broker.tls.enabled", true)
            .set("broker.tls.cert_file", papers.path("relay.crt"))
            .set("broker.tls.key_file", &locked)
            .set("broker.tls.key_password", "hunter2")
            .output(LONG)
    };
    let postgres: &[&str] = &["postgres.tls.ca_file: cannot read '/nowhere/ca.pem': No such file"];
    let broker: &[&str] = &["broker.tls.key_file: ", "looked-at.key' can't be decrypted"];
    for command in [&["run"][..], &["init"], &["init", "--dry-run"], &["config", "check"]] {
        let finished = with_wrong_files(command);
        refused(&finished, &[postgres, broker]);
        assert!(!finished.stderr.contains("hunter2"), "{}", finished.stderr);
    }
    // It shows what is set, right or wrong.
    let shown = with_wrong_files(&["config", "show"]);
    assert!(shown.status.success() && shown.stdout.contains("/nowhere/ca.pem"), "{}", shown.stdout);
    assert!(!shown.stdout.contains("hunter2"));
}

#[test]
fn a_file_that_nothing_needs_is_not_looked_at() {
    let finished = walpost()
        .arguments(["config", "check"])
        .set("postgres.tls.mode", "disable")
        .set("postgres.tls.ca_file", "/nowhere/ca.pem")
        .output(LONG);
    assert!(finished.status.success(), "{}", finished.stderr);
}
