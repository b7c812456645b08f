//! Private RabbitMQ nodes.

mod management;
mod node;

use std::process::Child;
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use rustix::process::Signal;

pub use management::Vhost;

use crate::http;
use crate::sandbox::Folder;

/// A RabbitMQ node of this process with the STOMP and management plugins; user and passcode `guest`. Ended on drop.
#[derive(Debug)]
pub struct RabbitMq {
    node: node::Node,
    folder: Folder,
    server: Mutex<Option<Child>>,
    // Its own folder: killing the node must leave epmd, as on a real machine.
    _epmd: Folder,
}

impl RabbitMq {
    /// Starts a node and waits until it serves STOMP and HTTP: about eight seconds.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// The same, with more lines for `rabbitmq.conf`.
    #[must_use]
    pub fn start_with(configuration: &str) -> Self {
        node::start(configuration)
    }

    /// One node for the whole process, for tests that do not stop it: take a [`RabbitMq::fresh_vhost`] each.
    #[must_use]
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<RabbitMq> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// The STOMP port; it stays the same over restarts.
    #[must_use]
    pub fn stomp_port(&self) -> u16 {
        self.node.stomp
    }

    /// The port of the management API.
    #[must_use]
    pub fn management_port(&self) -> u16 {
        self.node.management
    }

    /// `127.0.0.1:PORT`, as `broker.hosts` takes it.
    #[must_use]
    pub fn stomp_address(&self) -> String {
        format!("127.0.0.1:{}", self.node.stomp)
    }

    /// The node's folder.
    #[must_use]
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The last lines of the node's log.
    #[must_use]
    pub fn log(&self) -> String {
        self.folder.tail(node::LOG)
    }

    /// SIGKILL to the node; what it has on disk stays.
    pub fn kill(&self) {
        let mut server = self.lock();
        self.folder.kill_all();
        if let Some(mut child) = server.take() {
            let _ = child.wait();
        }
    }

    /// Starts the killed node again on the same data and ports.
    pub fn restart(&self) {
        let mut server = self.lock();
        assert!(server.is_none(), "the RabbitMQ node still runs");
        *server = Some(self.node.launch(&self.folder));
        if let Err(why) = self.node.await_ready(&self.folder, server.as_mut()) {
            panic!("RabbitMQ did not come back: {why}");
        }
    }

    /// SIGSTOP: connections stay open, nothing answers.
    pub fn freeze(&self) {
        self.folder.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.folder.signal(Signal::CONT);
    }

    /// Raises or ends the memory alarm, and waits until the node says so. While it lasts, publishers' sockets are not read.
    pub fn memory_alarm(&self, on: bool) {
        if on {
            self.ctl(&["set_vm_memory_high_watermark", "absolute", "1MB"]);
        } else {
            self.ctl(&["set_vm_memory_high_watermark", "0.6"]);
        }
        crate::wait::until(Duration::from_secs(20), "the memory alarm changes", || {
            self.has_memory_alarm() == on
        });
    }

    /// Runs `rabbitmqctl` and gives what it prints. Takes two seconds or more.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        self.node.ctl(&self.folder, arguments)
    }

    fn has_memory_alarm(&self) -> bool {
        // 503 exactly when an alarm is in effect; it asks the alarm handler itself, so it is never stale.
        self.api("GET", "/health/checks/alarms", None).is_ok_and(|answer| answer.status == 503)
    }

    /// Asks the management API; `path` goes after `/api`.
    ///
    /// # Errors
    /// As [`http::request`]; a status other than 2xx is no error here.
    pub fn api(
        &self,
        method: &str,
        path: &str,
        body: Option<&str>,
    ) -> std::io::Result<http::Answer> {
        self.node.api(method, path, body)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        self.server.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        let mut server = self.lock();
        self.folder.signal(Signal::KILL);
        if let Some(mut child) = server.take() {
            let _ = child.wait();
        }
    }
}
