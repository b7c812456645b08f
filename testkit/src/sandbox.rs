//! The temporary folder of this process, and the certainty that nothing started in it stays behind.
//!
//! All fixtures live in subfolders of one folder. Each server works in its subfolder and carries its path in the
//! environment variable [`MARK`], so all its processes can be found, whatever sessions and process groups they make for
//! themselves (PostgreSQL's backends and `epmd` do). A watchdog, a shell in a session of its own, waits for the end of a pipe whose
//! other end only this process holds. However this process ends, the watchdog then kills what is left and removes the
//! folder. (PR_SET_PDEATHSIG would not do: it follows the starting *thread*, is not inherited, and leaves the folder.)

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// The environment variable that marks every process of a fixture with the fixture's folder.
pub const MARK: &str = "WALPOST_TESTKIT_FOLDER";

const WATCHDOG: &str = r#"
trap '' HUP INT TERM
root=$1
while read -r _; do :; done
for _ in $(seq 100); do
    left=$( { grep -lsF "WALPOST_TESTKIT_FOLDER=$root" /proc/[0-9]*/environ
              find /proc -maxdepth 2 -name cwd -lname "$root/*"; } 2>/dev/null | cut -d/ -f3 | sort -u)
    [ -n "$left" ] || break
    kill -KILL $left
done
rm -rf "$root" || { sleep 1; rm -rf "$root"; }
"#;

struct Root {
    path: PathBuf,
    // Never written to: the watchdog reads its end.
    _pipe: ChildStdin,
}

#[expect(clippy::zombie_processes, reason = "the watchdog outlives this process: that is its use")]
fn root() -> &'static Root {
    static ROOT: OnceLock<Root> = OnceLock::new();
    ROOT.get_or_init(|| {
        let path = tempfile::Builder::new()
            .prefix("walpost-")
            .tempdir()
            .expect("a temporary folder can be made")
            .keep();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("own folder");
        let mut watchdog = Command::new("setsid")
            .args(["sh", "-c", WATCHDOG, "walpost-testkit-watchdog"])
            .arg(&path)
            .current_dir("/")
            .env_remove(MARK)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("setsid and sh are there");
        let pipe = watchdog.stdin.take().expect("piped above");
        Root { path, _pipe: pipe }
    })
}

/// The user that a server runs as, where this process is root and the server refuses root.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    uid: u32,
    gid: u32,
}

impl Owner {
    /// `name` from `/etc/passwd` if this process is root; `None` (the user of this process) otherwise.
    #[must_use]
    pub fn when_root(name: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let passwd = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
        let line = passwd
            .lines()
            .find(|line| line.split(':').next() == Some(name))
            .unwrap_or_else(|| panic!("no user {name}: run `make install`"));
        let mut ids = line.split(':').skip(2).map(|id| id.parse().expect("numeric id"));
        Some(Self { uid: ids.next().expect("uid"), gid: ids.next().expect("gid") })
    }
}

/// A fixture's folder. Dropping it kills the processes that work in it and removes it.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    owner: Option<Owner>,
}

impl Folder {
    /// A new, empty folder that belongs to `owner`.
    #[must_use]
    pub fn new(name: &str, owner: Option<Owner>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = root().path.join(format!("{name}{number}"));
        fs::create_dir(&path).expect("the temporary folder is writable");
        if let Some(Owner { uid, gid }) = owner {
            chown(&path, Some(uid), Some(gid)).expect("root may give a folder away");
        }
        Self { path, owner }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file that only the folder's owner can read.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.path.join(name);
        fs::write(&path, text).expect("own folder is writable");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("own file");
        if let Some(Owner { uid, gid }) = self.owner {
            chown(&path, Some(uid), Some(gid)).expect("root may give a file away");
        }
    }

    /// A command that works in this folder, is marked, runs as the folder's owner and in a process group of its own
    /// (Ctrl-C in a terminal is for the test, not for its servers). Standard input is empty.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .current_dir(&self.path)
            .env(MARK, &self.path)
            .env("HOME", &self.path)
            .process_group(0)
            .stdin(Stdio::null());
        if let Some(Owner { uid, gid }) = self.owner {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Starts `command` with both outputs appended to the file `log` in this folder.
    #[must_use]
    pub fn spawn_logged(&self, mut command: Command, log: &str) -> Child {
        let file = self.open_log(log);
        let copy = file.try_clone().expect("a file handle can be copied");
        command
            .stdout(file)
            .stderr(copy)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}; run `make install`"))
    }

    /// The last lines of the file `log` in this folder, for messages about failures.
    #[must_use]
    pub fn tail(&self, log: &str) -> String {
        let bytes = fs::read(self.path.join(log)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// All processes of this fixture that still run.
    #[must_use]
    pub fn processes(&self) -> Vec<i32> {
        processes_in(&self.path)
    }

    /// Sends `signal` to each process of this fixture.
    pub fn signal(&self, signal: Signal) {
        for pid in self.processes() {
            send(pid, signal);
        }
    }

    /// SIGKILL to all processes of this fixture, again until none is left and all that they held is released.
    pub fn kill_all(&self) {
        assert!(self.killed(), "processes in {} do not die", self.path.display());
    }

    fn killed(&self) -> bool {
        let mut seen = BTreeSet::new();
        for _ in 0..2_000 {
            let now = self.processes();
            now.iter().for_each(|pid| send(*pid, Signal::KILL));
            seen.extend(now);
            seen.retain(|pid| !has_ended(*pid));
            if seen.is_empty() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    fn open_log(&self, log: &str) -> File {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path.join(log))
            .expect("own folder is writable")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be ended or removed now, the watchdog will.
        if self.killed() {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Sends `signal` to the process `pid`; a process that has ended meanwhile is no error.
pub fn send(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// Whether a process is gone, or a zombie whose last thread is gone too: until then its sockets are open.
fn has_ended(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let zombie = stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']));
    zombie && fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count) <= 1
}

/// The processes that work in `folder` or carry it as their [`MARK`]; zombies are not among them.
#[must_use]
pub fn processes_in(folder: &Path) -> Vec<i32> {
    let mut mark = format!("{MARK}=").into_bytes();
    mark.extend_from_slice(folder.as_os_str().as_bytes());
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    entries
        .flatten()
        .filter(|entry| {
            let works_here =
                fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
            works_here
                || fs::read(entry.path().join("environ")).is_ok_and(|environ| {
                    environ.split(|byte| *byte == 0).any(|pair| is_mark(pair, &mark))
                })
        })
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Whether `pair` is `mark` itself or `mark` continued by a subfolder.
fn is_mark(pair: &[u8], mark: &[u8]) -> bool {
    pair.strip_prefix(mark).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}
