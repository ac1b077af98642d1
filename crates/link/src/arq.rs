//! What makes a line that loses bytes one that loses nothing; the same for both of its ends.
//!
//! Frames that matter are numbered. Each side takes them in order, one after the other, and says up
//! to which it has them; the other keeps what it has sent until then, and sends it again from the
//! number that it is asked for, or when it hears nothing for a while. A side that cannot take a frame
//! now says that it is busy, forgets the frame, and asks for it later: so no side needs room for more
//! than one frame, and a fast one waits for a slow one.

use super::{
    framing::{FrameQueue, encode, longest_body},
    messages::{Hello, kind},
};
use core::time::Duration;
use stateroom_wasmi_host::Instant;

/// Time without an answer after which frames are sent again; doubled each time.
const RESEND_AFTER: Duration = Duration::from_millis(500);
/// What it is doubled up to.
const RESEND_AFTER_AT_MOST: Duration = Duration::from_secs(8);

/// Bytes on the wire of the longest frame without a number: a greeting.
const MAX_CONTROL_BYTES: usize = 32;

pub(crate) struct GoBackN<const N: usize> {
    queue: FrameQueue<N>,
    /// The number of the first frame in the queue.
    first: u8,
    /// How many frames in the queue were sent, since it was last begun anew.
    sent: usize,
    /// How many were ever sent: the other side may say that it has them.
    ever_sent: usize,
    /// How many bytes of the frame after those were sent.
    begun: usize,
    /// Whether to begin anew when that frame is sent.
    rewinds: bool,
    /// Whether the other side is busy.
    waits: bool,
    /// Bytes that the other side takes before it answers; one frame at least may always go.
    window: usize,
    /// The longest body that the other side takes.
    peer_longest: usize,
    /// When to send again what was not answered.
    resend_at: Option<Instant>,
    resend_after: Duration,

    /// The number of the next frame to take.
    expected: u8,
    /// Whether the other side was asked to send again since the last frame was taken.
    asked: bool,
    /// Whether it was told that this side is busy.
    is_busy: bool,

    hello: Option<Hello>,
    /// The kind of frame by which to say what was taken.
    reply: Option<u8>,
    control: heapless::Vec<u8, MAX_CONTROL_BYTES>,
    control_sent: usize,
}

/// What a number says about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// It is the one to take.
    Next,
    /// It was taken before.
    Old,
    /// Others should have come before it.
    Early,
}

/// Why a frame is not on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PushError {
    /// Others are in its way.
    Full,
    /// It is longer than this side's buffer, or than what the other side takes.
    TooLong,
}

impl<const N: usize> GoBackN<N> {
    pub(crate) const fn new() -> Self {
        Self {
            queue: FrameQueue::new(),
            first: 0,
            sent: 0,
            ever_sent: 0,
            begun: 0,
            rewinds: false,
            waits: false,
            window: 0,
            peer_longest: 0,
            resend_at: None,
            resend_after: RESEND_AFTER,
            expected: 0,
            asked: false,
            is_busy: false,
            hello: None,
            reply: None,
            control: heapless::Vec::new(),
            control_sent: 0,
        }
    }

    /// Begins a session with a side that takes so much. What waited is forgotten.
    pub(crate) fn start(&mut self, window: usize, peer_longest: usize) {
        self.queue.clear();
        // The frame that was in the middle of being written is not ended: the zero before the next
        // one ends it, and its checksum tells.
        (self.first, self.sent, self.ever_sent, self.begun) = (0, 0, 0, 0);
        (self.rewinds, self.waits) = (false, false);
        (self.window, self.peer_longest) = (window, peer_longest);
        (self.resend_at, self.resend_after) = (None, RESEND_AFTER);
        (self.expected, self.asked, self.is_busy) = (0, false, false);
        self.reply = None;
    }

    /// Greets, before anything else is sent.
    pub(crate) const fn greet(&mut self, hello: Hello) {
        self.hello = Some(hello);
    }

    /// Puts a numbered frame behind those that wait.
    pub(crate) fn push(&mut self, kind: u8, body: &[&[u8]]) -> Result<(), PushError> {
        let len: usize = body.iter().map(|part| part.len()).sum();
        if len > longest_body(N).min(self.peer_longest) {
            return Err(PushError::TooLong);
        }
        let number = self.first.wrapping_add(self.queue.len() as u8);
        match self.queue.push(kind, number, body) {
            true => Ok(()),
            false => Err(PushError::Full),
        }
    }

    /// Whether a frame with so long a body can be put there.
    pub(crate) fn has_place(&self, body: usize) -> bool {
        self.queue.has_place(body)
    }

    /// Takes what the other side says by a frame without a number of its own: up to where it has
    /// what was sent, and how to go on.
    pub(crate) fn heard(&mut self, kind: u8, expected: u8) {
        self.acknowledged(expected);
        match kind {
            kind::RESEND => {
                self.waits = false;
                self.rewind();
            }
            // What it took before is one matter, that it is busy another; it will ask, or else the
            // time will come.
            kind::BUSY => self.waits = true,
            kind::PING => {
                self.reply.get_or_insert(kind::ACK);
            }
            _ => {}
        }
    }

