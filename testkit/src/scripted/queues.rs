//! What clients have sent and the broker has not read yet, as the kernel knows it.

use std::fs;
use std::time::Duration;

use super::ScriptedBroker;
use crate::wait::until;

impl ScriptedBroker {
    /// Waits until everything that clients have written so far is read and counted, also what stands in a
    /// client's own socket. Clients that write on are waited for, so they should stand still.
    #[track_caller]
    pub fn await_all_read(&self, timeout: Duration) {
        // Bytes go from a client's socket into the broker's and out of it; so in this order nothing slips
        // past. The kernel lists sockets one by one: each question needs a list of its own.
        until(timeout, "the clients' sockets to be empty", || self.queued(Side::Client) == 0);
        until(timeout, "the broker's sockets to be empty", || self.queued(Side::Broker) == 0);
        // Held from before a read until what it brought is counted.
        drop(self.shared.turn.write());
    }

    /// Bytes in the sockets at this end of the broker's connections.
    fn queued(&self, side: Side) -> u64 {
        let sockets = fs::read_to_string("/proc/net/tcp").expect("Linux has it");
        sockets.lines().skip(1).filter_map(|line| queued_of(line, self.port, side)).sum()
    }
}

#[derive(Clone, Copy)]
enum Side {
    /// What is not acknowledged.
    Client,
    /// What is not read.
    Broker,
}

/// `  n: LOCAL:PORT REMOTE:PORT STATE TX:RX ...`, all in hexadecimal digits.
fn queued_of(line: &str, port: u16, side: Side) -> Option<u64> {
    const LISTENS: &str = "0A";
    let mut fields = line.split_whitespace().skip(1);
    let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
    let (sent, received) = fields.next()?.split_once(':')?;
    let (address, bytes) = match side {
        Side::Client => (remote, sent),
        Side::Broker => (local, received),
    };
    let (_, its) = address.split_once(':')?;
    let is_it = u16::from_str_radix(its, 16) == Ok(port) && state != LISTENS;
    is_it.then(|| u64::from_str_radix(bytes, 16).ok())?
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpStream;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn what_was_written_is_counted_when_all_is_read() {
        let broker = ScriptedBroker::builder().count_only().start();
        let mut client = TcpStream::connect(broker.address()).unwrap();
        client.write_all(b"CONNECT\naccept-version:1.2\nhost:/\n\n\0").unwrap();
        until(LONG, "a connection", || broker.connections() == 1);
        let message = [b"SEND\ndestination:/queue/q\n\n".as_slice(), &[b'x'; 1000], b"\0"].concat();
        let mut sent = 0;
        for _ in 0..50 {
            broker.freeze();
            for _ in 0..100 {
                client.write_all(&message).unwrap();
            }
            sent += 100;
            broker.thaw();
            broker.await_all_read(LONG);
            assert_eq!(broker.sends(), sent);
        }
    }
}
