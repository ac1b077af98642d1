//! The bounded queue of what is sent to one client, already encoded.

use bytes::{Buf, BufMut, BytesMut};
use stateroom_wasmi_host::MessagePayload;
use std::{
    cell::Cell,
    io::{self, Write},
    rc::Rc,
};
use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Data, OpCode},
};

/// How much may be queued for one client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueLimits {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

/// Frames that wait until the client takes them. Written to, it takes encoded frames, whole ones
/// each time.
#[derive(Debug)]
pub(crate) struct SendQueue {
    frames: BytesMut,
    /// How many of them wait, the one that was sent in part included.
    count: usize,
    /// Where in `frames` the first frame begins of which nothing was sent.
    unsent_at: usize,
    limits: QueueLimits,
    /// Bytes in all queues of the worker.
    total: Rc<Cell<usize>>,
}

/// The queue has no space for a message.
#[derive(Debug)]
pub(crate) struct QueueFull;

impl SendQueue {
    pub(crate) fn new(limits: QueueLimits, total: Rc<Cell<usize>>) -> Self {
        Self {
            frames: BytesMut::new(),
            count: 0,
            unsent_at: 0,
            limits,
            total,
        }
    }

    /// Queues a message, in a frame of its own. Into an empty queue, any length may.
    pub(crate) fn push(&mut self, payload: MessagePayload<'_>) -> Result<(), QueueFull> {
        let bytes = payload.as_bytes();
        let fits = self.count < self.limits.messages
            && self.frames.len().saturating_add(bytes.len()) <= self.limits.bytes;
        if !fits && !self.is_empty() {
            return Err(QueueFull);
        }
        let header = FrameHeader {
            opcode: OpCode::Data(match payload {
                MessagePayload::Text(_) => Data::Text,
                MessagePayload::Bytes(_) => Data::Binary,
            }),
            ..FrameHeader::default()
        };
        let before = self.frames.len();
        self.frames
            .reserve(header.len(bytes.len() as u64) + bytes.len());
        // Writing to memory does not fail.
        let _ = header.format(bytes.len() as u64, &mut (&mut self.frames).writer());
        self.frames.extend_from_slice(bytes);
        self.count += 1;
        self.total
            .set(self.total.get() + self.frames.len() - before);
        Ok(())
    }

    /// The bytes to send next; empty if nothing is queued.
    pub(crate) fn unsent(&self) -> &[u8] {
        &self.frames
    }

    /// Removes bytes that were sent.
    pub(crate) fn sent(&mut self, bytes: usize) {
        /// What an empty queue keeps of its buffer.
        const KEPT_BYTES: usize = 1 << 10;
        while self.unsent_at < bytes {
            self.skip_frame();
        }
        self.unsent_at -= bytes;
        self.total.set(self.total.get() - bytes);
        self.frames.advance(bytes);
        if self.frames.is_empty() {
            self.count = 0;
            if self.frames.capacity() > KEPT_BYTES {
                self.frames = BytesMut::new();
            }
        }
    }

    /// Discards all frames but one that was sent in part.
    pub(crate) fn discard_unsent(&mut self) {
        self.total
            .set(self.total.get() - (self.frames.len() - self.unsent_at));
        // A copy, so that the rest is freed.
        self.frames = BytesMut::from(&self.frames[..self.unsent_at]);
        self.count = usize::from(self.unsent_at > 0);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether at most half of it is in use.
    pub(crate) fn is_below_half(&self) -> bool {
        self.count <= self.limits.messages / 2 && self.frames.len() <= self.limits.bytes / 2
    }

    /// Moves `unsent_at` behind the frame that begins there.
    fn skip_frame(&mut self) {
        let mut frames = io::Cursor::new(&self.frames[self.unsent_at..]);
        let bytes = match FrameHeader::parse(&mut frames) {
            Ok(Some((header, payload))) => header.len(payload) + payload as usize,
            // The queue has whole frames only.
            _ => self.frames.len() - self.unsent_at,
        };
        self.unsent_at += bytes;
        self.count = self.count.saturating_sub(1);
    }
}

/// Takes control frames, which are bounded by what is read from the client.
impl Write for SendQueue {
    fn write(&mut self, frames: &[u8]) -> io::Result<usize> {
        self.frames.extend_from_slice(frames);
        self.count += 1;
        self.total.set(self.total.get() + frames.len());
        Ok(frames.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for SendQueue {
    fn drop(&mut self) {
        self.total.set(self.total.get() - self.frames.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(messages: usize, bytes: usize) -> (SendQueue, Rc<Cell<usize>>) {
        let total = Rc::new(Cell::new(0));
        (
            SendQueue::new(QueueLimits { messages, bytes }, total.clone()),
            total,
        )
    }

    #[test]
    fn messages_are_frames() {
        let (mut queue, total) = queue(10, 1 << 20);
        queue.push("hi".into()).expect("space");
        queue.push((&[1; 126]).into()).expect("space");
        queue.push((&[2; 65_536]).into()).expect("space");
        let mut expected = b"\x81\x02hi\x82\x7e\x00\x7e".to_vec();
        expected.extend([1; 126]);
        expected.extend(b"\x82\x7f\0\0\0\0\0\x01\0\0");
        expected.extend([2; 65_536]);
        assert_eq!(queue.unsent(), expected);
        assert_eq!(total.get(), expected.len());
        drop(queue);
        assert_eq!(total.get(), 0);
    }

    #[test]
    fn what_was_sent_in_part_is_sent_whole() {
        for sent in 0..=8 {
            let (mut queue, total) = queue(10, 100);
            queue.push("ab".into()).expect("space");
            queue.push("cd".into()).expect("space");
            queue.sent(sent);
            queue.discard_unsent();
            // To the end of the frame in which the last byte was.
            assert_eq!((sent + queue.len()) % 4, 0, "{sent}");
            assert!(queue.len() < 4, "{sent}");
            assert_eq!(total.get(), queue.len());
        }
    }

    #[test]
    fn messages_and_bytes_are_limited_unless_the_queue_is_empty() {
        let (mut few, _) = queue(2, 1000);
        assert!(few.push("a".into()).is_ok());
        assert!(few.is_below_half());
        assert!(few.push("b".into()).is_ok());
        assert!(!few.is_below_half());
        assert!(few.push("c".into()).is_err());
        few.sent(3);
        assert!(few.push("c".into()).is_ok());

        let (mut short, _) = queue(100, 10);
        assert!(short.push((&[0; 50]).into()).is_ok());
        assert!(short.push("a".into()).is_err());
        short.sent(52);
        assert!(short.is_empty() && short.is_below_half());
        assert!(short.push("a".into()).is_ok());
    }
}
