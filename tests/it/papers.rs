//! The papers say what is there: dependencies, settings, metrics, links, headings.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::rig::{LONG, walpost};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file below a folder of the project whose name ends so.
fn files(folder: &str, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(end) {
                found.push(path);
            }
        }
    }
    found
}

/// What stands in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The names of a manifest's dependencies, but those of the project itself.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let (text, mut names, mut within) = (read(manifest), BTreeSet::new(), false);
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix('[') {
            within = heading.trim_end_matches(']').ends_with("dependencies");
        } else if within
            && let Some((name, rest)) = line.split_once(" = ")
            && !rest.contains("path = ")
        {
            names.insert(name.to_owned());
        }
    }
    names
}

#[test]
fn each_dependency_has_its_line_and_each_line_its_dependency() {
    let mut wanted = dependencies("Cargo.toml");
    wanted.extend(dependencies("testkit/Cargo.toml"));
    assert!(wanted.contains("tokio") && wanted.contains("rustix"), "{wanted:?}");
    let paper = read("docs/dependencies.md");
    let rows = paper.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let described: BTreeSet<String> = rows
        .flat_map(|cell| quoted(&format!("`{cell}")).map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert_eq!(described, wanted);
}

#[test]
fn links_between_the_papers_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut papers: Vec<PathBuf> = [("docs", ".md"), ("sql", ".md"), ("tests", ".md")]
        .into_iter()
        .flat_map(|(folder, end)| files(folder, end))
        .collect();
    papers.extend(["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| root.join(name)));
    let mut links = 0;
    for paper in papers {
        let text = fs::read_to_string(&paper).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("http") {
                continue;
            }
            links += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target =
                if path.is_empty() { paper.clone() } else { paper.parent().unwrap().join(path) };
            assert!(target.exists(), "{}: {link}", paper.display());
            if !anchor.is_empty() {
                let text = fs::read_to_string(&target).unwrap();
                assert!(headings(&text).any(|h| slug(h) == anchor), "{}: {link}", paper.display());
            }
        }
    }
    assert!(links > 10, "{links}");
}

fn headings(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches('#').trim())
}

/// A heading's anchor as GitHub makes it.
fn slug(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

/// Error texts send an operator to a heading: it is there.
#[test]
fn headings_that_errors_name_are_there() {
    let operations = read("docs/operations.md");
    let mut named = 0;
    for file in files("src", ".rs") {
        let text = fs::read_to_string(&file).unwrap();
        for rest in text.split("docs/operations.md, '").skip(1) {
            let heading = rest.split('\'').next().unwrap();
            assert!(headings(&operations).any(|h| h == heading), "{}: {heading}", file.display());
            named += 1;
        }
    }
    assert!(named > 2, "{named}");
}

#[test]
fn every_metric_is_described() {
    let operations = read("docs/operations.md");
    let described: BTreeSet<&str> =
        quoted(&operations).map(|name| name.split('{').next().unwrap()).collect();
    let source = read("src/telemetry/metrics.rs");
    let names: BTreeSet<&str> = source
        .split('"')
        .filter(|text| text.starts_with("walpost_") && !text.contains(' '))
        .collect();
    assert!(names.len() > 15, "{names:?}");
    let missing: Vec<_> = names.iter().filter(|name| !described.contains(*name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_setting_is_described() {
    let shown = walpost().arguments(["config", "show"]).output(LONG);
    let paper = read("docs/configuration.md");
    let (now, later) = paper.split_once("## Settings of later versions").unwrap();
    let now: BTreeSet<&str> = quoted(now).collect();
    let later: Vec<&str> =
        quoted(later).map(|key| key.split(':').next().unwrap().trim_end_matches(".*")).collect();
    let (mut path, mut leaves) = (Vec::<String>::new(), 0);
    for line in shown.stdout.lines().filter(|line| !line.starts_with('#')) {
        let depth = (line.len() - line.trim_start().len()) / 2;
        let (key, value) = line.trim().split_once(':').unwrap();
        path.truncate(depth);
        path.push(key.to_owned());
        if !value.contains('#') {
            continue;
        }
        leaves += 1;
        let (full, within) = (path.join("."), path[1..].join("."));
        let is_later = later.iter().any(|key| {
            full.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        let known = now.contains(full.as_str()) || now.contains(within.as_str()) || is_later;
        assert!(known, "{full} is not in docs/configuration.md");
    }
    assert!(leaves > 50, "{leaves}");
}
