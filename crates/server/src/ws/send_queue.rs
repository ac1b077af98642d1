//! The bounded queue of what is sent to one client, already encoded.

use crate::config::ServerConfig;
use bytes::{Buf, BufMut, BytesMut};
use stateroom_wasmi_host::MessagePayload;
use stateroom_wasmi_resume::Frame;
use std::{
    cell::Cell,
    collections::VecDeque,
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

impl QueueLimits {
    pub(crate) fn new(config: &ServerConfig) -> Self {
        Self {
            messages: config.max_queued_messages.max(1),
            bytes: config.max_queued_bytes,
        }
    }
}

/// Frames that wait until the client takes them. Written to, it takes encoded frames, whole ones
/// each time.
#[derive(Debug)]
pub(crate) struct SendQueue {
    chunks: VecDeque<Chunk>,
    /// How many bytes of the first chunk were sent.
    sent: usize,
    /// Where in the first chunk the first frame begins of which nothing was sent.
    unsent_at: usize,
    /// Bytes of all chunks that were not sent.
    bytes: usize,
    /// How many frames wait, the one that was sent in part included.
    frames: usize,
    limits: QueueLimits,
    /// Bytes in all queues of the worker.
    total: QueuedBytes,
    /// An empty buffer for the next frames.
    spare: BytesMut,
    /// Bytes that were ever queued.
    end: u64,
    /// Frames that must not be sent yet, and so all behind them: for each batch of the journal that they
    /// wait for, in order, where its first frame begins, in bytes that were ever queued.
    holds: VecDeque<Hold>,
    /// Pings and pongs that came while something was held. They are sent before that, or else nothing would be
    /// heard for as long.
    urgent: BytesMut,
    /// Whether some of them were sent, and the others are to follow.
    is_urgent_begun: bool,
}

#[derive(Clone, Copy, Debug)]
struct Hold {
    batch: u64,
    begin: u64,
}

/// The bytes in all queues of a worker, where those that several queues share count once.
pub(crate) type QueuedBytes = Rc<Cell<usize>>;

#[derive(Debug)]
enum Chunk {
    /// Some frames.
    Own(BytesMut),
    /// One frame, which other queues have, too.
    Shared(Rc<SharedFrame>),
}

/// A frame for many clients.
#[derive(Debug)]
pub(crate) struct SharedFrame {
    bytes: BytesMut,
    total: QueuedBytes,
}

/// The queue has no space for a message.
#[derive(Debug)]
pub(crate) struct QueueFull;

impl SendQueue {
    pub(crate) fn new(limits: QueueLimits, total: QueuedBytes) -> Self {
        Self {
            chunks: VecDeque::new(),
            sent: 0,
            unsent_at: 0,
            bytes: 0,
            frames: 0,
            limits,
            total,
            spare: BytesMut::new(),
            end: 0,
            holds: VecDeque::new(),
            urgent: BytesMut::new(),
            is_urgent_begun: false,
        }
    }

    /// Holds what is queued from now on until this batch, or a later one, is durable. Returns whether
    /// nothing was held for it yet.
    pub(crate) fn hold(&mut self, batch: u64) -> bool {
        let is_first = self.holds.back().is_none_or(|last| last.batch < batch);
        if is_first {
            let begin = self.end;
            self.holds.push_back(Hold { batch, begin });
        }
        is_first
    }

    /// Lets go what was held for batches up to this one.
    pub(crate) fn release(&mut self, batch: u64) {
        while self.holds.front().is_some_and(|first| first.batch <= batch) {
            self.holds.pop_front();
        }
        // What is queued from now on comes after it, as a close frame must.
        if !self.is_held() && !self.is_urgent_begun && !self.urgent.is_empty() {
            let urgent = core::mem::take(&mut self.urgent);
            self.last_own().extend_from_slice(&urgent);
            self.count_frame(urgent.len());
        }
    }

    /// Whether something is held.
    pub(crate) fn is_held(&self) -> bool {
        !self.holds.is_empty()
    }

    /// How many bytes may be sent now.
    fn sendable(&self) -> usize {
        let held = self.holds.front().map_or(0, |first| self.end - first.begin);
        self.bytes - usize::try_from(held).unwrap_or(self.bytes)
    }

    /// Whether what is urgent is sent next: between two frames, when no more may be sent.
    fn sends_urgent(&self) -> bool {
        !self.urgent.is_empty() && (self.is_urgent_begun || self.sendable() == 0)
    }

    /// Queues a message, in a frame of its own.
    pub(crate) fn push(&mut self, payload: MessagePayload<'_>) -> Result<(), QueueFull> {
        self.check_space(payload.len())?;
        self.push_encoded(payload, None);
        Ok(())
    }

    /// Queues a message of a session, whose frames say that they are messages.
    pub(crate) fn push_prefixed(&mut self, payload: MessagePayload<'_>) -> Result<(), QueueFull> {
        self.check_space(payload.len() + 1)?;
        self.push_encoded(payload, Some(Frame::MESSAGE_PREFIX));
        Ok(())
    }

    /// Queues a frame of a session that is no message. How many there are is bounded by what the client
    /// sends.
    pub(crate) fn push_control(&mut self, text: &str) {
        self.push_encoded(text.into(), None);
    }

    fn push_encoded(&mut self, payload: MessagePayload<'_>, prefix: Option<u8>) {
        let before = self.last_own().len();
        encode(payload, prefix, self.last_own());
        let added = self.last_own().len() - before;
        self.total.set(self.total.get() + added);
        self.count_frame(added);
    }

    /// Queues a message that others are sent, too.
    pub(crate) fn push_shared(&mut self, frame: &Rc<SharedFrame>) -> Result<(), QueueFull> {
        self.check_space(frame.bytes.len())?;
        self.chunks.push_back(Chunk::Shared(frame.clone()));
        self.count_frame(frame.bytes.len());
        Ok(())
    }

    /// Into an empty queue, any length may.
    fn check_space(&self, bytes: usize) -> Result<(), QueueFull> {
        let fits = self.frames < self.limits.messages
            && self.bytes.saturating_add(bytes) <= self.limits.bytes;
        if fits || self.bytes == 0 {
            Ok(())
        } else {
            Err(QueueFull)
        }
    }

    fn count_frame(&mut self, bytes: usize) {
        self.frames += 1;
        self.bytes += bytes;
        self.end += bytes as u64;
    }

    /// The buffer to which the next frame is appended.
    fn last_own(&mut self) -> &mut BytesMut {
        if !matches!(self.chunks.back(), Some(Chunk::Own(_))) {
            let spare = core::mem::take(&mut self.spare);
            self.chunks.push_back(Chunk::Own(spare));
        }
        match self.chunks.back_mut() {
            Some(Chunk::Own(bytes)) => bytes,
            _ => unreachable!("it was pushed above"),
        }
    }

    /// The bytes to send next; empty if nothing may be sent.
    pub(crate) fn unsent(&self) -> &[u8] {
        if self.sends_urgent() {
            return &self.urgent;
        }
        match self.chunks.front() {
            Some(chunk) => {
                let unsent = &chunk.bytes()[self.sent..];
                &unsent[..unsent.len().min(self.sendable())]
            }
            None => &[],
        }
    }

    /// Removes bytes that were sent, which are no more than [`unsent`](Self::unsent) returned.
    pub(crate) fn sent(&mut self, bytes: usize) {
        if self.sends_urgent() {
            self.urgent.advance(bytes);
            self.total.set(self.total.get() - bytes);
            self.is_urgent_begun = !self.urgent.is_empty();
            return;
        }
        self.sent += bytes;
        self.bytes -= bytes;
        if self.bytes == 0 {
            // All was sent, as it mostly is: the frames need not be told apart.
            self.frames = 0;
        } else {
            while self.unsent_at < self.sent {
                self.skip_frame();
            }
        }
        match self.chunks.front_mut() {
            Some(chunk) if chunk.bytes().len() > self.sent => {}
            _ => self.remove_first(),
        }
    }

    /// Moves `unsent_at` behind the frame that begins there.
    fn skip_frame(&mut self) {
        let chunk = self.chunks.front().map_or(&[][..], Chunk::bytes);
        let mut frames = io::Cursor::new(&chunk[self.unsent_at..]);
        let bytes = match FrameHeader::parse(&mut frames) {
            Ok(Some((header, payload))) => header.len(payload) + payload as usize,
            // The queue has whole frames only.
            _ => chunk.len() - self.unsent_at,
        };
        self.unsent_at += bytes;
        self.frames = self.frames.saturating_sub(1);
    }

    /// Removes the first chunk, all of which was sent.
    fn remove_first(&mut self) {
        /// What an empty queue keeps of its buffer.
        const KEPT_BYTES: usize = 1 << 10;
        self.sent = 0;
        self.unsent_at = 0;
        if let Some(Chunk::Own(mut own)) = self.chunks.pop_front() {
            self.total.set(self.total.get() - own.len());
            if own.capacity() <= KEPT_BYTES {
                own.clear();
                self.spare = own;
            }
        }
    }

    /// Whether there is more than the rest of a frame that was sent in part.
    pub(crate) fn has_unsent(&self) -> bool {
        self.bytes > self.unsent_at - self.sent
    }

    /// Discards all frames but one that was sent in part.
    pub(crate) fn discard_unsent(&mut self) {
        if !self.is_urgent_begun {
            self.total.set(self.total.get() - self.urgent.len());
            self.urgent.clear();
        }
        let chunk = self.chunks.front().map_or(&[][..], Chunk::bytes);
        // A copy, so that the rest is freed.
        let rest = BytesMut::from(&chunk[self.sent..self.unsent_at]);
        self.free();
        self.chunks.clear();
        self.holds.clear();
        self.sent = 0;
        self.unsent_at = rest.len();
        self.bytes = rest.len();
        self.frames = usize::from(!rest.is_empty());
        self.total.set(self.total.get() + rest.len());
        if !rest.is_empty() {
            self.chunks.push_back(Chunk::Own(rest));
        }
    }

    /// Counts the chunks of its own no longer.
    fn free(&self) {
        let own = self.chunks.iter().map(|chunk| match chunk {
            Chunk::Own(own) => own.len(),
            Chunk::Shared(_) => 0,
        });
        self.total.set(self.total.get() - own.sum::<usize>());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes that are queued, those that are shared included.
    pub(crate) fn len(&self) -> usize {
        self.bytes + self.urgent.len()
    }

    /// Whether at most half of it is in use.
    pub(crate) fn is_below_half(&self) -> bool {
        self.frames <= self.limits.messages / 2 && self.len() <= self.limits.bytes / 2
    }
}

/// Takes control frames, which are bounded by what is read from the client.
impl Write for SendQueue {
    fn write(&mut self, frames: &[u8]) -> io::Result<usize> {
        if self.is_held() {
            self.urgent.extend_from_slice(frames);
            self.total.set(self.total.get() + frames.len());
            return Ok(frames.len());
        }
        self.last_own().extend_from_slice(frames);
        self.total.set(self.total.get() + frames.len());
        self.count_frame(frames.len());
        Ok(frames.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for SendQueue {
    fn drop(&mut self) {
        self.free();
        self.total.set(self.total.get() - self.urgent.len());
    }
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(frame) => &frame.bytes,
        }
    }
}

impl SharedFrame {
    pub(crate) fn new(payload: MessagePayload<'_>, total: QueuedBytes) -> Rc<Self> {
        let mut bytes = BytesMut::new();
        encode(payload, None, &mut bytes);
        total.set(total.get() + bytes.len());
        Rc::new(Self { bytes, total })
    }
}

impl Drop for SharedFrame {
    fn drop(&mut self) {
        self.total.set(self.total.get() - self.bytes.len());
    }
}

/// Appends a message, in a frame, with a byte before it if there is one.
fn encode(payload: MessagePayload<'_>, prefix: Option<u8>, to: &mut BytesMut) {
    let bytes = payload.as_bytes();
    let header = FrameHeader {
        opcode: OpCode::Data(match payload {
            MessagePayload::Text(_) => Data::Text,
            MessagePayload::Bytes(_) => Data::Binary,
        }),
        ..FrameHeader::default()
    };
    let length = (bytes.len() + usize::from(prefix.is_some())) as u64;
    to.reserve(header.len(length) + bytes.len() + 1);
    // Writing to memory does not fail.
    let _ = header.format(length, &mut (&mut *to).writer());
    to.extend(prefix);
    to.extend_from_slice(bytes);
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

    /// Takes all that is queued, in pieces of this length.
    fn take_all(queue: &mut SendQueue, piece: usize) -> Vec<u8> {
        let mut taken = Vec::new();
        while !queue.is_empty() {
            let unsent = queue.unsent();
            let length = unsent.len().min(piece);
            assert!(length > 0);
            taken.extend_from_slice(&unsent[..length]);
            queue.sent(length);
        }
        taken
    }

    #[test]
    fn shared_frames_keep_their_place_and_count_once() {
        for piece in 1..12 {
            let (mut queue, total) = queue(10, 100);
            let mut other = SendQueue::new(queue.limits, total.clone());
            let shared = SharedFrame::new("shared".into(), total.clone());
            for _ in 0..2 {
                queue.push("a".into()).expect("space");
                queue.push_shared(&shared).expect("space");
                queue.push("b".into()).expect("space");
            }
            other.push_shared(&shared).expect("space");
            drop(shared);
            assert_eq!((queue.len(), total.get()), (2 * (3 + 8 + 3), 8 + 4 * 3));
            let one = b"\x81\x01a\x81\x06shared\x81\x01b";
            assert_eq!(take_all(&mut queue, piece), [&one[..], one].concat());
            assert_eq!((queue.len(), total.get()), (0, 8));
            assert!(queue.is_below_half());
            drop(other);
            assert_eq!(total.get(), 0);
        }
    }

    #[test]
    fn what_is_held_waits_with_all_behind_it() {
        let (mut queue, _) = queue(10, 100);
        queue.push("a".into()).expect("space");
        assert!(queue.hold(3));
        queue.push("b".into()).expect("space");
        assert!(!queue.hold(3));
        queue.push("c".into()).expect("space");
        assert!(queue.hold(5));
        queue.push("d".into()).expect("space");
        assert_eq!(queue.unsent(), b"\x81\x01a");
        queue.sent(3);
        assert_eq!(queue.unsent(), b"");
        assert!(!queue.is_empty() && queue.is_held());
        queue.release(2);
        assert_eq!(queue.unsent(), b"");
        queue.release(4);
        assert_eq!(queue.unsent(), b"\x81\x01b\x81\x01c");
        queue.sent(1);
        assert_eq!(queue.unsent(), b"\x01b\x81\x01c");
        queue.release(9);
        assert!(!queue.is_held());
        assert_eq!(take_all(&mut queue, 2), b"\x01b\x81\x01c\x81\x01d");
    }

    #[test]
    fn pings_pass_what_is_held_between_frames() {
        let (mut queue, total) = queue(10, 100);
        queue.push("a".into()).expect("space");
        queue.hold(1);
        queue.push("b".into()).expect("space");
        queue.write_all(b"ping").expect("it takes all");
        queue.sent(1);
        assert_eq!(queue.unsent(), b"\x01a");
        queue.sent(2);
        assert_eq!(queue.unsent(), b"ping");
        queue.sent(2);
        // What has begun goes on, whatever may be sent meanwhile.
        queue.release(1);
        assert_eq!(queue.unsent(), b"ng");
        queue.sent(2);
        assert_eq!(take_all(&mut queue, 2), b"\x81\x01b");
        assert_eq!(total.get(), 0);

        for sent in [0, 2] {
            queue.hold(2);
            queue.push("c".into()).expect("space");
            queue.write_all(b"ping").expect("it takes all");
            assert_eq!((queue.len(), total.get()), (7, 7));
            if sent > 0 {
                queue.sent(sent);
            }
            queue.discard_unsent();
            assert_eq!(take_all(&mut queue, 1), b"ng"[..sent]);
            assert_eq!(total.get(), 0);
        }
        queue.hold(3);
        queue.write_all(b"ping").expect("it takes all");
        drop(queue);
        assert_eq!(total.get(), 0);
    }

    #[test]
    fn what_is_held_is_discarded_as_the_rest() {
        let (mut queue, total) = queue(10, 100);
        queue.push("ab".into()).expect("space");
        queue.hold(1);
        queue.push("cd".into()).expect("space");
        queue.sent(1);
        queue.discard_unsent();
        assert!(!queue.is_held());
        assert_eq!(take_all(&mut queue, 1), b"\x02ab");
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
            let rest = take_all(&mut queue, 1);
            assert_eq!(rest, b"\x81\x02ab\x81\x02cd"[sent..sent + rest.len()]);
            assert_eq!(total.get(), 0);
        }
        let (mut queue, total) = queue(10, 100);
        queue
            .push_shared(&SharedFrame::new("shared".into(), total.clone()))
            .expect("space");
        queue.push("own".into()).expect("space");
        queue.sent(3);
        queue.discard_unsent();
        assert_eq!(queue.unsent(), b"hared");
        assert_eq!(total.get(), 5);
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

    #[test]
    fn nothing_follows_a_close_frame() {
        let (mut queue, total) = queue(10, 1 << 20);
        queue.hold(1);
        queue.push("hi".into()).expect("space");
        queue.write_all(b"\x8a\0").expect("a pong");
        assert_eq!(queue.unsent(), b"\x8a\0");
        // The client takes nothing meanwhile.
        queue.release(1);
        queue.write_all(b"\x88\0").expect("a close");
        assert_eq!(queue.unsent(), b"\x81\x02hi\x8a\0\x88\0");
        assert_eq!(total.get(), queue.len());
        queue.sent(queue.len());
        assert!(queue.is_empty());
    }
}
