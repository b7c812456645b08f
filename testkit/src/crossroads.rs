//! A way to PostgreSQL that leads replication connections to one server and SQL connections to another, as a balancer may.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// The longest startup message that PostgreSQL takes.
const LONGEST: usize = 10_000;
/// What asks for TLS in place of a protocol version.
const SSL_REQUEST: [u8; 4] = 80_877_103_u32.to_be_bytes();

#[derive(Default)]
struct Shared {
    replication: AtomicU16,
    sql: AtomicU16,
    ended: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, Vec<TcpStream>> {
        self.open.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The crossroads. Its connections are closed on drop.
pub struct Crossroads {
    port: u16,
    shared: Arc<Shared>,
}

impl Crossroads {
    /// Both ways lead to `port` of 127.0.0.1.
    #[must_use]
    pub fn to(port: u16) -> Self {
        let shared =
            Arc::new(Shared { replication: port.into(), sql: port.into(), ..Shared::default() });
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let of_thread = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if of_thread.ended.load(Ordering::Acquire) {
                    return;
                }
                let (Ok(client), shared) = (client, Arc::clone(&of_thread)) else { continue };
                std::thread::spawn(move || {
                    // A connection that ends early is its two ends' matter.
                    let _ = pass(client, &shared);
                });
            }
        });
        Crossroads { port, shared }
    }

    /// Where it listens on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// SQL connections lead to `port` from now on, and those that are open end.
    pub fn lead_sql_to(&self, port: u16) {
        self.shared.sql.store(port, Ordering::Release);
        self.end_connections();
    }

    /// New SQL connections lead to `port`; those that are open stay.
    pub fn lead_new_sql_to(&self, port: u16) {
        self.shared.sql.store(port, Ordering::Release);
    }

    fn end_connections(&self) {
        for stream in self.shared.open().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Crossroads {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        // Wakes the accepting thread.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        self.end_connections();
    }
}

/// A message without a type: its length as sent, and the rest.
fn packet(client: &mut TcpStream) -> std::io::Result<([u8; 4], Vec<u8>)> {
    let mut length = [0; 4];
    client.read_exact(&mut length)?;
    let size = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    let mut rest = vec![0; size.clamp(4, LONGEST) - 4];
    client.read_exact(&mut rest)?;
    Ok((length, rest))
}

/// The startup message, which says what the connection is for, and then all else.
fn pass(mut client: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let (mut length, mut startup) = packet(&mut client)?;
    if startup == SSL_REQUEST {
        client.write_all(b"N")?;
        (length, startup) = packet(&mut client)?;
    }
    let replicates = memchr::memmem::find(&startup, b"\0replication\0database\0").is_some();
    let way = if replicates { &shared.replication } else { &shared.sql };
    let mut server = {
        // Whoever changes the way ends all that went the old one.
        let mut open = shared.open();
        let server = TcpStream::connect(("127.0.0.1", way.load(Ordering::Acquire)))?;
        open.push(client.try_clone()?);
        open.push(server.try_clone()?);
        server
    };
    server.write_all(&length)?;
    server.write_all(&startup)?;
    let (mut from, mut to) = (server.try_clone()?, client.try_clone()?);
    let back = std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
    let _ = std::io::copy(&mut client, &mut server);
    let _ = server.shutdown(Shutdown::Both);
    let _ = back.join();
    Ok(())
}
