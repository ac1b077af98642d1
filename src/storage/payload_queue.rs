//! A payload queue that grows: the inbox and the outbox of a room.

use crate::event::MessagePayload;
use alloc::{collections::VecDeque, string::String, vec::Vec};

/// A FIFO queue of payloads with headers.
///
/// Payloads are concatenated in two buffers, one for texts and one for bytes (so that a text is
/// checked to be UTF-8 once, when it is pushed). The buffers are kept: once they have grown to what a
/// room needs, nothing is allocated any more.
#[derive(Clone, Debug)]
pub(crate) struct PayloadQueue<H> {
    entries: VecDeque<Entry<H>>,
    texts: String,
    /// The offset of the first queued text; what lies before it was popped.
    texts_start: usize,
    bytes: Vec<u8>,
    /// The same for bytes.
    bytes_start: usize,
}

#[derive(Clone, Debug)]
struct Entry<H> {
    header: H,
    is_text: bool,
    len: usize,
}

impl<H> Default for PayloadQueue<H> {
    fn default() -> Self {
        Self::new()
    }
}

impl<H> PayloadQueue<H> {
    pub(crate) const fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            texts: String::new(),
            texts_start: 0,
            bytes: Vec::new(),
            bytes_start: 0,
        }
    }
}

impl<H: Copy> PayloadQueue<H> {
    pub(crate) fn push(&mut self, header: H, payload: MessagePayload<'_>) {
        self.reclaim(payload.len());
        match payload {
            MessagePayload::Text(text) => self.texts.push_str(text),
            MessagePayload::Bytes(bytes) => self.bytes.extend_from_slice(bytes),
        }
        let is_text = matches!(payload, MessagePayload::Text(_));
        self.entries.push_back(Entry {
            header,
            is_text,
            len: payload.len(),
        });
    }

    /// Puts an entry before all others. Only an empty queue takes one with a payload.
    pub(crate) fn push_first(&mut self, header: H, payload: MessagePayload<'_>) {
        if self.is_empty() {
            self.push(header, payload);
        } else {
            debug_assert!(
                payload.is_empty(),
                "payloads are stored in the order of the entries"
            );
            self.entries.push_front(Entry {
                header,
                is_text: false,
                len: 0,
            });
        }
    }

    pub(crate) fn front(&self) -> Option<(H, MessagePayload<'_>)> {
        let entry = self.entries.front()?;
        Some((
            entry.header,
            self.payload(entry, self.texts_start, self.bytes_start),
        ))
    }

    /// Takes the first entry. Its payload is readable until the next push.
    pub(crate) fn pop(&mut self) -> Option<(H, MessagePayload<'_>)> {
        let entry = self.entries.pop_front()?;
        let payload = match entry.is_text {
            true => {
                let start = self.texts_start;
                self.texts_start += entry.len;
                MessagePayload::Text(&self.texts[start..self.texts_start])
            }
            false => {
                let start = self.bytes_start;
                self.bytes_start += entry.len;
                MessagePayload::Bytes(&self.bytes[start..self.bytes_start])
            }
        };
        Some((entry.header, payload))
    }

    /// Drops the first entry, if there is one, and returns its header.
    pub(crate) fn drop_front(&mut self) -> Option<H> {
        self.take_front().map(|entry| entry.header)
    }

    fn take_front(&mut self) -> Option<Entry<H>> {
        let entry = self.entries.pop_front()?;
        match entry.is_text {
            true => self.texts_start += entry.len,
            false => self.bytes_start += entry.len,
        }
        Some(entry)
    }

    /// All headers, in order.
    pub(crate) fn headers(&self) -> impl DoubleEndedIterator<Item = H> {
        self.entries.iter().map(|entry| entry.header)
    }

    /// All entries, in order.
    #[cfg(feature = "snapshot")]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (H, MessagePayload<'_>)> {
        let (mut texts, mut bytes) = (self.texts_start, self.bytes_start);
        self.entries.iter().map(move |entry| {
            let payload = self.payload(entry, texts, bytes);
            match entry.is_text {
                true => texts += entry.len,
                false => bytes += entry.len,
            }
            (entry.header, payload)
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The length of all payloads in bytes.
    pub(crate) fn payload_bytes(&self) -> usize {
        self.texts.len() - self.texts_start + self.bytes.len() - self.bytes_start
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.reclaim(0);
    }

    fn payload(&self, entry: &Entry<H>, texts: usize, bytes: usize) -> MessagePayload<'_> {
        match entry.is_text {
            true => MessagePayload::Text(&self.texts[texts..texts + entry.len]),
            false => MessagePayload::Bytes(&self.bytes[bytes..bytes + entry.len]),
        }
    }

    /// Reclaims the space of popped payloads before `more` bytes are pushed.
    fn reclaim(&mut self, more: usize) {
        if self.entries.is_empty() {
            self.texts.clear();
            self.bytes.clear();
            (self.texts_start, self.bytes_start) = (0, 0);
            return;
        }
        // Moving the rest to the front is amortised: it never costs more than what was popped.
        if self.texts.len() + more > self.texts.capacity()
            && self.texts_start * 2 >= self.texts.len()
        {
            self.texts.drain(..self.texts_start);
            self.texts_start = 0;
        }
        if self.bytes.len() + more > self.bytes.capacity()
            && self.bytes_start * 2 >= self.bytes.len()
        {
            self.bytes.drain(..self.bytes_start);
            self.bytes_start = 0;
        }
    }
}
