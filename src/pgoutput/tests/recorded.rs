//! Streams recorded from real servers by `scripts/record-pgoutput.sh`.

use std::path::PathBuf;

use super::encode::encode;
use super::render::Renderer;
use crate::lsn::Lsn;
use crate::pgoutput::*;

const VERSIONS: [u32; 5] = [14, 15, 16, 17, 18];

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pgoutput").join(name)
}

/// The changes of a recording: LSN (8 bytes), length (4), pgoutput message.
fn recording(version: u32) -> Vec<(Lsn, Vec<u8>)> {
    let bytes = std::fs::read(fixture(&format!("pg{version}.bin"))).unwrap();
    let mut changes = Vec::new();
    let mut rest = bytes.as_slice();
    while let Some((lsn, tail)) = rest.split_first_chunk::<8>() {
        let (len, tail) = tail.split_first_chunk::<4>().unwrap();
        let (message, tail) = tail.split_at(u32::from_be_bytes(*len) as usize);
        changes.push((Lsn(u64::from_be_bytes(*lsn)), message.to_vec()));
        rest = tail;
    }
    assert!(rest.is_empty());
    assert!(changes.len() > 100, "PostgreSQL {version}: {} changes", changes.len());
    changes
}

fn rendering(version: u32, stable: bool) -> Vec<String> {
    let mut renderer = Renderer::new(stable);
    let mut lines = Vec::new();
    for (lsn, bytes) in recording(version) {
        let message = decode(&bytes).unwrap_or_else(|error| panic!("{version} {lsn}: {error}"));
        lines.push(renderer.line(lsn, &message));
    }
    lines
}

/// A rendering without transactions in which nothing happens: 14 sends those, 15 and later do not.
fn without_empty_transactions(lines: Vec<String>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for line in lines {
        if line.contains(" commit ") && kept.last().is_some_and(|last| last.contains(" begin ")) {
            kept.pop();
        } else {
            kept.push(line);
        }
    }
    kept
}

#[test]
fn each_recording_reads_as_its_text_says() {
    for version in VERSIONS {
        let text = rendering(version, false).join("\n") + "\n";
        let path = fixture(&format!("pg{version}.txt"));
        if std::env::var_os("RECORD").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap();
        for (number, (expected, found)) in expected.lines().zip(text.lines()).enumerate() {
            assert_eq!(expected, found, "{}:{}", path.display(), number + 1);
        }
        assert_eq!(expected, text);
    }
}

#[test]
fn the_versions_differ_in_empty_transactions_only() {
    let newest = rendering(18, true);
    assert_eq!(newest, without_empty_transactions(newest.clone()));
    for version in [15, 16, 17] {
        assert_eq!(rendering(version, true), newest, "PostgreSQL {version}");
    }
    let oldest = rendering(14, true);
    assert_ne!(oldest, newest);
    assert_eq!(without_empty_transactions(oldest), newest);
}

#[test]
fn each_recorded_message_is_encoded_again_to_the_same_bytes() {
    for version in VERSIONS {
        for (lsn, bytes) in recording(version) {
            assert_eq!(encode(&decode(&bytes).unwrap()), bytes, "{version} {lsn}");
        }
    }
}

#[test]
fn each_strict_prefix_of_a_recorded_message_is_an_error() {
    for version in VERSIONS {
        for (lsn, bytes) in recording(version) {
            for end in 0..bytes.len() {
                let found = decode(&bytes[..end]);
                assert!(found.is_err(), "{version} {lsn}: {end} bytes are {found:?}");
            }
        }
    }
}

#[test]
fn the_recordings_hold_every_message_and_every_kind_of_value() {
    for version in VERSIONS {
        let mut tags: Vec<u8> = recording(version).iter().map(|(_, bytes)| bytes[0]).collect();
        tags.sort_unstable();
        tags.dedup();
        assert_eq!(tags, b"BCDIMORTUY", "PostgreSQL {version}");
        let text = rendering(version, true).join("\n");
        for part in
            ["NULL", "UNCHANGED", "binary", "Key (", "Full (", "options=2", "lsn=7/ABCDEF01"]
        {
            assert!(text.contains(part), "PostgreSQL {version}: {part}");
        }
    }
}

/// What rule 1 of the design rests on: one LSN can have several changes, and they come in order.
#[test]
fn copy_gives_several_changes_one_lsn() {
    for version in VERSIONS {
        let changes = recording(version);
        let inserts = changes.iter().filter(|(_, bytes)| bytes[0] == b'I');
        let lsns: Vec<Lsn> = inserts.map(|(lsn, _)| *lsn).collect();
        let longest = lsns.chunk_by(|a, b| a == b).map(<[Lsn]>::len).max();
        assert_eq!(longest, Some(4), "PostgreSQL {version}");
    }
}

/// Why a message has to count among the changes at an LSN: it has that of its record's end.
#[test]
fn a_logical_message_can_have_the_lsn_of_the_row_after_it() {
    for version in VERSIONS {
        let changes = recording(version);
        let mut pairs = changes.iter().enumerate().filter(|(_, (_, bytes))| bytes[0] == b'M');
        assert!(
            pairs.any(|(at, (lsn, _))| changes[at..]
                .iter()
                .any(|(other, bytes)| other == lsn && bytes[0] == b'I')),
            "PostgreSQL {version}"
        );
    }
}
