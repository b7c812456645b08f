//! Each fixture starts, works, is killed, comes back, and leaves no process.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use walpost_testkit::sandbox::{MARK, processes_in};
use walpost_testkit::stomp::Frame;
use walpost_testkit::{
    Ack, Consumer, Postgres, RabbitMq, ScriptedBroker, Walpost, eventually, python, until,
};

const LONG: Duration = Duration::from_secs(30);

#[test]
fn postgres_comes_back_after_each_kind_of_end() {
    let server = Postgres::start();
    assert_eq!(server.sql("postgres", "SHOW fsync"), "on");
    assert_eq!(server.sql("postgres", "SHOW wal_level"), "logical");
    server.sql("postgres", "CREATE TABLE t (a int)");
    for end in [Postgres::kill, Postgres::stop_immediate, Postgres::stop_fast] {
        server.sql("postgres", "INSERT INTO t VALUES (1)");
        end(&server);
        assert!(server.try_sql("postgres", "SELECT 1").is_err());
        assert_eq!(server.folder().processes(), Vec::<i32>::new());
        server.restart();
    }
    assert_eq!(server.sql("postgres", "SELECT count(*) FROM t"), "3");
    let folder = server.folder().path().to_owned();
    drop(server);
    assert_gone(&folder);
}

#[test]
fn clusters_are_told_apart_where_asked() {
    let identifier = |server: &Postgres| {
        server.sql("postgres", "SELECT system_identifier FROM pg_control_system()")
    };
    let (copy, own) =
        (Postgres::builder().fast().start(), Postgres::builder().fast().own_cluster().start());
    assert_ne!(identifier(&copy), identifier(&own));
}

#[tokio::test]
async fn a_database_goes_with_its_slots() {
    let server = Postgres::shared();
    let database = server.fresh_database();
    let client = database.client().await;
    let sql = format!(
        "SELECT pg_create_logical_replication_slot('{}', 'pgoutput')::text",
        database.name()
    );
    client.query_one(&sql, &[]).await.unwrap();
    let count = format!(
        "SELECT (SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{0}')
              + (SELECT count(*) FROM pg_database WHERE datname = '{0}')",
        database.name()
    );
    assert_eq!(server.sql("postgres", &count), "2");
    drop(database);
    assert_eq!(server.sql("postgres", &count), "0");
    eventually(LONG, "the client sees the end", async || client.is_closed()).await;
}

#[test]
fn a_frozen_postgres_answers_after_it_is_thawed() {
    let server = Postgres::builder().fast().start();
    server.freeze();
    let mut query = Command::new(server.psql())
        .args(["-X", "-c", "SELECT 1", &server.url("postgres")])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // The kernel has accepted the connection; nobody serves it.
    std::thread::sleep(Duration::from_millis(300));
    assert!(query.try_wait().unwrap().is_none());
    server.thaw();
    assert!(query.wait().unwrap().success());
}

#[test]
fn rabbitmq_keeps_what_is_persistent_over_a_kill() {
    let broker = RabbitMq::start();
    let vhost = broker.fresh_vhost();
    vhost.declare_queue("q");
    send(vhost.name(), broker.stomp_port(), "/amq/queue/q", &["one", "two"]);
    // A queue declared just now may be in the node's memory only, whatever the messages are.
    broker.ctl(&["eval", "ok = mnesia:sync_log()."]);
    broker.kill();
    assert_eq!(broker.folder().processes(), Vec::<i32>::new());
    assert!(TcpStream::connect(("127.0.0.1", broker.stomp_port())).is_err());
    broker.restart();
    let consumer = Consumer::of_queue(&vhost, "q");
    let bodies: Vec<String> =
        consumer.wait_for(2, LONG).iter().map(|message| message.text()).collect();
    assert_eq!(bodies, ["one", "two"]);
    drop(consumer);

    // The alarm lets a connection's first SEND through and holds the second.
    broker.memory_alarm(true);
    let mut link = Link::open(vhost.name(), broker.stomp_port());
    link.send("/amq/queue/q", "first");
    assert_eq!(link.next().command, "RECEIPT");
    link.send("/amq/queue/q", "second");
    link.stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    assert!(link.stream.peek(&mut [0]).is_err());
    broker.memory_alarm(false);
    link.stream.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(link.next().command, "RECEIPT");

    broker.freeze();
    link.send("/amq/queue/q", "third");
    link.stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    assert!(link.stream.peek(&mut [0]).is_err());
    broker.thaw();
    link.stream.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(link.next().command, "RECEIPT");

    let folder = broker.folder().path().to_owned();
    drop(vhost);
    drop(broker);
    assert_gone(&folder);
}

