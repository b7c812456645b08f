//! Over a real socket on the loopback interface.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::telemetry::status::{Lane, Phase};

struct Running {
    address: SocketAddr,
    telemetry: Arc<Telemetry>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    async fn start() -> Self {
        Self::start_with(Limits::default()).await
    }

    async fn start_with(limits: Limits) -> Self {
        let telemetry = Telemetry::new("walpost", "walpost");
        let server = Server::bind("127.0.0.1:0", Arc::clone(&telemetry)).await.unwrap();
        let server = server.limits(limits);
        let address = server.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        Running { address, telemetry, stop, task }
    }

    /// The whole answer to `request`, read until the server closes.
    async fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    async fn get(&self, path: &str) -> String {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: walpost\r\n\r\n")).await
    }
}

#[tokio::test]
async fn livez_says_ok() {
    let http = Running::start().await;
    let answer = http.get("/livez").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");
}

#[tokio::test]
async fn readyz_is_503_with_the_reason_until_both_ends_stand() {
    let http = Running::start().await;
    let answer = http.get("/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nnot streaming from PostgreSQL\n"), "{answer}");
    http.telemetry.update(|status, lag| {
        status.phase = Phase::Streaming;
        status.source.connected = true;
        status.broker.lanes = vec![Lane { connected: true, ..Lane::default() }];
        lag.caught_up(crate::telemetry::clock::unix_now());
    });
    let answer = http.get("/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

#[tokio::test]
async fn metrics_status_and_page_have_their_types() {
    let http = Running::start().await;
    http.telemetry.metrics.sent.inc();
    for (path, kind, part) in [
        (
            "/metrics",
            "text/plain; version=0.0.4; charset=utf-8",
            "\nwalpost_messages_sent_total 1\n",
        ),
        ("/status.json", "application/json", "\"sent\":1"),
        ("/", "text/html; charset=utf-8", "<title>walpost</title>"),
    ] {
        let answer = http.get(path).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {answer}");
        assert!(answer.contains(&format!("\r\ncontent-type: {kind}\r\n")), "{path}: {answer}");
        assert!(answer.contains(part), "{path}: {answer}");
    }
}

#[tokio::test]
async fn every_answer_carries_the_security_headers() {
    let http = Running::start().await;
    for path in ["/", "/livez", "/readyz", "/metrics", "/status.json", "/nothing"] {
        let answer = http.get(path).await;
        for header in [
            "content-security-policy: default-src 'none';",
            "x-content-type-options: nosniff\r\n",
            "x-frame-options: DENY\r\n",
            "referrer-policy: no-referrer\r\n",
            "cache-control: no-store\r\n",
        ] {
            assert!(answer.contains(&format!("\r\n{header}")), "{path} lacks {header}: {answer}");
        }
    }
}

#[tokio::test]
async fn only_get_and_head_and_only_what_there_is() {
    let http = Running::start().await;
    let status = async |request: &str| {
        let answer = http.ask(request).await;
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(status("GET /admin HTTP/1.1\r\nHost: w\r\n\r\n").await, "404");
    assert_eq!(status("POST /livez HTTP/1.1\r\nHost: w\r\nContent-Length: 0\r\n\r\n").await, "405");
    assert_eq!(status("DELETE / HTTP/1.1\r\nHost: w\r\n\r\n").await, "405");
    let head = http.ask("HEAD /metrics HTTP/1.1\r\nHost: w\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
}

#[tokio::test]
async fn headers_without_end_are_refused_before_they_fill_memory() {
    let http = Running::start().await;
    let mut stream = TcpStream::connect(http.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nx: ").await.unwrap();
    let mut taken = 0;
    while taken < 64 << 20 && stream.write_all(&[b'a'; 4096]).await.is_ok() {
        taken += 4096;
    }
    // What the kernel's buffers hold, at most.
    assert!(taken < 16 << 20, "{taken} bytes of headers were taken");
}

#[tokio::test]
async fn silent_clients_are_closed_and_those_behind_them_are_served() {
    let headers = Duration::from_millis(200);
    let http = Running::start_with(Limits { connections: 2, headers, ..Limits::default() }).await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(TcpStream::connect(http.address).await.unwrap());
    }
    let answer = http.get("/livez").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    for mut stream in silent {
        let mut end = Vec::new();
        stream.read_to_end(&mut end).await.unwrap();
    }
}

#[tokio::test]
async fn clients_that_ask_nothing_make_room_at_once() {
    let (headers, connection) = (Duration::from_secs(600), Duration::from_secs(600));
    let http = Running::start_with(Limits { connections: 3, headers, connection }).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(http.address).await.unwrap());
        let answer = http.get("/livez").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
    // The oldest are gone.
    let mut oldest = silent.swap_remove(0);
    assert_eq!(oldest.read(&mut [0]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_client_that_does_not_take_its_answer_is_closed() {
    let connection = Duration::from_millis(200);
    let http =
        Running::start_with(Limits { connections: 1, connection, ..Limits::default() }).await;
    let mut dribbling = TcpStream::connect(http.address).await.unwrap();
    dribbling.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
    let answer = http.get("/livez").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

#[tokio::test]
async fn a_taken_address_is_an_error_that_names_it() {
    let http = Running::start().await;
    let listen = http.address.to_string();
    let error = Server::bind(&listen, Arc::clone(&http.telemetry)).await.unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with(&format!("http.listen: cannot listen on {listen}: ")), "{text}");
    let error = serve("nonsense", Arc::clone(&http.telemetry), async {}).await.unwrap_err();
    assert!(error.to_string().contains("cannot listen on nonsense: "), "{error}");
}

#[tokio::test]
async fn shutdown_closes_the_listener_and_what_is_open() {
    let http = Running::start().await;
    let mut open = TcpStream::connect(http.address).await.unwrap();
    http.stop.send(()).unwrap();
    http.task.await.unwrap();
    // End of file, or a reset where it had not even been accepted.
    let _ = open.read_to_end(&mut Vec::new()).await;
    assert!(TcpStream::connect(http.address).await.is_err());
}
