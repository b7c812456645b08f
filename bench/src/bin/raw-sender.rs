//! The ceiling towards a broker: frames encoded beforehand, pipelined, each with a receipt.
//!
//! `raw-sender PORT VHOST COUNT WINDOW CONNECTIONS` prints the seconds from the first byte to the last receipt.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use walpost_bench::frames;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, vhost, count, window, connections] = arguments.as_slice() else {
        return Err(io::Error::other("raw-sender PORT VHOST COUNT WINDOW CONNECTIONS"));
    };
    let number = |text: &String| text.parse::<usize>().map_err(io::Error::other);
    let (count, window, connections) = (number(count)?, number(window)?, number(connections)?);
    // One thread for each, with its share of the messages and of the window.
    let each = count.div_ceil(connections);
    let encoded = encode(each);
    let ready = Barrier::new(connections + 1);
    let started = thread::scope(|scope| {
        let senders: Vec<_> = (0..connections)
            .map(|_| scope.spawn(|| send(port, vhost, &encoded, window / connections, &ready)))
            .collect();
        ready.wait();
        let started = Instant::now();
        for sender in senders {
            sender.join().map_err(|_| io::Error::other("a sender panicked"))??;
        }
        io::Result::Ok(started)
    })?;
    println!("{}", started.elapsed().as_secs_f64());
    Ok(())
}

/// Sends all frames on a connection of its own, from the moment that all are connected.
fn send(
    port: &str,
    vhost: &str,
    (bytes, ends): &(Vec<u8>, Vec<usize>),
    window: usize,
    ready: &Barrier,
) -> io::Result<()> {
    let connected = connect(port, vhost);
    ready.wait();
    let mut stream = connected?;
    let mut chunk = vec![0; 64 * 1024];
    let count = ends.len() - 1;
    let (mut sent, mut receipted) = (0, 0);
    while receipted < count {
        let next = (receipted + window).min(count);
        if next > sent {
            stream.write_all(&bytes[ends[sent]..ends[next]])?;
            sent = next;
        }
        receipted += receipts(&mut stream, &mut chunk)?;
    }
    Ok(())
}

fn connect(port: &str, vhost: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}"))?;
    stream.set_nodelay(true)?;
    let mut chunk = vec![0; 64 * 1024];
    stream.write_all(&frames::connect(vhost))?;
    if receipts(&mut stream, &mut chunk)? == 0 || !chunk.starts_with(b"CONNECTED") {
        return Err(io::Error::other("the broker did not answer CONNECTED"));
    }
    Ok(stream)
}

/// All frames one after the other, and where each ends (the first "ends" at 0).
fn encode(count: usize) -> (Vec<u8>, Vec<usize>) {
    let body = frames::body();
    let (mut bytes, mut ends) = (Vec::new(), vec![0]);
    for number in 0..count {
        bytes.extend(frames::send(number, &body));
        ends.push(bytes.len());
    }
    (bytes, ends)
}

/// Waits for something from the broker; gives how many frames ended in it.
fn receipts(stream: &mut TcpStream, chunk: &mut [u8]) -> io::Result<usize> {
    let count = stream.read(chunk)?;
    if count == 0 {
        return Err(io::Error::other("the broker closed the connection"));
    }
    if chunk[..count].windows(6).any(|bytes| bytes == b"ERROR\n") {
        return Err(io::Error::other(String::from_utf8_lossy(&chunk[..count]).into_owned()));
    }
    Ok(chunk[..count].iter().filter(|byte| **byte == 0).count())
}
