//! A door in front of a server: it lets a client's bytes through and may change the first of them.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

/// Opens a door to 127.0.0.1:`to` and gives its port. What a client says first goes through
/// `change`. It stays open until the process ends.
pub fn open(to: u16, change: impl Fn(Vec<u8>) -> Vec<u8> + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
            let mut first = vec![0; 64 * 1024];
            let Ok(count) = (&client).read(&mut first) else { continue };
            first.truncate(count);
            if (&server).write_all(&change(first)).is_err() {
                continue;
            }
            let copies = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || copy(&copies.0, &copies.1));
            thread::spawn(move || copy(&server, &client));
        }
    });
    port
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    // However it ends, the other side is to know.
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

/// `bytes` with every `old` replaced by `new`.
pub fn replaced(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while !rest.is_empty() {
        if rest.starts_with(old) {
            out.extend_from_slice(new);
            rest = &rest[old.len()..];
        } else {
            out.push(rest[0]);
            rest = &rest[1..];
        }
    }
    out
}