#[test]
fn consumers_of_two_kinds_read_the_same() {
    let broker = RabbitMq::shared();
    let vhost = broker.fresh_vhost();
    vhost.declare_exchange("events", "topic");
    for queue in ["ours", "theirs"] {
        vhost.declare_queue(queue);
        vhost.bind("events", queue, "order.*");
    }
    let bodies = ["{\"a\": 1}", "gr\u{fc}n \u{1f600}", "a:b\\c\nd", ""];
    send(vhost.name(), broker.stomp_port(), "/exchange/events/order.new", &bodies);
    until(LONG, "the queues fill", || vhost.depth("ours") == 4 && vhost.depth("theirs") == 4);
    let ours = Consumer::builder(broker.stomp_port())
        .vhost(vhost.name())
        .subscribe("/amq/queue/ours")
        .ack(Ack::ClientIndividual)
        .start()
        .wait_for(4, LONG);
    let theirs =
        python::read_messages(broker.stomp_port(), vhost.name(), "/amq/queue/theirs", 4, LONG);
    for ((ours, theirs), body) in ours.iter().zip(&theirs).zip(bodies) {
        assert_eq!((ours.text(), theirs.text()), (body.to_owned(), body.to_owned()));
        assert_eq!(ours.header("note"), Some("a:b"));
        assert_eq!(theirs.header("note"), Some("a:b"));
        assert_eq!(ours.destination, "/exchange/events/order.new");
    }
    until(LONG, "the queues are empty", || vhost.depth("ours") + vhost.depth("theirs") == 0);
}

#[test]
fn a_process_is_heard_and_its_end_is_seen() {
    // Any program does: what is tested is the fixture.
    let script = "trap 'echo bye; exit 3' TERM; echo started $WALPOST__BROKER__HOSTS >&2; \
                  while :; do sleep 0.05; done";
    let mut process =
        Walpost::builder("/bin/sh").arguments(["-c", script]).set("broker.hosts", "a:1").start();
    assert_eq!(process.wait_for_log("started", LONG), "started a:1");
    // Bytes of a shell's size. Not the one against the other: the kernel counts per processor and the sum is approximate.
    for bytes in [process.vm_rss(), process.vm_hwm()] {
        assert!((100_000..20_000_000).contains(&bytes), "{bytes} bytes");
    }
    assert_eq!(process.terminate(LONG).code(), Some(3));
    assert_eq!(process.finish(LONG).stdout, "bye");

    let mut killed = Walpost::builder("/bin/sleep").arguments(["100"]).start();
    let folder = killed.folder().to_owned();
    killed.kill();
    assert!(killed.ended().is_some_and(|status| status.code().is_none()));
    drop(killed);
    assert_gone(&folder);
    let output =
        Walpost::builder(env!("CARGO_BIN_EXE_walpost")).arguments(["--version"]).output(LONG);
    assert!(output.status.code().is_some());
}

/// Not a test by itself: what [`nothing_is_left_behind`] starts in a process of its own, with servers in statics.
#[test]
fn hold_servers() {
    let Ok(how) = std::env::var("HOLD_SERVERS") else { return };
    let server = Postgres::shared();
    let broker = RabbitMq::shared();
    println!("\nholding {}", server.folder().path().display());
    println!("holding {}", broker.folder().path().display());
    match how.as_str() {
        "return" => {}
        "panic" => panic!("as asked"),
        "frozen" => {
            server.freeze();
            broker.freeze();
            println!("waiting");
            std::thread::sleep(LONG * 10);
        }
        _ => {
            println!("waiting");
            std::thread::sleep(LONG * 10);
        }
    }
}

