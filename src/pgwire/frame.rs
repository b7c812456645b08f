//! Cuts the byte stream from the server into messages.

use bytes::{Buf, BytesMut};

/// The size of the buffer as long as no message needs more.
const READ: usize = 128 * 1024;

/// A read is offered at least this much room, so that a small rest at the end of the buffer does not
/// turn into many small reads.
const LEAST_ROOM: usize = 32 * 1024;

/// A buffer that grew for a long message shrinks after this many reads that did not need it:
/// a run of long messages keeps it, an idle connection does not.
const READS_UNTIL_SHRINK: u8 = 8;

/// Tag and length, which precede each message.
const HEADER: usize = 5;

/// The tag of CopyData.
const COPY_DATA: u8 = b'd';

/// How long a message may be; all in bytes of its body (without tag and length).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest CopyData that is handed out whole. Of a longer one the beginning is handed out,
    /// the rest is read past.
    pub copy_data: usize,
    /// The longest message of any other kind. A longer one is an error.
    pub other: usize,
    /// How much of a CopyData that is too long is kept; at most `copy_data`.
    pub kept: usize,
}

/// One message from the server, borrowed from the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The message's type byte.
    pub tag: u8,
    /// What follows its length; where it is `truncated`, the beginning of that.
    pub body: &'a [u8],
    /// The length of the whole body in bytes.
    pub len: usize,
    /// Whether `body` is not all of it: a CopyData beyond [`Limits::copy_data`].
    pub truncated: bool,
}

/// What cannot be a message of this protocol. The stream has no way to go on after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A length that does not even count itself.
    #[error("PostgreSQL message '{}' says it is {len} bytes long", tag.escape_ascii())]
    BadLength {
        /// The message's type byte.
        tag: u8,
        /// What it says.
        len: u32,
    },
    /// A message other than CopyData is longer than [`Limits::other`].
    #[error(
        "PostgreSQL message '{}' of {len} bytes is longer than {limit} (is this a PostgreSQL server?)",
        tag.escape_ascii()
    )]
    TooLong {
        /// The message's type byte.
        tag: u8,
        /// The length of its body in bytes.
        len: usize,
        /// The limit in bytes.
        limit: usize,
    },
}

/// The read buffer, and the messages in it.
///
/// The caller reads bytes into [`Frames::buffer_mut`], then takes messages with [`Frames::next`]
/// until there is none. Neither allocates nor copies for a message; the buffer is compacted when
/// its end is reached.
#[derive(Debug)]
pub struct Frames {
    limits: Limits,
    buffer: BytesMut,
    /// What `buffer` was allocated with. Its own `capacity` shrinks as its front is given up.
    allocated: usize,
    /// Where in `buffer` the next message begins; what is before has been handed out.
    start: usize,
    /// Bytes still to come of a CopyData that was too long.
    discard: usize,
    /// Reads since a buffer larger than `READ` was last needed.
    reads_unneeded: u8,
}

impl Frames {
    /// An empty buffer. `limits.kept` is taken as at most `limits.copy_data`.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let limits = Limits { kept: limits.kept.min(limits.copy_data), ..limits };
        Frames {
            limits,
            buffer: BytesMut::new(),
            allocated: 0,
            start: 0,
            discard: 0,
            reads_unneeded: 0,
        }
    }

    /// The buffer to read into, with room for one big read behind the bytes that are there.
    ///
    /// Only append to it, and take all messages out of it before asking for it again: it grows for
    /// what was not taken.
    pub fn buffer_mut(&mut self) -> &mut BytesMut {
        self.discard();
        self.buffer.advance(self.start);
        self.start = 0;
        let pending = self.buffer.len();
        let needed = self.header().map_or(0, |header| header.handed_out(&self.limits));
        let size = READ.max(needed.max(pending) + LEAST_ROOM);
        let shrink = self.is_time_to_shrink(size);
        let room = self.buffer.capacity() - pending;
        if shrink || room < LEAST_ROOM.max(needed.saturating_sub(pending)) {
            self.make_room(size, shrink);
        }
        &mut self.buffer
    }

    /// The next message; none where its bytes have not all come yet.
    ///
    /// A CopyData beyond [`Limits::copy_data`] comes as soon as [`Limits::kept`] bytes of it are there.
    ///
    /// # Errors
    /// [`FrameError`]: the connection is of no use any more.
    #[expect(clippy::should_implement_trait, reason = "an Iterator could not lend its items")]
    pub fn next(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        self.discard();
        let Some(Header { tag, len: whole }) = self.header() else { return Ok(None) };
        // The length counts itself.
        let Some(len) = (whole as usize).checked_sub(4) else {
            return Err(FrameError::BadLength { tag, len: whole });
        };
        let truncated = tag == COPY_DATA && len > self.limits.copy_data;
        if tag != COPY_DATA && len > self.limits.other {
            return Err(FrameError::TooLong { tag, len, limit: self.limits.other });
        }
        let kept = if truncated { self.limits.kept } else { len };
        let from = self.start + HEADER;
        if self.buffer.len() < from + kept {
            return Ok(None);
        }
        self.start = from + kept;
        self.discard = len - kept;
        Ok(Some(Frame { tag, body: &self.buffer[from..from + kept], len, truncated }))
    }

    /// Bytes of memory that the buffer holds.
    #[must_use]
    pub fn allocated(&self) -> usize {
        self.allocated
    }

    /// Passes over what there is of a message that was too long.
    fn discard(&mut self) {
        let there = self.discard.min(self.buffer.len() - self.start);
        self.start += there;
        self.discard -= there;
    }

    /// Tag and length of the message at `start`.
    fn header(&self) -> Option<Header> {
        let &[tag, ref len @ ..] = self.buffer[self.start..].first_chunk::<HEADER>()?;
        Some(Header { tag, len: u32::from_be_bytes(*len) })
    }

    fn is_time_to_shrink(&mut self, size: usize) -> bool {
        if size > READ || self.allocated <= READ {
            self.reads_unneeded = 0;
        } else {
            self.reads_unneeded += 1;
        }
        self.reads_unneeded >= READS_UNTIL_SHRINK
    }

    /// Moves what is pending to the front of a buffer of at least `size` bytes: the one that is there
    /// where it is large enough and nothing overlaps, else a new one.
    fn make_room(&mut self, size: usize, shrink: bool) {
        let reclaimed = !shrink && self.buffer.try_reclaim(size - self.buffer.len());
        if !reclaimed {
            let mut fresh = BytesMut::with_capacity(size);
            fresh.extend_from_slice(&self.buffer);
            self.allocated = fresh.capacity();
            self.buffer = fresh;
            self.reads_unneeded = 0;
        }
    }
}

/// Tag and length of a message, unchecked.
struct Header {
    tag: u8,
    len: u32,
}

impl Header {
    /// How many bytes of the buffer the message takes, as far as it is kept; 0 where it is none.
    fn handed_out(&self, limits: &Limits) -> usize {
        let len = (self.len as usize).saturating_sub(4);
        match self.tag {
            COPY_DATA if len > limits.copy_data => HEADER + limits.kept,
            COPY_DATA => HEADER + len,
            _ if len > limits.other => 0,
            _ => HEADER + len,
        }
    }
}

#[cfg(test)]
mod tests;
