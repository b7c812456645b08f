//! The walpost binary as a process.

mod lines;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use lines::Lines;

use crate::sandbox::{Folder, send};
use crate::wait::until_some;
use crate::{http, ports};

/// The release build of the binary: `WALPOST_BIN_RELEASE`, else cargo builds it now, beside the running test.
#[must_use]
pub fn release_binary() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let workspace = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status = Command::new(cargo)
            .args(["build", "--quiet", "--release", "--bin", "walpost"])
            .current_dir(workspace)
            .stdin(Stdio::null())
            .status()
            .expect("cargo can be started");
        assert!(status.success(), "the release build failed");
        let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
        Path::new(workspace).join(target).join("release/walpost")
    };
    BUILT
        .get_or_init(|| std::env::var_os("WALPOST_BIN_RELEASE").map_or_else(build, PathBuf::from))
        .clone()
}

/// How a walpost is started.
#[derive(Clone, Debug)]
pub struct Builder {
    binary: PathBuf,
    arguments: Vec<String>,
    configuration: Option<String>,
    environment: Vec<(String, String)>,
}

impl Builder {
    /// Arguments in place of `run`.
    #[must_use]
    pub fn arguments<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments = arguments.into_iter().map(Into::into).collect();
        self
    }

    /// The text of `walpost.yaml`.
    #[must_use]
    pub fn configuration(mut self, yaml: &str) -> Self {
        self.configuration = Some(yaml.to_owned());
        self
    }

    /// One configuration key: `set("broker.hosts", "127.0.0.1:61613")`. It goes into the environment, so it wins over
    /// [`Builder::configuration`]; lists and maps other than `hosts` as JSON.
    #[must_use]
    pub fn set(self, key: &str, value: impl std::fmt::Display) -> Self {
        let name = format!("WALPOST__{}", key.to_uppercase().replace('.', "__"));
        self.env(&name, &value.to_string())
    }

    /// An environment variable; a later one of the same name wins.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts the process. It may not be ready yet: see [`Walpost::await_ready`].
    #[must_use]
    pub fn start(&self) -> Walpost {
        let folder = Folder::new("walpost", None);
        let http_port = ports::free();
        let mut command = folder.command(&self.binary);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("WALPOST_") && name != crate::sandbox::MARK {
                command.env_remove(name);
            }
        }
        command.env("WALPOST__HTTP__LISTEN", format!("127.0.0.1:{http_port}"));
        if let Some(yaml) = &self.configuration {
            fs::write(folder.path().join("walpost.yaml"), yaml).expect("own folder is writable");
        }
        command
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .args(&self.arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", self.binary.display()));
        let (stdout, stderr) = (Lines::default(), Lines::default());
        let readers = vec![
            stdout.collect_from(child.stdout.take().expect("piped above")),
            stderr.collect_from(child.stderr.take().expect("piped above")),
        ];
        Walpost { child, readers, stdout, stderr, http_port, folder }
    }

    /// Runs the process to its end, for commands that end by themselves.
    #[must_use]
    pub fn output(&self, timeout: Duration) -> Finished {
        self.start().finish(timeout)
    }
}

/// What a process that has ended leaves.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Lines of standard output, joined.
    pub stdout: String,
    /// Lines of standard error, joined.
    pub stderr: String,
}

/// A walpost process. Killed on drop.
#[derive(Debug)]
pub struct Walpost {
    child: Child,
    readers: Vec<JoinHandle<()>>,
    stdout: Lines,
    stderr: Lines,
    http_port: u16,
    folder: Folder,
}

