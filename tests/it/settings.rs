//! Where the configuration comes from, and that what is shown is taken again.

use std::fs;

use walpost_testkit::walpost::Finished;

use crate::rig::{LONG, walpost};

fn show(yaml: &str) -> String {
    let shown = walpost().configuration(yaml).arguments(["config", "show"]).output(LONG);
    assert!(shown.status.success(), "{}", shown.stderr);
    shown.stdout
}

fn check(yaml: &str) -> Finished {
    walpost().configuration(yaml).arguments(["config", "check"]).output(LONG)
}

#[test]
fn what_config_show_prints_passes_config_check() {
    let custom = "outbox: {layout: custom, tables: [a.b], columns: {id: id, destination: d}}";
    for yaml in ["", "outbox: {layout: django}", custom] {
        let checked = check(&show(yaml));
        assert!(checked.status.success(), "{yaml}: {}", checked.stderr);
    }
}

#[test]
fn a_file_may_begin_with_a_byte_order_mark() {
    let shown = show("\u{feff}broker:\n  vhost: marked\n");
    assert!(shown.contains("vhost: marked"), "{shown}");
}

#[test]
fn an_empty_walpost_config_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("own.yaml");
    fs::write(&file, "broker: {vhost: own}").unwrap();
    for (variable, vhost) in [("", "vhost: default"), (file.to_str().unwrap(), "vhost: own")] {
        let shown = walpost()
            .configuration("broker: {vhost: default}")
            .env("WALPOST_CONFIG", variable)
            .arguments(["config", "show"])
            .output(LONG);
        assert!(shown.stdout.contains(vhost), "{variable:?}: {}{}", shown.stdout, shown.stderr);
    }
    let empty = walpost().arguments(["config", "show", "--config", ""]).output(LONG);
    assert_eq!(empty.status.code(), Some(2), "{}", empty.stdout);
}
