//! Starting a node: configuration, environment, readiness.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::RabbitMq;
use crate::sandbox::Folder;
use crate::{http, ports};

pub(super) const LOG: &str = "server.log";
const START_TIMEOUT: Duration = Duration::from_secs(120);
const HOME: &str = "/usr/lib/rabbitmq";
/// Another system's root folder to run RabbitMQ in (`scripts/matrix-rabbitmq.sh`); needs root.
const ROOT: &str = "WALPOST_RABBITMQ_ROOT";
// In mounts of its own, which end with it. What comes from `/tmp`, such as the node's folder, has the same path in both.
const IN_ROOT: &str = r#"
root=$1 tmp=$2 folder=$3
shift 3
mount -t tmpfs tmpfs "$root/tmp" && mkdir -p "$root$tmp" && mount --bind "$tmp" "$root$tmp" && mount -t proc proc "$root/proc" &&
    exec chroot "$root" env -C "$folder" "$@"
"#;
// guest:guest
const AUTHORIZATION: &str = "Basic Z3Vlc3Q6Z3Vlc3Q=";

#[derive(Debug)]
pub(super) struct Node {
    pub(super) stomp: u16,
    pub(super) management: u16,
    amqp: u16,
    distribution: u16,
    epmd: u16,
    // `rabbitmqctl` of the release itself: the one in the path changes user and home.
    ctl: PathBuf,
    // Where it is another system's.
    root: Option<PathBuf>,
}

pub(super) fn start(configuration: &str) -> RabbitMq {
    let mut refused = String::new();
    for _ in 0..3 {
        let node = Node::new();
        let epmd = node.start_epmd();
        let folder = Folder::new("rabbitmq", None);
        node.write_files(&folder, configuration);
        let mut server = Some(node.launch(&folder));
        match node.await_ready(&folder, server.as_mut()) {
            Ok(()) => {
                return RabbitMq { node, folder, server: Mutex::new(server), _epmd: epmd };
            }
            Err(why) if why.contains("eaddrinuse") || why.contains("address already in use") => {
                refused = why
            }
            Err(why) => panic!("RabbitMQ did not start: {why}"),
        }
    }
    panic!("RabbitMQ found no free ports: {refused}");
}

impl Node {
    fn new() -> Self {
        let root = std::env::var_os(ROOT).map(PathBuf::from);
        let home = match &root {
            Some(root) => root.join(&HOME[1..]),
            None => PathBuf::from(HOME),
        };
        let release = fs::read_dir(home.join("lib"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path().join("sbin/rabbitmqctl"))
            .find(|ctl| ctl.exists())
            .expect("rabbitmqctl in /usr/lib/rabbitmq/lib: run `make install`");
        Self {
            stomp: ports::free(),
            management: ports::free(),
            amqp: ports::free(),
            distribution: ports::free(),
            epmd: ports::free(),
            ctl: match &root {
                Some(root) => Path::new("/").join(release.strip_prefix(root).expect("below it")),
                None => release,
            },
            root,
        }
    }

    /// Ours, in the foreground: the node would start a daemon that outlives it.
    fn start_epmd(&self) -> Folder {
        let folder = Folder::new("epmd", None);
        let mut command = folder.command("epmd");
        command.args(["-address", "127.0.0.1", "-port", &self.epmd.to_string()]);
        let mut child = folder.spawn_logged(command, "epmd.log");
        // Killed with its folder; somebody has to take its exit status.
        std::thread::spawn(move || child.wait());
        crate::wait::until(Duration::from_secs(20), "epmd listens", || {
            TcpStream::connect(("127.0.0.1", self.epmd)).is_ok()
        });
        folder
    }

    fn write_files(&self, folder: &Folder, more: &str) {
        let Self { stomp, management, amqp, .. } = self;
        let configuration = format!(
            "listeners.tcp.1 = 127.0.0.1:{amqp}\n\
             stomp.listeners.tcp.1 = 127.0.0.1:{stomp}\n\
             management.tcp.ip = 127.0.0.1\n\
             management.tcp.port = {management}\n\
             collect_statistics_interval = 1000\n\
             vm_memory_high_watermark.relative = 0.6\n\
             disk_free_limit.absolute = 50MB\n\
             {more}\n"
        );
        fs::write(folder.path().join("rabbitmq.conf"), configuration)
            .expect("own folder is writable");
        fs::write(folder.path().join("plugins"), "[rabbitmq_stomp,rabbitmq_management].\n")
            .expect("own folder is writable");
    }

    fn command(&self, folder: &Folder, program: &Path) -> Command {
        let path = folder.path();
        let mut command = match &self.root {
            None => folder.command(program),
            Some(root) => {
                let mut command = folder.command("unshare");
                command.args(["--mount", "--propagation", "private", "sh", "-ec", IN_ROOT, "sh"]);
                command.arg(root).arg(std::env::temp_dir()).arg(path).arg(program);
                command
            }
        };
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("RABBITMQ_") {
                command.env_remove(name);
            }
        }
        command
            .env("RABBITMQ_NODENAME", format!("walpost{}@localhost", self.amqp))
            .env("RABBITMQ_MNESIA_BASE", path.join("data"))
            .env("RABBITMQ_LOG_BASE", path.join("log"))
            .env("RABBITMQ_LOGS", "-")
            .env("RABBITMQ_CONFIG_FILE", path.join("rabbitmq"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", path.join("plugins"))
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_PID_FILE", path.join("pid"))
            .env("RABBITMQ_DIST_PORT", self.distribution.to_string())
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-kernel inet_dist_use_interface {127,0,0,1}",
            )
            .env("ERL_EPMD_PORT", self.epmd.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("LANG", "C.UTF-8");
        command
    }

    pub(super) fn launch(&self, folder: &Folder) -> Child {
        let command = self.command(folder, &Path::new(HOME).join("bin/rabbitmq-server"));
        folder.spawn_logged(command, LOG)
    }

    pub(super) fn ctl(&self, folder: &Folder, arguments: &[&str]) -> String {
        let output = self
            .command(folder, &self.ctl)
            .args(arguments)
            .output()
            .expect("rabbitmqctl can be started");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "rabbitmqctl {arguments:?}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(super) fn api(
        &self,
        method: &str,
        path: &str,
        body: Option<&str>,
    ) -> std::io::Result<http::Answer> {
        http::request(self.management, method, &format!("/api{path}"), Some(AUTHORIZATION), body)
    }

    /// Waits for the STOMP listener and the management API. `Err` holds the end of the log.
    pub(super) fn await_ready(
        &self,
        folder: &Folder,
        server: Option<&mut Child>,
    ) -> Result<(), String> {
        let child = server.ok_or("it was not started")?;
        let started = Instant::now();
        while started.elapsed() < START_TIMEOUT {
            let ready = TcpStream::connect(("127.0.0.1", self.stomp)).is_ok()
                && self.api("GET", "/overview", None).is_ok_and(|answer| answer.status == 200);
            if ready {
                return Ok(());
            }
            if let Ok(Some(status)) = child.try_wait() {
                return Err(format!("{status}\n{}", folder.tail(LOG)));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err(format!("not ready within {START_TIMEOUT:?}\n{}", folder.tail(LOG)))
    }
}
