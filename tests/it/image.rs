//! What `deploy/Dockerfile` copies is enough for Cargo. Its steps are replayed in a folder, with
//! `cargo metadata` in the place of `cargo build`: that reads every manifest of the workspace and
//! looks for the targets that they name.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const BUILD: &str = "cargo build --release --locked --package walpost --bin walpost";
/// For this platform only: what others need may not have been downloaded.
const METADATA: &str = "cargo metadata --locked --offline --format-version 1 \
    --filter-platform \"$(rustc -vV | sed -n 's/^host: //p')\" > metadata.json";

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The instructions of the stage that builds, each as one line.
fn steps() -> Vec<String> {
    let file = fs::read_to_string(project().join("deploy/Dockerfile")).unwrap();
    let lines: Vec<&str> = file.lines().filter(|line| !line.starts_with('#')).collect();
    let joined = lines.join("\n").replace("\\\n", " ");
    let stage = joined.split("\nFROM scratch").next().unwrap();
    stage.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// The paths that the ignore file lets through. It shuts everything out and names exceptions; of
/// its language that is all that is understood here.
fn let_through() -> Vec<PathBuf> {
    let file = fs::read_to_string(project().join("deploy/Dockerfile.dockerignore")).unwrap();
    let mut lines = file.lines();
    assert_eq!(lines.next(), Some("*"));
    lines.map(|line| line.strip_prefix('!').expect("an exception").into()).collect()
}

/// Copies a file, or what is in a folder, as far as the ignore file lets it through.
fn copy(from: &Path, to: &Path, context: &[PathBuf]) {
    let here = project().join(from);
    if here.is_dir() {
        for entry in fs::read_dir(here).unwrap() {
            let name = entry.unwrap().file_name();
            copy(&from.join(&name), &to.join(&name), context);
        }
    } else if context.iter().any(|path| from.starts_with(path)) {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(here, to).unwrap();
    }
}

/// `COPY SOURCE… TARGET`: an error where nothing of a source is in the context, as Docker's.
fn replay_copy(words: &str, root: &Path, context: &[PathBuf]) {
    let mut sources: Vec<&str> = words.split_whitespace().collect();
    let target = sources.pop().unwrap();
    for source in sources.into_iter().map(Path::new) {
        let known = context.iter().any(|path| source.starts_with(path) || path.starts_with(source));
        assert!(known, "COPY {words}: {} is shut out by the ignore file", source.display());
        let to = root.join(target);
        let into = target.ends_with('/') && !project().join(source).is_dir();
        copy(source, &if into { to.join(source.file_name().unwrap()) } else { to }, context);
    }
}

#[test]
fn cargo_finds_all_that_it_asks_for_in_the_image() {
    let root = tempfile::tempdir().unwrap();
    let context = let_through();
    let mut builds = 0;
    for step in steps() {
        if let Some(words) = step.strip_prefix("COPY ") {
            replay_copy(words, root.path(), &context);
        } else if let Some(script) = step.strip_prefix("RUN ").filter(|step| step.contains(BUILD)) {
            let mut shell = Command::new("sh");
            shell.args(["-ec", &script.replace(BUILD, METADATA)]).current_dir(root.path());
            let said = shell.output().unwrap();
            let errors = String::from_utf8_lossy(&said.stderr);
            assert!(said.status.success(), "{script}:\n{errors}");
            builds += 1;
        }
    }
    assert_eq!(builds, 2, "the dependencies, then walpost");
    let metadata = fs::read_to_string(root.path().join("metadata.json")).unwrap();
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    assert_eq!(metadata["workspace_members"].as_array().unwrap().len(), 3);
}
