//! A message: what a SEND frame needs, not yet encoded.

use std::fmt;

use bytes::Bytes;

use super::unfit::UnfitReason;

/// The most that a SEND frame has besides destination, headers, body and id, in bytes: the words
/// and numbers that the encoder and the broker profiles add. See [`Message::frame_len`].
const FRAME: usize = "SEND\ndestination:\n\n\0".len()
    // A SEND has a receipt or a transaction, so the longer one counts.
    + "transaction:\n".len() + NUMBER
    + "content-length:\n".len() + NUMBER
    // Artemis; RabbitMQ's `amqp-message-id` is shorter than its two.
    + "_AMQ_DUPL_ID:\ndestination-type:MULTICAST\n".len();
/// Decimal digits of the largest `u64`.
const NUMBER: usize = 20;
/// Bytes of one header's two ends in the table of a message.
const SPAN: usize = 8;

/// A message, in one allocation. Cloning it is cheap.
///
/// The allocation holds the id, the destination, the ordering key and the headers' names and
/// values one after the other, then a table of where each name and value ends, then the body.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    pub(super) data: Bytes,
    pub(super) id_end: u32,
    pub(super) destination_end: u32,
    pub(super) key_end: u32,
    pub(super) text_end: u32,
    pub(super) body_start: u32,
    pub(super) key_hash: u64,
    pub(super) frame_len: usize,
    pub(super) table: Option<TableId>,
    /// Why it can't be sent, and whether its body is all there.
    pub(super) unfit: Option<Box<(String, bool)>>,
}

/// Where a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TableId {
    /// The place of its table among [`Settings::tables`](super::Settings::tables).
    pub place: u16,
    /// The table's oid: one of the same name may be another.
    pub oid: u32,
}

impl Message {
    /// The message id, never empty.
    #[must_use]
    pub fn id(&self) -> &str {
        self.text().get(..self.id_end as usize).unwrap_or_default()
    }

    /// The destination, never empty.
    #[must_use]
    pub fn destination(&self) -> &str {
        let range = self.id_end as usize..self.destination_end as usize;
        self.text().get(range).unwrap_or_default()
    }

    /// The ordering key; empty where the row has none and the destination serves.
    #[must_use]
    pub fn key(&self) -> &str {
        let range = self.destination_end as usize..self.key_end as usize;
        self.text().get(range).unwrap_or_default()
    }

    /// The hash of the ordering key (FNV-1a; the destination's where the key is empty): messages
    /// of one key share a lane.
    #[must_use]
    pub fn key_hash(&self) -> u64 {
        self.key_hash
    }

    /// The table that its row is in; none: it has no row in an outbox table.
    #[must_use]
    pub fn table(&self) -> Option<TableId> {
        self.table
    }

    /// The headers in the order in which they are sent, each name once, `content-type` first.
    /// `destination`, `receipt` or `transaction`, and `content-length` are the encoder's.
    #[must_use]
    pub fn headers(&self) -> Headers<'_> {
        let table = self.data.get(self.text_end as usize..self.body_start as usize);
        Headers { text: self.text(), from: self.key_end as usize, table: table.unwrap_or_default() }
    }

    /// The value of the header `name`.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers().find(|&(known, _)| known == name).map(|(_, value)| value)
    }

    /// The body. It shares the message's allocation and keeps it alive; the first call allocates
    /// the count of its users. For small bodies [`Message::body_slice`] is cheaper.
    #[must_use]
    pub fn body(&self) -> Bytes {
        self.data.slice(self.body_start as usize..)
    }

    /// The body, to be copied.
    #[must_use]
    pub fn body_slice(&self) -> &[u8] {
        self.data.get(self.body_start as usize..).unwrap_or_default()
    }

    /// Bytes of memory that the message occupies.
    #[must_use]
    pub fn size(&self) -> usize {
        self.data.len() + size_of::<Message>()
    }

    /// An upper bound of the SEND frame's length in bytes, encoded by STOMP 1.2, with a `receipt`
    /// or `transaction`, `content-length` and what the profile of a broker adds to it
    /// (`amqp-message-id`; `_AMQ_DUPL_ID` and `destination-type`).
    #[must_use]
    pub fn frame_len(&self) -> usize {
        self.frame_len
    }

    fn text(&self) -> &str {
        // It was put together from texts, so it is UTF-8.
        let text = self.data.get(..self.text_end as usize).unwrap_or_default();
        std::str::from_utf8(text).unwrap_or_default()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("id", &self.id())
            .field("destination", &self.destination())
            .field("body_len", &self.body_slice().len())
            .finish_non_exhaustive()
    }
}

