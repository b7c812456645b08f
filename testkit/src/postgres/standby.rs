//! Physical standbys: made without `pg_basebackup`, held back, promoted.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::Postgres;
use super::cluster::launch_on_free_port;
use crate::sandbox::{Folder, Owner, send};

/// The standby's name and that of its slot on the primary.
const NAME: &str = "standby";
/// The first version that keeps logical slots on standbys.
const SYNCHRONIZES_SLOTS: u32 = 17;

impl Postgres {
    /// The major version.
    #[must_use]
    pub fn major(&self) -> u32 {
        major(&self.folder.path().join("data"))
    }

    /// A standby of this server, streaming from it, with slots synchronised where the version can. The server is stopped and
    /// started for the copy.
    #[must_use]
    pub fn standby(&self) -> Postgres {
        let slot = format!("SELECT pg_create_physical_replication_slot('{NAME}', true)");
        self.sql("postgres", &slot);
        self.stop_fast();
        let folder = Folder::new("pg", Owner::when_root("postgres"));
        let data = folder.path().join("data");
        copy(&self.folder.path().join("data"), &data);
        self.restart();
        let slots = fs::read_dir(data.join("pg_replslot")).expect("initdb made it");
        for slot in slots.flatten() {
            fs::remove_dir_all(slot.path()).expect("own folder is writable");
        }
        let signal = data.join("standby.signal");
        let made = folder.command("touch").arg(signal).status().expect("touch");
        assert!(made.success(), "standby.signal cannot be made");
        let (cluster, postmaster) = launch_on_free_port(&folder, self.bindir(), |port| {
            self.write_standby_settings(&folder, &data, port);
        });
        Postgres { cluster, folder, postmaster: Some(postmaster).into() }
    }

    fn write_standby_settings(&self, folder: &Folder, data: &Path, port: u16) {
        // After the primary's own, which the copy brought: a later line wins.
        let mut text = format!(
            "port = {port}\n\
             unix_socket_directories = '{}'\n\
             primary_conninfo = 'host=127.0.0.1 port={} user=postgres dbname=postgres application_name={NAME}'\n\
             primary_slot_name = '{NAME}'\n\
             hot_standby_feedback = on\n\
             wal_receiver_status_interval = 1s\n\
             wal_retrieve_retry_interval = 100ms\n",
            folder.path().display(),
            self.port(),
        );
        if major(data) >= SYNCHRONIZES_SLOTS {
            text += "sync_replication_slots = on\n";
        }
        let file = OpenOptions::new().append(true).open(data.join("testkit.conf"));
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
        written.expect("own folder is writable");
    }

    /// From now on the standby gets nothing more: the walsender that serves it is stopped. (Were the standby's receiver
    /// stopped, it would still find in its socket what was sent meanwhile.)
    pub fn hold_back_standby(&self) {
        let sql = format!("SELECT pid FROM pg_stat_replication WHERE application_name = '{NAME}'");
        let pid = self.sql("postgres", &sql);
        send(pid.parse().expect("the standby streams"), Signal::STOP);
    }

    /// Makes the standby a primary, and waits until it is one.
    pub fn promote(&self) {
        assert_eq!(self.sql("postgres", "SELECT pg_promote(true, 60)"), "t", "{}", self.log());
    }
}

fn major(data: &Path) -> u32 {
    let version = fs::read_to_string(data.join("PG_VERSION")).expect("initdb made it");
    version.trim().parse().expect("a number")
}

/// Copies the files of a stopped cluster.
pub(super) fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp")
        .args(["--archive", "--reflink=auto"])
        .arg(from)
        .arg(to)
        .stdin(Stdio::null())
        .status()
        .expect("cp");
    assert!(status.success(), "{} cannot be copied to {}", from.display(), to.display());
}
