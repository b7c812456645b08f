//! Messages that are kept in a table: made anew from what was kept, and what of an unfit row can be.

use bytes::Bytes;

use super::TableId;
use super::hash::key_hash;
use super::message::{Body, Draft, Message};
use super::unfit::UnfitReason;

impl Message {
    /// A message that was kept: with the headers as they are sent.
    ///
    /// # Errors
    /// [`UnfitReason`]: it can't be sent in a frame of `max` bytes, or not at all.
    pub fn kept(
        id: &str,
        destination: &str,
        key: &str,
        headers: &[(String, String)],
        body: &[u8],
        table: Option<TableId>,
        max: usize,
    ) -> Result<Message, UnfitReason> {
        if id.is_empty() {
            return Err(UnfitReason::NoId);
        }
        let mut draft = Draft::default();
        draft.start(id);
        draft.text.push_str(destination);
        if draft.end_destination().is_empty() {
            return Err(UnfitReason::NoDestination);
        }
        draft.text.push_str(key);
        let hash = key_hash(draft.end_key().as_bytes());
        for (name, value) in headers {
            draft.header(name, value);
        }
        draft.finish(hash, table, Body::Raw(body), max)
    }

    /// Nothing but the id of a row that could not be read as a whole, and its table.
    #[must_use]
    pub fn nothing_but(id: &str, table: Option<TableId>) -> Message {
        let mut draft = Draft::default();
        draft.start(id);
        draft.end_destination();
        draft.end_key();
        draft.salvage(table, None)
    }

    /// The message of a row that can't be sent, with the reason.
    #[must_use]
    pub fn as_unfit(self, reason: String) -> Message {
        let whole = self.unfit.as_ref().is_none_or(|unfit| unfit.1);
        Message { unfit: Some(Box::new((reason, whole))), ..self }
    }

    /// Why it can't be sent; none: it can.
    #[must_use]
    pub fn unfit(&self) -> Option<&str> {
        self.unfit.as_ref().map(|unfit| unfit.0.as_str())
    }

    /// Whether its body is all there; that of an unfit row may have been too long to be read.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.unfit.as_ref().is_none_or(|unfit| unfit.1)
    }
}

impl Draft {
    /// What there is of a message that can't be sent.
    pub(super) fn salvage(&self, table: Option<TableId>, body: Option<Body<'_>>) -> Message {
        let fits = |len: usize| u32::try_from(len).is_ok();
        let body = body.filter(|body| fits(self.head_len().saturating_add(body.len())));
        // Where not even the texts fit, the row is known by its place in the log alone.
        let empty = Draft::default();
        let of = if fits(self.head_len()) { self } else { &empty };
        let end = |end: usize| u32::try_from(end).unwrap_or(u32::MAX);
        let mut data = of.text.as_bytes().to_vec();
        for &(name_end, value_end) in &of.spans {
            data.extend_from_slice(&end(name_end).to_le_bytes());
            data.extend_from_slice(&end(value_end).to_le_bytes());
        }
        let written = body.map(|body| match body.write(&mut data) {
            Ok(()) => true,
            Err(_) => {
                data.truncate(of.head_len());
                false
            }
        });
        Message {
            data: Bytes::from(data),
            id_end: end(of.id_end),
            destination_end: end(of.destination_end),
            key_end: end(of.key_end),
            text_end: end(of.text.len()),
            body_start: end(of.head_len()),
            key_hash: 0,
            frame_len: 0,
            table,
            unfit: Some(Box::new((String::new(), written == Some(true)))),
        }
    }
}
