//! One connection: one thread that reads, answers and keeps its own clock.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Receipts, Received, Reply, Shared, Verdict};
use crate::stomp::{Frame, Parser, Raw};

const CHUNK: usize = 256 * 1024;
const IDLE: Duration = Duration::from_millis(20);
const SHUFFLE_PAUSE: Duration = Duration::from_millis(5);

pub(super) fn serve(stream: TcpStream, number: usize, shared: &Shared) -> Result<(), String> {
    // Fails only on a socket that is already closed; then so does the first read.
    let _ = stream.set_nodelay(true);
    Connection {
        stream,
        number,
        shared,
        out: Vec::new(),
        due: BTreeMap::new(),
        order: 0,
        group: Vec::new(),
        random: fastrand::Rng::with_seed(match shared.receipts {
            Receipts::Shuffled { seed, .. } => seed.wrapping_add(number as u64),
            _ => 0,
        }),
        next_receipt: Instant::now(),
        heartbeat: None,
        next_heartbeat: Instant::now(),
        sends: 0,
        read_timeout: Duration::ZERO,
        stop_reading: false,
        closing: false,
    }
    .run()
}

struct Connection<'a> {
    stream: TcpStream,
    number: usize,
    shared: &'a Shared,
    out: Vec<u8>,
    // Answers that wait for their time; the number keeps those of one instant in order.
    due: BTreeMap<(Instant, u64), Vec<u8>>,
    order: u64,
    // Receipts waiting to be shuffled.
    group: Vec<Vec<u8>>,
    random: fastrand::Rng,
    next_receipt: Instant,
    heartbeat: Option<Duration>,
    next_heartbeat: Instant,
    sends: u64,
    read_timeout: Duration,
    stop_reading: bool,
    closing: bool,
}