    fn acknowledged(&mut self, expected: u8) {
        let has = usize::from(expected.wrapping_sub(self.first));
        // A frame that is being sent again is sent to its end, or it would be noise.
        let may_have = if self.begun > 0 {
            self.sent
        } else {
            self.ever_sent
        };
        if has == 0 || has > may_have {
            return;
        }
        self.queue.remove(has);
        self.first = expected;
        self.sent = self.sent.saturating_sub(has);
        self.ever_sent -= has;
        self.waits = false;
        self.resend_after = RESEND_AFTER;
        // What is left has its time from the next frame on that is sent, or from now on.
        self.resend_at = None;
    }

    fn rewind(&mut self) {
        self.rewinds = self.begun > 0;
        if !self.rewinds {
            self.sent = 0;
        }
    }

    /// What the number of a frame says about it.
    pub(crate) const fn order(&self, number: u8) -> Order {
        match number.wrapping_sub(self.expected) {
            0 => Order::Next,
            128.. => Order::Old,
            _ => Order::Early,
        }
    }

    /// The next frame was taken.
    pub(crate) const fn accept(&mut self) {
        self.expected = self.expected.wrapping_add(1);
        (self.asked, self.is_busy) = (false, false);
        self.reply = Some(kind::ACK);
    }

    /// The next frame cannot be taken now.
    pub(crate) const fn refuse(&mut self) {
        self.is_busy = true;
        self.reply = Some(kind::BUSY);
    }

    /// What was refused can be taken.
    pub(crate) const fn ready(&mut self) {
        self.is_busy = false;
        self.asked = true;
        self.reply = Some(kind::RESEND);
    }

    /// A frame came that was taken before: whoever sent it has not heard of that.
    pub(crate) fn old(&mut self) {
        self.reply
            .get_or_insert(if self.is_busy { kind::BUSY } else { kind::ACK });
    }

    /// Something is missing: a frame was damaged, or has another number than the next.
    pub(crate) const fn missing(&mut self) {
        if !self.asked && !self.is_busy {
            self.asked = true;
            self.reply = Some(kind::RESEND);
        }
    }

    /// Asks for a sign of life.
    #[cfg(feature = "bridge")]
    pub(crate) fn ping(&mut self) {
        self.reply = Some(kind::PING);
    }

    /// What is to be sent next; empty if there is nothing. It also is the time to send again.
    pub(crate) fn unsent(&mut self, now: Instant) -> &[u8] {
        if self.resend_at.is_some_and(|at| at <= now) {
            self.resend_at = None;
            self.resend_after = (self.resend_after * 2).min(RESEND_AFTER_AT_MOST);
            self.waits = false;
            self.rewind();
        }
        if self.control.is_empty() && self.begun == 0 {
            self.fill_control();
        }
        if !self.control.is_empty() {
            return &self.control[self.control_sent..];
        }
        let is_held = self.waits && self.begun == 0;
        match self.queue.get(self.sent).filter(|_| !is_held) {
            Some((frame, before)) if before == 0 || before + frame.len() <= self.window => {
                &frame[self.begun..]
            }
            _ => {
                // Something may be left that was sent before an answer to other frames came.
                if self.resend_at.is_none() && self.ever_sent > 0 {
                    self.resend_at = Some(now + self.resend_after);
                }
                &[]
            }
        }
    }

    /// So many of those bytes were sent.
    pub(crate) fn sent(&mut self, bytes: usize, now: Instant) {
        if !self.control.is_empty() {
            self.control_sent += bytes;
            if self.control_sent >= self.control.len() {
                self.control.clear();
                self.control_sent = 0;
            }
            return;
        }
        let Some((frame, _)) = self.queue.get(self.sent) else {
            return;
        };
        let len = frame.len();
        self.begun += bytes;
        if self.begun >= len {
            self.begun = 0;
            self.sent += 1;
            self.ever_sent = self.ever_sent.max(self.sent);
            self.resend_at = Some(now + self.resend_after);
            if core::mem::take(&mut self.rewinds) {
                self.sent = 0;
            }
        }
    }

    /// When to ask for what is [`unsent`](Self::unsent) at the latest.
    pub(crate) const fn deadline(&self) -> Option<Instant> {
        self.resend_at
    }

    fn fill_control(&mut self) {
        let mut buffer = [0; MAX_CONTROL_BYTES];
        let len = if let Some(hello) = self.hello.take() {
            encode(kind::HELLO, 0, &[&hello.to_bytes()], &mut buffer)
        } else if let Some(reply) = self.reply.take() {
            encode(reply, self.expected, &[], &mut buffer)
        } else {
            return;
        };
        let filled = self.control.extend_from_slice(&buffer[..len.unwrap_or(0)]);
        debug_assert!(
            filled.is_ok() && !self.control.is_empty(),
            "the buffer is long enough for both"
        );
    }
}
