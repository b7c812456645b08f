//! The ceiling towards a broker: frames encoded beforehand, pipelined, each with a receipt or in transactions.
//!
//! Prints the seconds from the first byte to the last receipt.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use walpost_bench::frames;
use walpost_bench::raw::{Job, Share};

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let job = Job::parse(&arguments).map_err(io::Error::other)?;
    let ready = Barrier::new(job.connections + 1);
    let (job, barrier) = (&job, &ready);
    let started = thread::scope(|scope| {
        // One thread for each, with its share of the messages and of the window.
        let senders: Vec<_> = (0..job.connections)
            .map(|number| {
                scope.spawn(move || {
                    let (share, connected) = (job.share(number), connect(job));
                    // Whoever failed must not keep the others waiting.
                    barrier.wait();
                    send(&mut connected?, &share, job.window / job.connections)
                })
            })
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

fn send(stream: &mut TcpStream, share: &Share, window: usize) -> io::Result<()> {
    let mut chunk = vec![0; 64 * 1024];
    let (mut sent, mut receipts) = (0, 0);
    while share.proved(receipts) < share.messages() {
        let next = (share.proved(receipts) + window).min(share.messages());
        if next > sent {
            stream.write_all(share.bytes(sent, next))?;
            sent = next;
        }
        receipts += frames_in(stream, &mut chunk)?;
    }
    Ok(())
}

fn connect(job: &Job) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", job.port))?;
    stream.set_nodelay(true)?;
    let mut chunk = vec![0; 64 * 1024];
    stream.write_all(&frames::connect(&job.vhost))?;
    if frames_in(&mut stream, &mut chunk)? == 0 || !chunk.starts_with(b"CONNECTED") {
        return Err(io::Error::other("the broker did not answer CONNECTED"));
    }
    Ok(stream)
}

/// Waits for something from the broker; gives how many frames ended in it.
fn frames_in(stream: &mut TcpStream, chunk: &mut [u8]) -> io::Result<usize> {
    let count = stream.read(chunk)?;
    if count == 0 {
        return Err(io::Error::other("the broker closed the connection"));
    }
    if chunk[..count].windows(6).any(|bytes| bytes == b"ERROR\n") {
        return Err(io::Error::other(String::from_utf8_lossy(&chunk[..count]).into_owned()));
    }
    Ok(chunk[..count].iter().filter(|byte| **byte == 0).count())
}