impl Connection<'_> {
    fn run(&mut self) -> Result<(), String> {
        let mut parser = Parser::default();
        let mut chunk = vec![0; CHUNK];
        loop {
            if self.shared.is(&self.shared.ended) {
                return Ok(());
            }
            if self.shared.is(&self.shared.frozen) {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            }
            if self.flush_due().is_err() || self.closing {
                return Ok(());
            }
            let held = self.sends > 0 && self.shared.is(&self.shared.alarm);
            if held || self.stop_reading {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            }
            let _turn = self.shared.turn.read();
            match self.read(&mut chunk) {
                // Closed, by the peer or by drop_connections.
                Ok(0) => return Ok(()),
                Ok(count) => {
                    parser.push(&chunk[..count]);
                    self.take_frames(&mut parser)?;
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    self.answer_group();
                }
                Err(_) => return Ok(()),
            }
        }
    }

    fn read(&mut self, chunk: &mut [u8]) -> std::io::Result<usize> {
        let now = Instant::now();
        let mut timeout = IDLE;
        if let Some(((at, _), _)) = self.due.first_key_value() {
            timeout = timeout.min(at.saturating_duration_since(now));
        }
        if self.heartbeat.is_some() {
            timeout = timeout.min(self.next_heartbeat.saturating_duration_since(now));
        }
        if !self.group.is_empty() {
            timeout = timeout.min(SHUFFLE_PAUSE);
        }
        let timeout = timeout.max(Duration::from_millis(1));
        if timeout != self.read_timeout {
            self.stream.set_read_timeout(Some(timeout))?;
            self.read_timeout = timeout;
        }
        self.stream.read(chunk)
    }

    fn take_frames(&mut self, parser: &mut Parser) -> Result<(), String> {
        let shared = self.shared;
        let plain =
            !shared.keep && shared.hook.is_none() && matches!(shared.receipts, Receipts::InOrder);
        let (mut sends, beats) = (0, parser.heartbeats);
        while let Some(raw) = parser.next()? {
            if raw.command == b"SEND" {
                sends += 1;
                self.sends += 1;
            }
            match raw {
                // The way of the benchmarks: no copy, no lock.
                Raw { command: b"SEND", receipt: Some(id), .. } if plain => {
                    receipt(&mut self.out, id)
                }
                raw => self.take_frame(&raw.decode()?),
            }
            if self.closing {
                break;
            }
        }
        shared.sends.fetch_add(sends, Ordering::AcqRel);
        shared.heartbeats.fetch_add(parser.heartbeats - beats, Ordering::AcqRel);
        Ok(())
    }

    fn take_frame(&mut self, frame: &Frame) {
        if self.shared.keep || frame.command != "SEND" {
            let received =
                Received { connection: self.number, at: Instant::now(), frame: frame.clone() };
            self.shared.lock().received.push(received);
            self.shared.changed.notify_all();
        }
        if let Some(hook) = &self.shared.hook {
            let mut reply = Reply::new(self.number, self.sends);
            let verdict = {
                let mut hook = hook.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                (*hook)(frame, &mut reply)
            };
            for (delay, bytes) in reply.frames {
                self.later(delay, bytes);
            }
            self.closing |= reply.close;
            self.stop_reading |= reply.stop_reading;
            if verdict == Verdict::Taken {
                return;
            }
        }
        self.default_answer(frame);
    }

    fn default_answer(&mut self, frame: &Frame) {
        match frame.command.as_str() {
            "CONNECT" | "STOMP" => self.connected(frame),
            "SEND" => {
                if let Some(id) = frame.header("receipt") {
                    self.answer_send(&Frame::new("RECEIPT", &[("receipt-id", id)]).encode());
                }
            }
            command => {
                if let Some(id) = frame.header("receipt") {
                    let answer = Frame::new("RECEIPT", &[("receipt-id", id)]).encode();
                    self.later(Duration::ZERO, answer);
                }
                self.closing |= command == "DISCONNECT";
            }
        }
    }

    fn connected(&mut self, connect: &Frame) {
        let (send, expect) = self.shared.heartbeat;
        let mut answer = Frame::new("CONNECTED", &[("version", &self.shared.version)]);
        answer.headers.push(("heart-beat".to_owned(), format!("{send},{expect}")));
        answer.headers.push(("session".to_owned(), format!("session-{}", self.number)));
        if !self.shared.server.is_empty() {
            answer.headers.push(("server".to_owned(), self.shared.server.clone()));
        }
        let wanted: u32 = connect
            .header("heart-beat")
            .and_then(|value| value.split_once(',')?.1.trim().parse().ok())
            .unwrap_or(0);
        if send > 0 && wanted > 0 && !self.shared.mute {
            let interval = Duration::from_millis(send.max(wanted).into()) / 2;
            self.heartbeat = Some(interval);
            self.next_heartbeat = Instant::now() + interval;
        }
        self.later(Duration::ZERO, answer.encode());
    }

    fn answer_send(&mut self, bytes: &[u8]) {
        match self.shared.receipts {
            Receipts::InOrder => self.later(Duration::ZERO, bytes.to_vec()),
            Receipts::After(delay) => self.later(delay, bytes.to_vec()),
            Receipts::PerSecond(rate) => {
                let now = Instant::now();
                self.next_receipt =
                    self.next_receipt.max(now) + Duration::from_secs(1) / rate.max(1);
                self.later(self.next_receipt - now, bytes.to_vec());
            }
            Receipts::Shuffled { window, .. } => {
                self.group.push(bytes.to_vec());
                if self.group.len() >= window {
                    self.answer_group();
                }
            }
            Receipts::Never => {}
        }
    }

    fn answer_group(&mut self) {
        let mut group = std::mem::take(&mut self.group);
        self.random.shuffle(&mut group);
        group.iter().for_each(|bytes| self.out.extend_from_slice(bytes));
    }

    fn later(&mut self, delay: Duration, bytes: Vec<u8>) {
        if delay.is_zero() {
            self.out.extend_from_slice(&bytes);
        } else {
            self.order += 1;
            self.due.insert((Instant::now() + delay, self.order), bytes);
        }
    }

    fn flush_due(&mut self) -> std::io::Result<()> {
        let now = Instant::now();
        while let Some(entry) = self.due.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let bytes = entry.remove();
            self.out.extend_from_slice(&bytes);
        }
        if let Some(interval) = self.heartbeat
            && self.next_heartbeat <= now
        {
            self.out.push(b'\n');
            self.next_heartbeat = now + interval;
        }
        if !self.out.is_empty() {
            self.stream.write_all(&self.out)?;
            self.out.clear();
        }
        Ok(())
    }
}

fn receipt(out: &mut Vec<u8>, id: &[u8]) {
    out.extend_from_slice(b"RECEIPT\nreceipt-id:");
    out.extend_from_slice(id);
    out.extend_from_slice(b"\n\n\0");
}
