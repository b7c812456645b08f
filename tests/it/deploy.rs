//! What `deploy/` holds is taken by the tools that it is for.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use walpost_testkit::{Consumer, Walpost};

use crate::rig::{LONG, Rig, walpost};

const BINARY: &str = env!("CARGO_BIN_EXE_walpost");

fn deploy(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)).unwrap()
}

/// The settings of `walpost config show`, without where each came from.
fn shown(yaml: &str) -> Vec<String> {
    let shown = walpost()
        .configuration(yaml)
        .arguments(["config", "show", "--config", "walpost.yaml"])
        .set("http.listen", "127.0.0.1:9464")
        .output(LONG);
    assert!(shown.status.success(), "{shown:?}");
    let lines = shown.stdout.lines().filter(|line| !line.starts_with("# note"));
    lines
        .map(|line| line.rsplit_once(" # ").map_or(line, |(key, _)| key).trim_end().to_owned())
        .collect()
}

#[test]
fn the_sample_is_valid_and_its_comments_are_the_defaults() {
    let sample = deploy("walpost.yaml");
    let bare = shown(&sample);
    // These two are examples: they have no default.
    let examples = ["password_file:", "columns:"];
    let uncommented: Vec<String> = sample
        .lines()
        .map(|line| {
            let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
            let is_key = |rest: &&str| {
                rest.split_once(':').is_some_and(|(key, _)| {
                    !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c == '_')
                })
            };
            match rest.strip_prefix('#').filter(is_key) {
                Some(key) if !examples.iter().any(|example| key.starts_with(example)) => {
                    format!("{indent}{key}")
                }
                _ => line.to_owned(),
            }
        })
        .collect();
    let uncommented = uncommented.join("\n");
    assert!(uncommented.matches('#').count() + 20 < sample.matches('#').count(), "{uncommented}");
    assert_eq!(shown(&uncommented), bare);
}

#[test]
fn systemd_takes_the_unit() {
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("walpost.service");
    // It looks for the program, too.
    fs::write(&unit, deploy("walpost.service").replace("/usr/local/bin/walpost", BINARY)).unwrap();
    let verified = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&unit)
        .output()
        .expect("systemd-analyze: run `make install`");
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && said.is_empty(), "{said}");
}

/// As in the image: nothing but the program in the root, and a user that nobody knows.
#[test]
fn it_runs_in_an_empty_root_as_nobody() {
    let rig = Rig::new();
    let root = tempfile::tempdir().unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy(BINARY, root.path().join("walpost")).unwrap();
    // The image's is static; this one needs its libraries.
    let libraries = Command::new("ldd").arg(BINARY).output().unwrap();
    let libraries = String::from_utf8(libraries.stdout).unwrap();
    for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        let copy = root.path().join(library.trim_start_matches('/'));
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(library, copy).unwrap();
    }
    let mut command = vec!["chroot".to_owned()];
    let as_root = fs::read_to_string("/proc/self/status").unwrap().contains("\nUid:\t0\t");
    if as_root {
        command.push("--userspec=65532:65532".to_owned());
    } else {
        // A namespace in which the user may do what only root may: still the user's own rights.
        command.splice(0..0, ["unshare", "--map-root-user"].map(str::to_owned));
    }
    command.extend([root.path().display().to_string(), "/walpost".to_owned(), "run".to_owned()]);

    rig.vhost.declare_queue("orders.v1");
    let mut builder = Walpost::builder(&command[0]).arguments(&command[1..]);
    for (key, value) in [
        ("postgres.url", rig.database.url()),
        ("replication.slot", rig.database.name().to_owned()),
        ("broker.hosts", rig.vhost.broker().stomp_address()),
        ("broker.vhost", rig.vhost.name().to_owned()),
    ] {
        builder = builder.set(key, value);
    }
    let mut walpost = builder.start();
    walpost.await_ready(LONG);
    if as_root {
        let status = fs::read_to_string(format!("/proc/{}/status", walpost.pid())).unwrap();
        assert!(status.contains("\nUid:\t65532\t65532\t65532\t65532\n"), "{status}");
    }
    rig.database.sql("SELECT walpost.publish('/queue/orders', '{}')");
    let _ = Consumer::of_queue(&rig.vhost, "orders.v1").wait_for(1, LONG);
    assert!(walpost.terminate(LONG).success(), "{}", walpost.log());
}
