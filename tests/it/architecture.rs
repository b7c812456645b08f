//! The picture in `docs/design.md` held against the code: who may use whom, what is pure, how long a file may be.

mod paths;

use std::fs;
use std::path::{Path, PathBuf};

/// A module uses lower ranks and its own children.
const RANKS: &[(u8, &[&str])] = &[
    (0, &["lsn", "pgtime", "secret", "template"]),
    (1, &["pgwire", "pgoutput", "stomp"]),
    (2, &["outbox", "engine"]),
    (3, &["config", "telemetry"]),
    (4, &["net"]),
    (5, &["source", "broker", "store"]),
    (6, &["relay", "consumer", "ops"]),
    (7, &["http"]),
    (8, &["cli", "main", "lib"]),
];
/// Up to this rank there is no runtime, no socket, no clock.
const PURE: u8 = 2;
const IMPURE: &[&[&str]] = &[
    &["tokio"],
    &["socket2"],
    &["std", "net"],
    &["std", "fs"],
    &["std", "env"],
    &["std", "thread"],
    &["std", "process"],
    &["std", "time", "Instant"],
    &["std", "time", "SystemTime"],
    &["Instant", "now"],
    &["SystemTime", "now"],
    &["Timestamp", "now"],
    &["Zoned", "now"],
];
const LONGEST_FILE: usize = 400;

#[test]
fn modules_use_lower_ranks_only() {
    let complaints: Vec<String> =
        sources().iter().flat_map(|file| check(&file.path, &file.text)).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn files_are_short() {
    let everything = ["src", "bench", "testkit", "tests"];
    let files: Vec<Source> = everything.into_iter().flat_map(|folder| files(folder, &[])).collect();
    let long: Vec<String> = files
        .iter()
        .map(|file| (file.text.lines().count(), &file.path))
        .filter(|(lines, _)| *lines > LONGEST_FILE)
        .map(|(lines, path)| format!("{}: {lines} lines, more than {LONGEST_FILE}", path.display()))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

struct Source {
    /// Relative to the folder that was asked for.
    path: PathBuf,
    text: String,
}

/// All files below `src` that are no tests.
fn sources() -> Vec<Source> {
    files("src", &["tests", "tests.rs"])
}

/// All files of Rust below a folder of the project, without those of these names and what is below
/// them.
fn files(folder: &str, without: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().is_some_and(|name| without.iter().any(|other| name == *other)) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push(Source { path: path.strip_prefix(&root).unwrap().to_owned(), text });
            }
        }
    }
    assert!(found.len() > 10, "the sources of {folder} are not where they should be");
    found
}

/// What is wrong with the file `path` (relative to `src`) with the contents `text`.
fn check(path: &Path, text: &str) -> Vec<String> {
    let parts: Vec<&str> =
        path.iter().map(|part| part.to_str().unwrap().trim_end_matches(".rs")).collect();
    let module = parts[0];
    let Some(rank) = rank_of(module) else {
        return vec![format!("{}: the module {module} has no rank", path.display())];
    };
    // How many modules this file lies below the crate's root.
    let depth = match *parts {
        ["lib" | "main"] => 0,
        [.., "mod"] => parts.len() - 1,
        _ => parts.len(),
    };
    let mut complaints = Vec::new();
    for used in paths::of(text) {
        let here = format!("{}:{}: {}", path.display(), used.line, used.segments.join("::"));
        if let Some(name) = root_name(&used.segments, depth) {
            match rank_of(name) {
                _ if name == module || matches!(module, "lib" | "main") => {}
                None => complaints.push(format!("{here} is not named by its module")),
                Some(other) if other < rank => {}
                Some(other) => {
                    complaints.push(format!("{here}: {module} (rank {rank}) uses rank {other}"));
                }
            }
        }
        let impure = |start: &&&[&str]| has(&used.segments, start);
        if let Some(what) = IMPURE.iter().find(impure).filter(|_| rank <= PURE) {
            complaints.push(format!("{here}: rank {rank} is pure, no {}", what.join("::")));
        }
    }
    complaints
}

fn rank_of(module: &str) -> Option<u8> {
    RANKS.iter().find(|(_, modules)| modules.contains(&module)).map(|(rank, _)| *rank)
}

/// The name just below the crate's root that a path goes through.
fn root_name<'a>(segments: &[&'a str], depth: usize) -> Option<&'a str> {
    match segments {
        ["crate" | "walpost", name, ..] => Some(name),
        _ => {
            let first = usize::from(segments.first() == Some(&"self"));
            let supers = segments[first..].iter().take_while(|name| **name == "super").count();
            (supers > 0 && supers >= depth).then(|| segments.get(first + supers).copied()).flatten()
        }
    }
}

/// Whether the path begins with `start`, or ends with it (`Instant::now` of an imported `Instant`).
fn has(segments: &[&str], start: &[&str]) -> bool {
    segments.starts_with(start) || (start.len() > 1 && segments.ends_with(start))
}

#[test]
fn what_breaks_the_picture_is_found() {
    let bad = [
        ("lsn.rs", "use crate::pgoutput::Message;"),
        ("engine/mod.rs", "use crate::{lsn::Lsn, config::{Config as C}};"),
        ("engine/mod.rs", "use crate::{lsn::Lsn, config::{*}};"),
        ("engine/mod.rs", "use crate::config::*;"),
        ("engine/window.rs", "fn f(x: crate::outbox::Message) {}"),
        ("engine/window.rs", "use super::super::broker;"),
        ("engine.rs", "use super::broker::Lane;"),
        ("source/slot.rs", "use walpost::store::Store;"),
        ("http/mod.rs", "use crate::Lsn;"),
        ("strange.rs", ""),
        ("stomp/session.rs", "use tokio::time::sleep;"),
        ("pgwire/frame.rs", "use std::{io, net::TcpStream};"),
        ("outbox/row.rs", "let x = std::time::Instant::now();"),
        ("outbox/row.rs", "let x = jiff::Timestamp::now();"),
        ("template.rs", "fn f() { Instant::now() }"),
    ];
    for (path, text) in bad {
        let found = check(Path::new(path), text);
        assert_eq!(found.len(), 1, "{path}: {text}: {found:?}");
    }
}

#[test]
fn what_keeps_to_the_picture_is_not_blamed() {
    let good = [
        ("lsn.rs", "use std::{fmt, str::FromStr}; // crate::engine\n/* crate::config */"),
        (
            "engine/window.rs",
            "use super::ledger::Ledger; use crate::engine::Engine; use crate::lsn::Lsn;",
        ),
        ("engine/parts/a.rs", "use super::super::window::Window;"),
        (
            "engine/mod.rs",
            "const S: &str = \"crate::config\"; const R: &str = r#\"use crate::\"cli::x\"#;",
        ),
        (
            "engine/mod.rs",
            "#[cfg(test)]\nmod tests { use crate::config::Config; fn f() { let _ = '{'; } }",
        ),
        ("stomp/mod.rs", "#[cfg(test)] use tokio::spawn;\nuse std::time::Duration;"),
        ("cli/mod.rs", "use crate::{http, relay::Relay}; fn f<'a>(x: &'a str) { tokio::spawn(x) }"),
        ("main.rs", "fn main() { walpost::cli::run() }"),
        ("lib.rs", "pub use crate::lsn::Lsn;"),
    ];
    for (path, text) in good {
        assert_eq!(check(Path::new(path), text), Vec::<String>::new(), "{path}: {text}");
    }
}
