//! A payload queue of a fixed capacity.

use crate::event::MessagePayload;
use core::fmt;

/// A FIFO queue of payloads with headers, without a heap: at most `ENTRIES` entries, whose payloads
/// have at most `BYTES` bytes in total.
#[derive(Debug)]
pub struct FixedPayloadQueue<H, const ENTRIES: usize, const BYTES: usize> {
    entries: heapless::Deque<Entry<H>, ENTRIES>,
    /// The payloads, concatenated.
    bytes: heapless::Vec<u8, BYTES>,
    /// The offset of the first payload; what lies before it was popped.
    start: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry<H> {
    header: H,
    is_text: bool,
    len: usize,
}

/// Why a queue refused an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueueError {
    /// There is no space now.
    Full,
    /// The payload is longer than the capacity of the queue, so it never fits.
    TooLong {
        /// Its length in bytes.
        bytes: usize,
        /// The capacity in bytes.
        limit: usize,
    },
}

impl fmt::Display for QueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the queue is full"),
            Self::TooLong { bytes, limit } => {
                write!(
                    f,
                    "the message is {bytes} bytes long, more than the {limit} of the queue"
                )
            }
        }
    }
}

impl core::error::Error for QueueError {}

impl<H: Copy, const ENTRIES: usize, const BYTES: usize> FixedPayloadQueue<H, ENTRIES, BYTES> {
    /// An empty queue.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            entries: heapless::Deque::new(),
            bytes: heapless::Vec::new(),
            start: 0,
        }
    }

    /// Appends an entry.
    ///
    /// # Errors
    ///
    /// If there is no space; then the queue is unchanged.
    pub fn push(&mut self, header: H, payload: MessagePayload<'_>) -> Result<(), QueueError> {
        let len = payload.len();
        if len > BYTES {
            return Err(QueueError::TooLong {
                bytes: len,
                limit: BYTES,
            });
        }
        if self.entries.is_full() || self.payload_bytes() + len > BYTES {
            return Err(QueueError::Full);
        }
        if self.bytes.len() + len > BYTES {
            self.bytes.copy_within(self.start.., 0);
            self.bytes.truncate(self.payload_bytes());
            self.start = 0;
        }
        let is_text = matches!(payload, MessagePayload::Text(_));
        let pushed = self.bytes.extend_from_slice(payload.as_bytes()).is_ok()
            && self
                .entries
                .push_back(Entry {
                    header,
                    is_text,
                    len,
                })
                .is_ok();
        debug_assert!(pushed, "its length was checked");
        Ok(())
    }

    /// The first entry, which stays.
    #[must_use]
    pub fn front(&self) -> Option<(H, MessagePayload<'_>)> {
        let entry = self.entries.front()?;
        Some((entry.header, self.payload(entry, self.start)))
    }

    /// Takes the first entry.
    pub fn pop(&mut self) -> Option<(H, MessagePayload<'_>)> {
        let entry = self.entries.pop_front()?;
        let start = self.start;
        self.start += entry.len;
        Some((entry.header, self.payload(&entry, start)))
    }

    /// The number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The length of all payloads in bytes.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Drops all entries.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.bytes.clear();
        self.start = 0;
    }

    fn payload(&self, entry: &Entry<H>, start: usize) -> MessagePayload<'_> {
        let bytes = &self.bytes[start..start + entry.len];
        // Checked again, since this crate has no unsafe code; it was UTF-8 when it was pushed.
        match entry.is_text.then(|| core::str::from_utf8(bytes)) {
            Some(Ok(text)) => MessagePayload::Text(text),
            _ => MessagePayload::Bytes(bytes),
        }
    }
}

impl<H: Copy, const ENTRIES: usize, const BYTES: usize> Default
    for FixedPayloadQueue<H, ENTRIES, BYTES>
{
    fn default() -> Self {
        Self::new()
    }
}