impl Walpost {
    /// A process of `binary`: `env!("CARGO_BIN_EXE_walpost")` in an integration test. It runs `run` with a free HTTP port
    /// and no other `WALPOST_…` variables than those of the builder.
    #[must_use]
    pub fn builder(binary: impl Into<PathBuf>) -> Builder {
        Builder {
            binary: binary.into(),
            arguments: vec!["run".to_owned()],
            configuration: None,
            environment: Vec::new(),
        }
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it serves HTTP (unless the builder set `http.listen`).
    #[must_use]
    pub fn http_port(&self) -> u16 {
        self.http_port
    }

    /// Its working folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Waits until `/readyz` answers 200.
    #[track_caller]
    pub fn await_ready(&mut self, timeout: Duration) {
        let started = Instant::now();
        loop {
            let answer = http::get(self.http_port, "/readyz");
            if answer.as_ref().is_ok_and(|answer| answer.status == 200) {
                return;
            }
            let ended = self.child.try_wait().ok().flatten();
            if ended.is_some() || started.elapsed() > timeout {
                let reason = answer.map(|answer| answer.text());
                panic!(
                    "walpost is not ready ({ended:?}, readyz: {reason:?}); it said:\n{}",
                    self.log()
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM; gives the exit status, panics if that takes longer than `timeout`.
    #[track_caller]
    pub fn terminate(&mut self, timeout: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait(timeout)
    }

    /// Sends any signal.
    pub fn signal(&self, signal: Signal) {
        send(i32::try_from(self.child.id()).expect("a pid is positive"), signal);
    }

    /// SIGSTOP.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// The exit status if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end; panics after `timeout`.
    #[track_caller]
    pub fn wait(&mut self, timeout: Duration) -> ExitStatus {
        let log = self.stderr.clone();
        let started = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(
                started.elapsed() < timeout,
                "walpost has not ended within {timeout:?}; it said:\n{}",
                log.text()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for its end and gives all it wrote.
    #[must_use]
    pub fn finish(mut self, timeout: Duration) -> Finished {
        let status = self.wait(timeout);
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        Finished { status, stdout: self.stdout.text(), stderr: self.stderr.text() }
    }

    /// All lines of standard error so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.stderr.text()
    }

    /// All lines of standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Waits for a line on standard error that contains `pattern`, from the first line on; gives it.
    #[track_caller]
    pub fn wait_for_log(&self, pattern: &str, timeout: Duration) -> String {
        match self.stderr.wait_for(pattern, timeout) {
            Some(line) => line,
            None => {
                panic!("no line with {pattern:?} within {timeout:?}; walpost said:\n{}", self.log())
            }
        }
    }

    /// GET /status.json; `Null` while it does not answer.
    #[must_use]
    pub fn status(&self) -> Value {
        http::get(self.http_port, "/status.json").map(|answer| answer.json()).unwrap_or_default()
    }

    /// GET /metrics as a map from the series, with its labels as printed, to its value. Empty while it does not answer.
    #[must_use]
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let text =
            http::get(self.http_port, "/metrics").map(|answer| answer.text()).unwrap_or_default();
        parse_metrics(&text)
    }

    /// The value of one series; waits up to ten seconds for it to be there.
    #[track_caller]
    #[must_use]
    pub fn metric(&self, series: &str) -> f64 {
        until_some(Duration::from_secs(10), series, || self.metrics().get(series).copied())
    }

    /// Peak resident memory in bytes. The kernel keeps it: reading late misses nothing.
    #[must_use]
    pub fn vm_hwm(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// Resident memory in bytes.
    #[must_use]
    pub fn vm_rss(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// Processor time used so far, user and system.
    #[must_use]
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        // The second field, in parentheses, may hold blanks.
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks: u64 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum();
        // Linux counts in hundredths of a second here on every architecture that PostgreSQL runs on but alpha.
        Duration::from_millis(ticks * 10)
    }

    fn memory(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let kibibytes: u64 = status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.trim().strip_suffix(" kB")?.parse().ok())
            .unwrap_or_else(|| panic!("no {field} of walpost: it has ended"));
        kibibytes * 1024
    }
}

impl Drop for Walpost {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- walpost said:\n{}\n---", self.log());
        }
    }
}

fn parse_metrics(text: &str) -> BTreeMap<String, f64> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::parse_metrics;

    #[test]
    fn metrics_are_read_with_their_labels() {
        let map = parse_metrics("# HELP a b\na_total 3\nb{x=\"y z\"} 0.5\nc +Inf\n");
        assert_eq!(map.len(), 3);
        assert_eq!(map["a_total"], 3.0);
        assert_eq!(map["b{x=\"y z\"}"], 0.5);
        assert!(map["c"].is_infinite());
    }
}