/// The headers of a [`Message`].
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    text: &'a str,
    from: usize,
    table: &'a [u8],
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let (span, rest) = self.table.split_first_chunk::<SPAN>()?;
        let [a, b, c, d, e, f, g, h] = *span;
        let name_end = u32::from_le_bytes([a, b, c, d]) as usize;
        let value_end = u32::from_le_bytes([e, f, g, h]) as usize;
        let header = (self.text.get(self.from..name_end)?, self.text.get(name_end..value_end)?);
        (self.from, self.table) = (value_end, rest);
        Some(header)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.table.len() / SPAN;
        (left, Some(left))
    }
}

/// A message in the making. One is used for every row, so that only the result allocates.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// Id, destination, key and headers, as in [`Message`].
    pub(super) text: String,
    pub(super) spans: Vec<(usize, usize)>,
    pub(super) id_end: usize,
    pub(super) destination_end: usize,
    pub(super) key_end: usize,
}

/// The body of a message in the making.
#[derive(Clone, Copy, Debug)]
pub(super) enum Body<'a> {
    /// Sent as it is.
    Raw(&'a [u8]),
    /// A `bytea` in hex format: `\x` and two digits a byte; and the column that holds it.
    Hex(&'a [u8], &'a str),
}

impl Draft {
    /// Begins a message.
    pub(super) fn start(&mut self, id: &str) {
        self.text.clear();
        self.spans.clear();
        self.text.push_str(id);
        (self.id_end, self.destination_end, self.key_end) = (id.len(), id.len(), id.len());
    }

    /// What was pushed to `text` since the start is the destination.
    pub(super) fn end_destination(&mut self) -> &str {
        self.destination_end = self.text.len();
        &self.text[self.id_end..]
    }

    /// What was pushed to `text` since the destination is the ordering key. Gives the text by
    /// which the message is ordered.
    pub(super) fn end_key(&mut self) -> &str {
        self.key_end = self.text.len();
        if self.key_end > self.destination_end {
            &self.text[self.destination_end..]
        } else {
            &self.text[self.id_end..self.destination_end]
        }
    }

    /// Appends a header.
    pub(super) fn header(&mut self, name: &str, value: &str) {
        self.header_with(name, true, |text| text.push_str(value));
    }

    /// Appends a header with the destination as its value.
    pub(super) fn header_destination(&mut self, name: &str) {
        let range = self.id_end..self.destination_end;
        self.header_with(name, true, |text| text.extend_from_within(range));
    }

    /// Appends a header whose value is what `push` appends; where that is nothing and `empty` is
    /// false, there is no header.
    pub(super) fn header_with(&mut self, name: &str, empty: bool, push: impl FnOnce(&mut String)) {
        let before = self.text.len();
        self.text.push_str(name);
        let name_end = self.text.len();
        push(&mut self.text);
        if !empty && self.text.len() == name_end {
            self.text.truncate(before);
        } else {
            self.spans.push((name_end, self.text.len()));
        }
    }

    /// Bytes that the message has without its body.
    pub(super) fn head_len(&self) -> usize {
        self.text.len() + self.spans.len() * SPAN
    }

