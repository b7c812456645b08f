//! Making a cluster's files and starting a postmaster on them.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{LazyLock, Mutex};
use std::time::Instant;

use super::{LOG, Postgres, START_TIMEOUT};
use crate::authority::Identity;
use crate::ports;
use crate::sandbox::{Folder, Owner};

/// What a server is to be like.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    bindir: Option<PathBuf>,
    settings: Vec<(String, String)>,
    hba: Vec<String>,
    own_cluster: bool,
    tls: Option<(Identity, String)>,
}

impl Builder {
    /// The programs of another PostgreSQL version; the default is `WALPOST_PG_BINDIR`, else what Debian's newest has.
    #[must_use]
    pub fn bindir(mut self, bindir: impl Into<PathBuf>) -> Self {
        self.bindir = Some(bindir.into());
        self
    }

    /// A line of `postgresql.conf`; a later one wins.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// No syncing to disk. A killed server then may lose what it had committed only if the whole machine goes down.
    #[must_use]
    pub fn fast(self) -> Self {
        self.setting("fsync", "off").setting("full_page_writes", "off")
    }

    /// A line of `pg_hba.conf` that comes before the rest (which trusts everybody).
    #[must_use]
    pub fn hba(mut self, line: &str) -> Self {
        self.hba.push(line.to_owned());
        self
    }

    /// `ssl = on` with this certificate. Clients' certificates are those that `authority` (PEM) has issued.
    #[must_use]
    pub fn tls(mut self, identity: &Identity, authority: &str) -> Self {
        self.tls = Some((identity.clone(), authority.to_owned()));
        self.setting("ssl", "on").setting("ssl_ca_file", "root.crt")
    }

    /// A cluster with a system identifier of its own. Without this it is a copy of the process's template: quicker, but all
    /// copies look like the same cluster.
    #[must_use]
    pub fn own_cluster(mut self) -> Self {
        self.own_cluster = true;
        self
    }

    /// Makes the cluster and starts the server.
    #[must_use]
    pub fn start(self) -> Postgres {
        let bindir = self.bindir.clone().unwrap_or_else(default_bindir);
        let folder = Folder::new("pg", Owner::when_root("postgres"));
        let data = folder.path().join("data");
        if self.own_cluster {
            initdb(&folder, &bindir, &data);
        } else {
            copy_template(&bindir, &data);
        }
        self.write_hba(&data);
        if let Some((identity, authority)) = &self.tls {
            folder.write("data/server.crt", &identity.certificate);
            folder.write("data/server.key", &identity.key);
            folder.write("data/root.crt", authority);
        }
        let (cluster, postmaster) = launch_on_free_port(&folder, &bindir, |port| {
            self.write_settings(&folder, &data, port);
        });
        Postgres { cluster, folder, postmaster: Some(postmaster).into() }
    }

    fn write_settings(&self, folder: &Folder, data: &Path, port: u16) {
        let mut text = format!(
            "port = {port}\n\
             listen_addresses = '127.0.0.1'\n\
             unix_socket_directories = '{}'\n\
             wal_level = logical\n\
             max_wal_senders = 20\n\
             max_replication_slots = 20\n\
             max_connections = 200\n\
             shared_buffers = 64MB\n\
             autovacuum = off\n\
             timezone = 'UTC'\n\
             log_line_prefix = '%m [%p] '\n\
             logging_collector = off\n",
            folder.path().display()
        );
        for (name, value) in &self.settings {
            text += &format!("{name} = '{}'\n", value.replace('\'', "''"));
        }
        fs::write(data.join("testkit.conf"), text).expect("own folder is writable");
    }

    fn write_hba(&self, data: &Path) {
        let path = data.join("pg_hba.conf");
        let old = fs::read_to_string(&path).expect("initdb made it");
        // Written in place: the file stays its owner's.
        fs::write(&path, format!("{}\n{old}", self.hba.join("\n")))
            .expect("own folder is writable");
    }
}

