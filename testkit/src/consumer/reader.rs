//! The reader's thread: it connects, subscribes, reads and acknowledges.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::{Ack, Builder, Message, READ_TIMEOUT, Shared};
use crate::stomp::{Frame, Parser};

/// Artemis closes a connection that has said nothing for a minute, also where no heart-beats are agreed on.
const BEAT: Duration = Duration::from_secs(10);

impl Builder {
    pub(super) fn read_on(mut self, shared: &Shared) {
        while !shared.ended() {
            let why = match self.session(shared) {
                Ok(()) => return,
                Err(why) => why,
            };
            if !self.reconnect {
                shared.lock().failure = Some(why);
                shared.changed.notify_all();
                return;
            }
            std::thread::sleep(READ_TIMEOUT);
        }
    }

    /// Reads until told to end (`Ok`) or until the connection fails.
    fn session(&mut self, shared: &Shared) -> Result<(), String> {
        let mut link = Link::connect(self.port)?;
        let (user, passcode) = &self.login;
        let headers = [
            ("accept-version", "1.2"),
            ("host", &self.vhost),
            ("login", user),
            ("passcode", passcode),
            ("heart-beat", "0,0"),
        ];
        link.write(&Frame::new("CONNECT", &headers).encode())?;
        for (number, destination) in self.destinations.iter().enumerate() {
            link.write(&self.subscription(number, destination).encode())?;
        }
        let last = (self.destinations.len() - 1).to_string();
        let mut beat = Instant::now();
        while !shared.ended() {
            let mut acks = Vec::new();
            while let Some(raw) = link.parser.next()? {
                let frame = raw.decode()?;
                match frame.command.as_str() {
                    "MESSAGE" => {
                        self.acknowledge(&frame, &mut acks);
                        self.keep(Message::of(frame), shared);
                    }
                    "RECEIPT" if frame.header("receipt-id") == Some(&last) => {
                        shared.lock().subscribed = true;
                        shared.changed.notify_all();
                    }
                    "ERROR" => return Err(format!("the broker said {frame:?}")),
                    _ => {}
                }
            }
            if beat.elapsed() > BEAT {
                acks.push(b'\n');
                beat = Instant::now();
            }
            link.write(&acks)?;
            link.read()?;
        }
        link.write(&Frame::new("DISCONNECT", &[]).encode())
    }

    fn subscription(&self, number: usize, destination: &str) -> Frame {
        let number = number.to_string();
        let mut frame = Frame::new(
            "SUBSCRIBE",
            &[
                ("id", &number),
                ("destination", destination),
                ("ack", self.ack.mode()),
                ("receipt", &number),
            ],
        );
        frame.headers.extend_from_slice(&self.headers);
        let told = |name| frame.header(name).is_some();
        if self.ack != Ack::Auto && !told("prefetch-count") && !told("consumer-window-size") {
            frame.headers.push(("prefetch-count".to_owned(), "1000".to_owned()));
        }
        frame
    }

    fn acknowledge(&self, frame: &Frame, acks: &mut Vec<u8>) {
        let Some(id) = frame.header("ack") else { return };
        match self.ack {
            Ack::Auto => return,
            // One ACK covers those before it.
            Ack::Client => acks.clear(),
            Ack::ClientIndividual => {}
        }
        acks.extend(Frame::new("ACK", &[("id", id)]).encode());
    }

    fn keep(&mut self, message: Message, shared: &Shared) {
        let mut state = shared.lock();
        state.count += 1;
        match &mut self.each {
            Some(each) => {
                drop(state);
                each(message);
            }
            None => state.messages.push(message),
        }
        shared.changed.notify_all();
    }
}

struct Link {
    stream: TcpStream,
    parser: Parser,
    chunk: Vec<u8>,
}

impl Link {
    fn connect(port: u16) -> Result<Self, String> {
        let stream = TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(READ_TIMEOUT)).map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        Ok(Self { stream, parser: Parser::default(), chunk: vec![0; 256 * 1024] })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.stream.write_all(bytes).map_err(|error| error.to_string())
    }

    fn read(&mut self) -> Result<(), String> {
        match self.stream.read(&mut self.chunk) {
            Ok(0) => Err("the broker closed the connection".to_owned()),
            Ok(count) => {
                self.parser.push(&self.chunk[..count]);
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    }
}
