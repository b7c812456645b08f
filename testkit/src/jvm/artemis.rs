//! Private brokers ActiveMQ Artemis, of the distribution that `make install` fetches.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::{JmsMessage, Jvm, Ports, ROOMY, SMALL, Server, broker, client, installed, source};
use crate::sandbox::Folder;

/// As in scripts/install.sh.
const VERSION: &str = "2.40.0";

/// An ActiveMQ Artemis of this process, durable, with STOMP; any user and passcode. Ended on drop.
#[derive(Debug)]
pub struct Artemis {
    server: Server,
}

impl Artemis {
    /// Makes an instance, starts it and waits until it serves STOMP: some seconds.
    #[must_use]
    pub fn start() -> Self {
        Self { server: Server::start("artemis", create, command, SMALL) }
    }

    /// The same with more memory, for measuring.
    #[must_use]
    pub fn start_roomy() -> Self {
        Self { server: Server::start("artemis", create, command, ROOMY) }
    }

    /// Reads `count` messages off `queue` with JMS.
    #[must_use]
    pub fn read_by_jms(&self, queue: &str, count: usize) -> Vec<JmsMessage> {
        let url = format!("tcp://127.0.0.1:{}", self.server.ports.jms);
        let factory = "org.apache.activemq.artemis.jms.client.ActiveMQConnectionFactory";
        client::read(&self.server.folder, &[home().join("lib")], factory, &url, queue, count)
    }
}

broker!(Artemis);

/// `WALPOST_ARTEMIS`, else where `make install` puts it.
fn home() -> PathBuf {
    let there = std::env::var_os("WALPOST_ARTEMIS").map(PathBuf::from);
    installed(there.unwrap_or_else(|| source("../target/artemis").join(VERSION)))
}

fn instance(folder: &Folder) -> PathBuf {
    folder.path().join("instance")
}

/// Runs one of Artemis' own scripts.
fn script(folder: &Folder, path: PathBuf, jvm: Jvm) -> Command {
    let mut command = folder.command(path);
    for name in ["JAVA_HOME", "JAVACMD", "JAVA_TOOL_OPTIONS", "ARTEMIS_HOME", "ARTEMIS_INSTANCE"] {
        command.env_remove(name);
    }
    command.env("JAVA_ARGS", format!("{} -Dlog4j2.disableJmx=true", jvm.join(" ")));
    command
}

fn command(folder: &Folder, jvm: Jvm) -> Command {
    let mut command = script(folder, instance(folder).join("bin/artemis"), jvm);
    command.arg("run");
    command
}

/// A stock instance, but for its ports.
fn create(folder: &Folder, Ports { stomp, jms }: Ports) {
    let instance = instance(folder);
    let made = script(folder, home().join("bin/artemis"), SMALL)
        .args(["create", "--user", "admin", "--password", "admin", "--allow-anonymous"])
        .args(["--silent", "--no-autotune", "--no-web", "--nio", "--no-amqp-acceptor"])
        .args(["--no-mqtt-acceptor", "--no-hornetq-acceptor"])
        .arg(&instance)
        .output()
        .expect("artemis can be run");
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "artemis create: {said}");
    let file = instance.join("etc/broker.xml");
    let stock = fs::read_to_string(&file).expect("artemis create made it");
    let ours = stock
        .replace("tcp://0.0.0.0:61613?", &format!("tcp://127.0.0.1:{stomp}?"))
        .replace("tcp://0.0.0.0:61616?", &format!("tcp://127.0.0.1:{jms}?"));
    assert!(!ours.contains("tcp://0.0.0.0"), "an acceptor of Artemis has another default");
    fs::write(file, ours).expect("own folder is writable");
}
