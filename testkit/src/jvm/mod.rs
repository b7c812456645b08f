//! Private message brokers that run in Java: starting, ending and freezing them is the same for each.

mod activemq;
mod artemis;
mod client;

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::process::Signal;

pub use activemq::ActiveMq;
pub use artemis::Artemis;
pub use client::JmsMessage;

use crate::ports;
use crate::sandbox::Folder;
use crate::session::Session;

const LOG: &str = "server.log";
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// Two processors are shared with PostgreSQL and walpost, and a broker here holds little: a small heap, a collector without
/// threads of its own, and no second round of compilation for a process that lives a minute.
const SMALL: &[&str] =
    &["-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"];
/// For measuring: as a broker is run, with a heap that holds some hundred thousand messages.
const ROOMY: &[&str] = &["-Xms2g", "-Xmx2g", "-Xshare:auto"];

/// The arguments of a broker's Java.
type Jvm = &'static [&'static str];

/// A broker: what [`ActiveMq`] and [`Artemis`] are made of.
#[derive(Debug)]
struct Server {
    name: &'static str,
    ports: Ports,
    folder: Folder,
    // What runs the broker in its folder, in the foreground.
    command: fn(&Folder, Jvm) -> Command,
    jvm: Jvm,
    child: Mutex<Option<Child>>,
}

/// Where it listens.
#[derive(Clone, Copy, Debug)]
struct Ports {
    stomp: u16,
    // For JMS clients, which speak the broker's own protocol.
    jms: u16,
}

impl Server {
    /// Starts a broker on free ports, with the files that `prepare` makes in its folder.
    fn start(
        name: &'static str,
        prepare: impl Fn(&Folder, Ports),
        command: fn(&Folder, Jvm) -> Command,
        jvm: Jvm,
    ) -> Self {
        let mut refused = String::new();
        for _ in 0..3 {
            let ports = Ports { stomp: ports::free(), jms: ports::free() };
            let folder = Folder::new(name, None);
            prepare(&folder, ports);
            let server = Server { name, ports, folder, command, jvm, child: Mutex::default() };
            match server.launch() {
                Ok(()) => return server,
                Err(why) if why.contains("Address already in use") => refused = why,
                Err(why) => panic!("{name} did not start: {why}"),
            }
        }
        panic!("{name} found no free ports: {refused}");
    }

    /// Starts it and waits until it takes a STOMP connection. `Err` holds the end of the log.
    fn launch(&self) -> Result<(), String> {
        let mut child = self.lock();
        assert!(child.is_none(), "{} still runs", self.name);
        let command = (self.command)(&self.folder, self.jvm);
        let started = child.insert(self.folder.spawn_logged(command, LOG));
        let since = Instant::now();
        while since.elapsed() < START_TIMEOUT {
            if Session::try_connect(self.ports.stomp, "/").is_ok() {
                return Ok(());
            }
            if let Ok(Some(status)) = started.try_wait() {
                return Err(format!("{status}\n{}", self.folder.tail(LOG)));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(format!("not ready within {START_TIMEOUT:?}\n{}", self.folder.tail(LOG)))
    }

    fn kill(&self) {
        let mut child = self.lock();
        self.folder.kill_all();
        if let Some(mut child) = child.take() {
            let _ = child.wait();
        }
    }

    fn restart(&self) {
        if let Err(why) = self.launch() {
            panic!("{} did not come back: {why}", self.name);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut child = self.lock();
        self.folder.signal(Signal::KILL);
        if let Some(mut child) = child.take() {
            let _ = child.wait();
        }
    }
}

/// What a broker of this module can do, whichever it is.
macro_rules! broker {
    ($broker:ident) => {
        impl $broker {
            /// One broker for the whole process, for tests that do not stop it. It has no virtual hosts: each test takes
            /// destinations of its own.
            #[must_use]
            pub fn shared() -> &'static Self {
                static SHARED: std::sync::OnceLock<$broker> = std::sync::OnceLock::new();
                SHARED.get_or_init(Self::start)
            }

            /// The STOMP port; it stays the same over restarts.
            #[must_use]
            pub fn stomp_port(&self) -> u16 {
                self.server.ports.stomp
            }

            /// `127.0.0.1:PORT`, as `broker.hosts` takes it.
            #[must_use]
            pub fn stomp_address(&self) -> String {
                format!("127.0.0.1:{}", self.server.ports.stomp)
            }

            /// The last lines of its log.
            #[must_use]
            pub fn log(&self) -> String {
                self.server.folder.tail(super::LOG)
            }

            /// SIGKILL; what it has on disk stays.
            pub fn kill(&self) {
                self.server.kill();
            }

            /// Starts the killed broker again on the same data and ports.
            pub fn restart(&self) {
                self.server.restart();
            }

            /// SIGSTOP: connections stay open, nothing answers.
            pub fn freeze(&self) {
                self.server.folder.signal(rustix::process::Signal::STOP);
            }

            /// SIGCONT.
            pub fn thaw(&self) {
                self.server.folder.signal(rustix::process::Signal::CONT);
            }
        }
    };
}
use broker;

/// `java` with our settings, in `folder`.
fn java(folder: &Folder, jvm: Jvm) -> Command {
    let mut command = folder.command("java");
    command.env_remove("JAVA_TOOL_OPTIONS").env_remove("CLASSPATH").args(jvm);
    command
}

/// A class path of the jars in `folders`.
fn class_path(folders: &[PathBuf]) -> String {
    let every: Vec<String> =
        folders.iter().map(|folder| format!("{}/*", folder.display())).collect();
    every.join(":")
}

/// `path`, which `make install` puts there.
#[track_caller]
fn installed(path: PathBuf) -> PathBuf {
    assert!(path.exists(), "no {}: run `make install`", path.display());
    path
}

/// A file of the testkit that is used at run time.
fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}
