//! Private PostgreSQL servers.

mod cluster;
mod database;
mod standby;

use std::process::Child;
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use rustix::process::Signal;

pub use cluster::Builder;
pub use database::Database;

use crate::sandbox::{Folder, send};
use crate::wait::until_some;

const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
const LOG: &str = "server.log";

/// A PostgreSQL server of this process: `wal_level=logical`, user `postgres` without a password (`trust`), an own port
/// on 127.0.0.1. Ended on drop.
#[derive(Debug)]
pub struct Postgres {
    cluster: cluster::Cluster,
    folder: Folder,
    postmaster: Mutex<Option<Child>>,
}

impl Postgres {
    /// Starts a server with the defaults of [`Builder`].
    #[must_use]
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// A server with other settings.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// One server for the whole process, for tests that do not stop it: take a [`Postgres::fresh_database`] each.
    /// It does not sync to disk.
    #[must_use]
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(|| {
            Self::builder()
                .fast()
                .setting("max_wal_senders", "100")
                .setting("max_replication_slots", "100")
                .start()
        })
    }

    /// The TCP port; it stays the same over restarts.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.cluster.port
    }

    /// A connection URL for `database`.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/{database}", self.port())
    }

    /// The server's folder; the data are in `data` below it, the Unix socket in it.
    #[must_use]
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The folder of the server's programs (`postgres`, `pg_recvlogical`, …).
    #[must_use]
    pub fn bindir(&self) -> &std::path::Path {
        &self.cluster.bindir
    }

    /// The program `psql`: the server's own, else the one on the path, where the server comes without clients.
    #[must_use]
    pub fn psql(&self) -> std::path::PathBuf {
        let own = self.bindir().join("psql");
        if own.exists() { own } else { "psql".into() }
    }

    /// The last lines of the server's log.
    #[must_use]
    pub fn log(&self) -> String {
        self.folder.tail(LOG)
    }

    /// SIGKILL to the postmaster and all its processes, as a power cut would.
    pub fn kill(&self) {
        let mut postmaster = self.lock();
        if let Some(child) = postmaster.as_mut() {
            let _ = child.kill();
        }
        self.folder.kill_all();
        reap(&mut postmaster);
    }

    /// `pg_ctl stop -m immediate`: no checkpoint, recovery at the next start.
    pub fn stop_immediate(&self) {
        self.stop(Signal::QUIT);
    }

    /// `pg_ctl stop -m fast`: with a checkpoint. Waits for walsenders, as PostgreSQL does.
    pub fn stop_fast(&self) {
        self.stop(Signal::INT);
    }

    /// Starts the stopped or killed server again on the same data and port.
    pub fn restart(&self) {
        let mut postmaster = self.lock();
        assert!(postmaster.is_none(), "the PostgreSQL server still runs");
        let child = self.cluster.launch(&self.folder);
        *postmaster = Some(child);
        if let Err(why) = self.cluster.await_ready(&self.folder, postmaster.as_mut()) {
            panic!("PostgreSQL did not come back: {why}");
        }
    }

    /// Makes the server read its configuration files again.
    pub fn reload(&self) {
        if let Some(child) = self.lock().as_ref() {
            send(pid_of(child), Signal::HUP);
        }
    }

    /// SIGSTOP to every process of the server: connections stay open, nothing answers.
    pub fn freeze(&self) {
        self.folder.signal(Signal::STOP);
    }

    /// SIGCONT to every process of the server.
    pub fn thaw(&self) {
        self.folder.signal(Signal::CONT);
    }

    /// SIGSTOP to the walsenders only.
    pub fn freeze_walsenders(&self) {
        self.signal_walsenders(Signal::STOP);
    }

    /// SIGCONT to the walsenders.
    pub fn thaw_walsenders(&self) {
        self.signal_walsenders(Signal::CONT);
    }

    /// SIGTERM to the walsenders: their connections end, the server lives on.
    pub fn end_walsenders(&self) {
        self.signal_walsenders(Signal::TERM);
    }

    fn signal_walsenders(&self, signal: Signal) {
        for pid in self.folder.processes() {
            let title = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if memchr::memmem::find(&title, b"walsender").is_some() {
                send(pid, signal);
            }
        }
    }

    fn stop(&self, signal: Signal) {
        let mut postmaster = self.lock();
        let Some(child) = postmaster.as_mut() else {
            return;
        };
        send(pid_of(child), signal);
        until_some(STOP_TIMEOUT, "PostgreSQL stops", || child.try_wait().ok().flatten());
        *postmaster = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        self.postmaster.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let mut postmaster = self.lock();
        if let Some(child) = postmaster.as_mut() {
            let _ = child.kill();
        }
        self.folder.signal(Signal::KILL);
        reap(&mut postmaster);
    }
}

fn pid_of(child: &Child) -> i32 {
    i32::try_from(child.id()).expect("a pid is positive")
}

fn reap(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        let _ = child.wait();
    }
}
