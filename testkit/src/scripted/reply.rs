//! What a test's hook may answer.

use std::time::Duration;

use crate::stomp::Frame;

/// What the broker does after the hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// What it would do without a hook: CONNECTED, receipts, DISCONNECT.
    Default,
    /// Nothing more.
    Taken,
}

/// The hook's answers; they are written in the order of the calls.
#[derive(Debug)]
pub struct Reply {
    pub(super) connection: usize,
    pub(super) sends: u64,
    pub(super) frames: Vec<(Duration, Vec<u8>)>,
    pub(super) close: bool,
    pub(super) stop_reading: bool,
}

impl Reply {
    pub(super) fn new(connection: usize, sends: u64) -> Self {
        Self { connection, sends, frames: Vec::new(), close: false, stop_reading: false }
    }

    /// Number of the connection, from 0.
    #[must_use]
    pub fn connection(&self) -> usize {
        self.connection
    }

    /// SENDs read on this connection, the present frame among them.
    #[must_use]
    pub fn sends(&self) -> u64 {
        self.sends
    }

    /// Sends a frame.
    pub fn frame(&mut self, frame: &Frame) {
        self.after(Duration::ZERO, frame);
    }

    /// Sends a frame later.
    pub fn after(&mut self, delay: Duration, frame: &Frame) {
        self.frames.push((delay, frame.encode()));
    }

    /// Sends any bytes.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.frames.push((Duration::ZERO, bytes.to_vec()));
    }

    /// Sends a RECEIPT.
    pub fn receipt(&mut self, id: &str) {
        self.frame(&Frame::new("RECEIPT", &[("receipt-id", id)]));
    }

    /// Sends an ERROR with a `message` header and a body, and a `receipt-id` where one is given.
    pub fn error(&mut self, message: &str, body: &str, receipt_id: Option<&str>) {
        let mut frame = Frame::new("ERROR", &[("message", message)]).with_body(body);
        if let Some(id) = receipt_id {
            frame.headers.push(("receipt-id".to_owned(), id.to_owned()));
        }
        self.frame(&frame);
    }

    /// Closes the connection after what was answered so far and is due.
    pub fn close(&mut self) {
        self.close = true;
    }

    /// Reads nothing more on this connection; heart-beats go on.
    pub fn stop_reading(&mut self) {
        self.stop_reading = true;
    }
}