    /// The message, if it is one that can be sent in a frame of at most `max` bytes.
    pub(super) fn finish(
        &self,
        key_hash: u64,
        table: Option<TableId>,
        body: Body<'_>,
        max: usize,
    ) -> Result<Message, UnfitReason> {
        self.check_nul()?;
        let frame_len = self.frame_len(body.len());
        let len = self.head_len() + body.len();
        // Ends are kept in 32 bits.
        let max = max.min(u32::MAX as usize);
        if frame_len.max(len) > max {
            return Err(UnfitReason::TooLarge { frame_len, max });
        }
        // `len` fits, so every end does.
        let end = |end: usize| end as u32;
        let mut data = Vec::with_capacity(len);
        data.extend_from_slice(self.text.as_bytes());
        for &(name_end, value_end) in &self.spans {
            data.extend_from_slice(&end(name_end).to_le_bytes());
            data.extend_from_slice(&end(value_end).to_le_bytes());
        }
        body.write(&mut data)?;
        Ok(Message {
            // As long as its capacity: no second allocation.
            data: Bytes::from(data),
            id_end: end(self.id_end),
            destination_end: end(self.destination_end),
            key_end: end(self.key_end),
            text_end: end(self.text.len()),
            body_start: end(self.head_len()),
            key_hash,
            frame_len,
            table,
            unfit: None,
        })
    }

    /// See [`Message::frame_len`].
    fn frame_len(&self, body_len: usize) -> usize {
        let (id, rest) = self.text.as_bytes().split_at(self.id_end);
        let destination = &rest[..self.destination_end - self.id_end];
        let headers = &self.text.as_bytes()[self.key_end..];
        // A colon and a line feed each.
        let marks = 2 * self.spans.len();
        FRAME + escaped(id) + escaped(destination) + escaped(headers) + marks + body_len
    }

    /// No header can carry a NUL.
    fn check_nul(&self) -> Result<(), UnfitReason> {
        let Some(at) = memchr::memchr(0, self.text.as_bytes()) else { return Ok(()) };
        let what = match at {
            at if at < self.id_end => "id",
            at if at < self.destination_end => "destination",
            at if at < self.key_end => "key",
            at => {
                let mut from = self.key_end;
                for &(name_end, value_end) in &self.spans {
                    if at < value_end {
                        let name = self.text[from..name_end].to_owned();
                        return Err(UnfitReason::Header { name });
                    }
                    from = value_end;
                }
                "headers"
            }
        };
        Err(UnfitReason::Nul { what })
    }
}

impl Body<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Body::Raw(bytes) => bytes.len(),
            Body::Hex(text, _) => (text.len() / 2).saturating_sub(1),
        }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) -> Result<(), UnfitReason> {
        match self {
            Body::Raw(bytes) => out.extend_from_slice(bytes),
            Body::Hex(text, column) => {
                let malformed = || UnfitReason::Bytea { column: (*column).to_owned() };
                let digits = text.strip_prefix(b"\\x").ok_or_else(malformed)?;
                let (pairs, rest) = digits.as_chunks::<2>();
                let mut seen = if rest.is_empty() { 0 } else { NO_DIGIT };
                out.extend(pairs.iter().map(|&[high, low]| {
                    let (high, low) = (NIBBLES[usize::from(high)], NIBBLES[usize::from(low)]);
                    seen |= high | low;
                    high << 4 | low & 0x0F
                }));
                if seen & NO_DIGIT != 0 {
                    return Err(malformed());
                }
            }
        }
        Ok(())
    }
}

/// Marks what is no digit in [`NIBBLES`].
const NO_DIGIT: u8 = 0x80;

/// The value of each hexadecimal digit.
const NIBBLES: [u8; 256] = {
    let mut table = [NO_DIGIT; 256];
    let mut digit = 0;
    while digit < 16 {
        table[b"0123456789abcdef"[digit] as usize] = digit as u8;
        table[b"0123456789ABCDEF"[digit] as usize] = digit as u8;
        digit += 1;
    }
    table
};

/// Bytes of a text when escaped by STOMP 1.2: a backslash, a colon and the ends of a line become
/// two.
fn escaped(text: &[u8]) -> usize {
    let special = |byte: &u8| u8::from(matches!(byte, b'\\' | b':' | b'\r' | b'\n'));
    // Counting in bytes, as far as they go, makes the compiler take many at a time.
    let count = |chunk: &[u8]| usize::from(chunk.iter().map(special).sum::<u8>());
    text.len() + text.chunks(128).map(count).sum::<usize>()
}
