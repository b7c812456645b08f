//! Private brokers ActiveMQ Classic, of the Debian package.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::{
    JmsMessage, Jvm, Ports, ROOMY, SMALL, Server, broker, class_path, client, installed, java,
};
use crate::sandbox::Folder;

const HOME: &str = "/usr/share/activemq";
/// Without any it would put together, and throw away, several lines for each message.
const LOGGING: &str = "\
log4j.rootLogger=WARN, console
log4j.appender.console=org.apache.log4j.ConsoleAppender
log4j.appender.console.layout=org.apache.log4j.PatternLayout
log4j.appender.console.layout.ConversionPattern=%d %p %c %m%n
";

/// An ActiveMQ Classic of this process, durable, with STOMP; any user and passcode. Ended on drop.
#[derive(Debug)]
pub struct ActiveMq {
    server: Server,
}

impl ActiveMq {
    /// Starts a broker and waits until it serves STOMP: some seconds.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// The same, with more elements for the `broker` of `activemq.xml`: `<plugins>`, ….
    #[must_use]
    pub fn start_with(elements: &str) -> Self {
        Self::start_on(elements, SMALL)
    }

    /// The same with more memory, for measuring.
    #[must_use]
    pub fn start_roomy() -> Self {
        Self::start_on("", ROOMY)
    }

    fn start_on(elements: &str, jvm: Jvm) -> Self {
        let files = |folder: &Folder, ports| write_files(folder, ports, elements);
        Self { server: Server::start("activemq", files, command, jvm) }
    }

    /// Reads `count` messages off `queue` with JMS.
    #[must_use]
    pub fn read_by_jms(&self, queue: &str, count: usize) -> Vec<JmsMessage> {
        let url = format!("tcp://127.0.0.1:{}", self.server.ports.jms);
        let factory = "org.apache.activemq.ActiveMQConnectionFactory";
        client::read(&self.server.folder, &jars(), factory, &url, queue, count)
    }
}

broker!(ActiveMq);

fn jars() -> [PathBuf; 1] {
    [installed(PathBuf::from(HOME).join("lib"))]
}

fn command(folder: &Folder, jvm: Jvm) -> Command {
    let home = installed(PathBuf::from(HOME));
    let base = folder.path().display();
    let mut command = java(folder, jvm);
    command
        .arg(format!("-Dactivemq.base={base}"))
        .arg(format!("-Dactivemq.home={HOME}"))
        .arg(format!("-Dactivemq.conf={base}"))
        .arg(format!("-Dactivemq.data={base}/data"))
        .arg(format!("-Dlog4j.configuration=file:{base}/log4j.properties"))
        .args(["--add-opens", "java.base/java.lang=ALL-UNNAMED", "-cp"])
        .arg(class_path(&[home.join("lib"), home.join("lib/optional")]))
        .args(["org.apache.activemq.console.Main", "start"])
        .arg(format!("xbean:file:{base}/activemq.xml"));
    command
}

/// As packaged, with a STOMP listener and our ports. The journal's files are smaller: each is written full of zeros first.
fn write_files(folder: &Folder, Ports { stomp, jms }: Ports, elements: &str) {
    let configuration = format!(
        r#"<beans xmlns="http://www.springframework.org/schema/beans"
    xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
    xsi:schemaLocation="http://www.springframework.org/schema/beans
        http://www.springframework.org/schema/beans/spring-beans-2.0.xsd
        http://activemq.apache.org/schema/core http://activemq.apache.org/schema/core/activemq-core.xsd">
  <broker xmlns="http://activemq.apache.org/schema/core" useJmx="false" brokerName="localhost"
      dataDirectory="{base}/data">{elements}
    <persistenceAdapter>
      <kahaDB directory="{base}/data/kahadb" journalMaxFileLength="8mb"/>
    </persistenceAdapter>
    <transportConnectors>
      <transportConnector name="openwire" uri="tcp://127.0.0.1:{jms}"/>
      <transportConnector name="stomp" uri="stomp+nio://127.0.0.1:{stomp}"/>
    </transportConnectors>
  </broker>
</beans>
"#,
        base = folder.path().display(),
    );
    for (name, text) in [("activemq.xml", configuration.as_str()), ("log4j.properties", LOGGING)] {
        fs::write(folder.path().join(name), text).expect("own folder is writable");
    }
}
