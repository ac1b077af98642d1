//! Messages that were sent and not acknowledged.

use alloc::collections::VecDeque;
use core::fmt;

/// Messages of one direction that the other end may not have received. They are counted from 1, from the
/// beginning of the session.
#[derive(Clone, Debug)]
pub struct Window<M> {
    messages: VecDeque<M>,
    bytes: usize,
    /// The number of the last message.
    last: u64,
}

/// A count that cannot be: of messages that were never sent, or fewer than were acknowledged before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidCount;

impl fmt::Display for InvalidCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the count of received messages cannot be")
    }
}

impl core::error::Error for InvalidCount {}

/// There are as many messages, or bytes of them, as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowFull;

impl fmt::Display for WindowFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too much was not acknowledged")
    }
}

impl core::error::Error for WindowFull {}

impl<M> Default for Window<M> {
    fn default() -> Self {
        Self::continuing(0)
    }
}

impl<M> Window<M> {
    /// The window of a session in which so many messages were sent and acknowledged.
    #[must_use]
    pub const fn continuing(acknowledged: u64) -> Self {
        Self {
            messages: VecDeque::new(),
            bytes: 0,
            last: acknowledged,
        }
    }

    /// The number of the last message.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// How many messages were acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.last - self.messages.len() as u64
    }

    /// Messages that were not acknowledged, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &M> + ExactSizeIterator {
        self.messages.iter()
    }

    /// How many messages were not acknowledged.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether all messages were acknowledged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Bytes of the messages that were not acknowledged.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl<M: AsRef<[u8]>> Window<M> {
    /// Adds a message, which is the next.
    ///
    /// # Errors
    ///
    /// If there would be more messages or bytes than this; but one message is taken in any case.
    pub fn push(
        &mut self,
        message: M,
        max_messages: usize,
        max_bytes: usize,
    ) -> Result<(), WindowFull> {
        let bytes = message.as_ref().len();
        let fits = self.messages.len() < max_messages && self.bytes + bytes <= max_bytes;
        if !fits && !self.messages.is_empty() {
            return Err(WindowFull);
        }
        self.messages.push_back(message);
        self.bytes += bytes;
        self.last += 1;
        Ok(())
    }

    /// The other end has received so many messages since the beginning: they are forgotten.
    ///
    /// # Errors
    ///
    /// If there were not so many, or it has acknowledged more before; then nothing has happened.
    pub fn acknowledge(&mut self, received: u64) -> Result<(), InvalidCount> {
        if received > self.last || received < self.acknowledged() {
            return Err(InvalidCount);
        }
        while self.acknowledged() < received {
            if let Some(message) = self.messages.pop_front() {
                self.bytes -= message.as_ref().len();
            }
        }
        Ok(())
    }
}