/// Starts a server once `configure` has given it a port; again with another port if somebody was quicker.
pub(super) fn launch_on_free_port(
    folder: &Folder,
    bindir: &Path,
    configure: impl Fn(u16),
) -> (Cluster, Child) {
    let mut refused = String::new();
    for _ in 0..5 {
        let cluster = Cluster { bindir: bindir.to_owned(), port: ports::free() };
        configure(cluster.port);
        let mut postmaster = cluster.launch(folder);
        match cluster.await_ready(folder, Some(&mut postmaster)) {
            Ok(()) => return (cluster, postmaster),
            Err(why) if why.contains("in use") => refused = why,
            Err(why) => panic!("PostgreSQL did not start: {why}"),
        }
    }
    panic!("PostgreSQL found no free port: {refused}");
}

/// Where a server's programs are and where it listens.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) bindir: PathBuf,
    pub(super) port: u16,
}

impl Cluster {
    pub(super) fn launch(&self, folder: &Folder) -> Child {
        let mut command = folder.command(self.bindir.join("postgres"));
        command.arg("-D").arg(folder.path().join("data"));
        folder.spawn_logged(command, LOG)
    }

    /// Waits until the postmaster says in its pid file that it takes connections. `Err` holds the end of its log.
    pub(super) fn await_ready(
        &self,
        folder: &Folder,
        postmaster: Option<&mut Child>,
    ) -> Result<(), String> {
        let child = postmaster.ok_or("it was not started")?;
        let pid = child.id().to_string();
        let pid_file = folder.path().join("data/postmaster.pid");
        let started = Instant::now();
        while started.elapsed() < START_TIMEOUT {
            // A file left by a killed postmaster has another pid.
            let text = fs::read_to_string(&pid_file).unwrap_or_default();
            let mut lines = text.lines();
            if lines.next() == Some(&pid)
                && lines.nth(6).is_some_and(|status| status.trim() == "ready")
            {
                return Ok(());
            }
            if let Ok(Some(status)) = child.try_wait() {
                return Err(format!("{status}\n{}", folder.tail(LOG)));
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        Err(format!("not ready within {START_TIMEOUT:?}\n{}", folder.tail(LOG)))
    }
}

fn default_bindir() -> PathBuf {
    if let Some(bindir) = std::env::var_os("WALPOST_PG_BINDIR") {
        return bindir.into();
    }
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let bindir = entry.path().join("bin");
            let version = entry.file_name().to_str()?.parse().ok()?;
            bindir.join("postgres").exists().then_some((version, bindir))
        })
        .collect();
    versions.sort();
    versions.pop().map(|(_, bindir)| bindir).expect(
        "a PostgreSQL server in /usr/lib/postgresql or WALPOST_PG_BINDIR: run `make install`",
    )
}

fn initdb(folder: &Folder, bindir: &Path, data: &Path) {
    let output = folder
        .command(bindir.join("initdb"))
        .args([
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "--pgdata",
        ])
        .arg(data)
        .output()
        .expect("initdb can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "initdb failed: {said}");
    let mut conf =
        OpenOptions::new().append(true).open(data.join("postgresql.conf")).expect("initdb made it");
    writeln!(conf, "include 'testkit.conf'").expect("own folder is writable");
}

/// `initdb` takes a second, a copy of what it makes a tenth.
fn copy_template(bindir: &Path, data: &Path) {
    static TEMPLATES: LazyLock<Mutex<HashMap<PathBuf, Folder>>> = LazyLock::new(Mutex::default);
    let mut templates = TEMPLATES.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let template = templates.entry(bindir.to_owned()).or_insert_with(|| {
        let template = Folder::new("initdb", Owner::when_root("postgres"));
        initdb(&template, bindir, &template.path().join("data"));
        template
    });
    super::standby::copy(&template.path().join("data"), data);
}
