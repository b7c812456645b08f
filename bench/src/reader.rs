//! The least that reads a slot: no decoding beyond counting inserts, nothing confirmed.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use walpost_testkit::Postgres;

/// A replication connection that streams.
pub struct Reader {
    stream: TcpStream,
    buffer: Vec<u8>,
    start: usize,
}

impl Reader {
    /// Starts streaming from `slot`, with walpost's options.
    ///
    /// # Errors
    /// The connection's, or PostgreSQL's words.
    pub fn start(server: &Postgres, database: &str, slot: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", server.port()))?;
        stream.set_nodelay(true)?;
        let mut reader = Reader { stream, buffer: Vec::new(), start: 0 };
        let mut startup = 196_608_u32.to_be_bytes().to_vec();
        for text in ["user", "postgres", "database", database, "replication", "database", ""] {
            startup.extend_from_slice(text.as_bytes());
            startup.push(0);
        }
        reader.write(None, &startup)?;
        while reader.message()?.0 != b'Z' {}
        let command = format!(
            "START_REPLICATION SLOT \"{slot}\" LOGICAL 0/0 \
             (proto_version '1', publication_names 'walpost', messages 'true')\0"
        );
        reader.write(Some(b'Q'), command.as_bytes())?;
        while reader.message()?.0 != b'W' {}
        Ok(reader)
    }

    /// Reads `count` inserts; gives when each was read.
    ///
    /// # Errors
    /// The connection's, or PostgreSQL's words.
    pub fn inserts(&mut self, count: usize) -> io::Result<Vec<Instant>> {
        let mut times = Vec::with_capacity(count);
        while times.len() < count {
            let (tag, body) = self.message()?;
            // CopyData, XLogData with its 24 bytes of header, Insert.
            let row = self.buffer[body.clone()].first() == Some(&b'w')
                && self.buffer[body].get(25) == Some(&b'I');
            if tag == b'd' && row {
                times.push(Instant::now());
            }
        }
        Ok(times)
    }

    /// The next message: its tag, and where its body is.
    fn message(&mut self) -> io::Result<(u8, std::ops::Range<usize>)> {
        loop {
            let pending = &self.buffer[self.start..];
            if let [tag, a, b, c, d, ..] = *pending {
                let length = u32::from_be_bytes([a, b, c, d]) as usize;
                if pending.len() > length {
                    let body = self.start + 5..self.start + 1 + length;
                    self.start = body.end;
                    if tag == b'E' {
                        let words = String::from_utf8_lossy(&self.buffer[body]).into_owned();
                        return Err(io::Error::other(words));
                    }
                    return Ok((tag, body));
                }
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            let mut chunk = [0; 64 * 1024];
            match self.stream.read(&mut chunk)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.buffer.extend_from_slice(&chunk[..count]),
            }
        }
    }

    fn write(&mut self, tag: Option<u8>, body: &[u8]) -> io::Result<()> {
        let mut bytes: Vec<u8> = tag.into_iter().collect();
        bytes.extend_from_slice(&u32::try_from(body.len() + 4).expect("short").to_be_bytes());
        bytes.extend_from_slice(body);
        self.stream.write_all(&bytes)
    }
}
