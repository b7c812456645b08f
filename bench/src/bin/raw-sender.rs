//! The ceiling towards a broker: frames encoded beforehand, pipelined, each with a receipt.
//!
//! `raw-sender PORT VHOST COUNT WINDOW` prints the seconds from the first byte to the last receipt.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use walpost_bench::frames;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, vhost, count, window] = arguments.as_slice() else {
        return Err(io::Error::other("raw-sender PORT VHOST COUNT WINDOW"));
    };
    let number = |text: &String| text.parse::<usize>().map_err(io::Error::other);
    let (count, window) = (number(count)?, number(window)?);
    let (bytes, ends) = encode(count);
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}"))?;
    stream.set_nodelay(true)?;
    let mut chunk = vec![0; 64 * 1024];
    stream.write_all(&frames::connect(vhost))?;
    if receipts(&mut stream, &mut chunk)? == 0 || !chunk.starts_with(b"CONNECTED") {
        return Err(io::Error::other("the broker did not answer CONNECTED"));
    }
    let started = Instant::now();
    let (mut sent, mut receipted) = (0, 0);
    while receipted < count {
        let next = (receipted + window).min(count);
        if next > sent {
            stream.write_all(&bytes[ends[sent]..ends[next]])?;
            sent = next;
        }
        receipted += receipts(&mut stream, &mut chunk)?;
    }
    println!("{}", started.elapsed().as_secs_f64());
    Ok(())
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