#[test]
fn nothing_is_left_behind() {
    for how in ["return", "panic", "wait INT", "wait TERM", "frozen KILL"] {
        let (how, signal) = how.split_once(' ').unwrap_or((how, ""));
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "smoke::hold_servers", "--nocapture"])
            .env("HOLD_SERVERS", how)
            .env_remove(MARK)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut folders = BTreeSet::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some(folder) = line.strip_prefix("holding ") {
                folders.insert(PathBuf::from(folder));
                assert_ne!(processes_in(Path::new(folder)), Vec::<i32>::new());
            } else if line == "waiting" {
                // To the whole group, as a terminal does.
                let group = format!("-{}", child.id());
                assert!(
                    Command::new("kill")
                        .args(["-s", signal, "--", &group])
                        .status()
                        .unwrap()
                        .success()
                );
            }
        }
        let status = child.wait().unwrap();
        assert_eq!(status.success(), how == "return", "{how} {signal}");
        assert_eq!(folders.len(), 2);
        folders.iter().for_each(|folder| assert_gone(folder));
    }
}

#[test]
fn a_taken_port_is_no_obstacle() {
    // All fixtures draw from the same range; somebody else's server in it must not matter.
    let strangers: Vec<TcpListener> = (0..20)
        .filter_map(|_| TcpListener::bind(("127.0.0.1", walpost_testkit::ports::free())).ok())
        .collect();
    assert!(strangers.len() > 10);
    assert!(Postgres::builder().fast().start().try_sql("postgres", "SELECT 1").is_ok());
}

#[test]
fn a_scripted_broker_serves_a_consumers_codec() {
    let broker = ScriptedBroker::start();
    let mut link = Link::open("/", broker.port());
    link.send("/queue/q", "body");
    assert_eq!(link.next().header("receipt-id"), Some("0"));
    assert_eq!(broker.messages()[0].body, b"body");
}

/// No process of a fixture, and not its folder.
fn assert_gone(folder: &Path) {
    until(LONG, &format!("{} is gone", folder.display()), || {
        processes_in(folder).is_empty() && !folder.exists()
    });
}

fn send(vhost: &str, port: u16, destination: &str, bodies: &[&str]) {
    let mut link = Link::open(vhost, port);
    for body in bodies {
        link.send(destination, body);
        assert_eq!(link.next().command, "RECEIPT");
    }
}

/// A sender that waits for each receipt.
struct Link {
    stream: TcpStream,
    parser: walpost_testkit::stomp::Parser,
    sent: u32,
}

impl Link {
    fn open(vhost: &str, port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let mut link = Self { stream, parser: Default::default(), sent: 0 };
        let headers =
            [("accept-version", "1.2"), ("host", vhost), ("login", "guest"), ("passcode", "guest")];
        link.stream.write_all(&Frame::new("CONNECT", &headers).encode()).unwrap();
        assert_eq!(link.next().command, "CONNECTED");
        link
    }

    fn send(&mut self, destination: &str, body: &str) {
        let receipt = self.sent.to_string();
        self.sent += 1;
        let headers = [
            ("destination", destination),
            ("receipt", &receipt),
            ("persistent", "true"),
            ("note", "a:b"),
        ];
        self.stream.write_all(&Frame::new("SEND", &headers).with_body(body).encode()).unwrap();
    }

    fn next(&mut self) -> Frame {
        use std::io::Read;
        let mut chunk = [0; 4096];
        loop {
            if let Some(raw) = self.parser.next().unwrap() {
                return raw.decode().unwrap();
            }
            let count = self.stream.read(&mut chunk).unwrap();
            assert!(count > 0, "the broker closed");
            self.parser.push(&chunk[..count]);
        }
    }
}
