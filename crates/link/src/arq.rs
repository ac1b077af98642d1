//! Go-Back-N ARQ: reliable, ordered frames over a lossy byte stream. Both ends use it.
//!
//! The receiver accepts numbered frames in sequence only and acknowledges them cumulatively; the
//! sender keeps each frame until it is acknowledged, and retransmits from the sequence number of a
//! `REJ`, or after a timeout. A receiver that is busy sends `RNR`, drops the frame, and sends `REJ`
//! when it is ready: so neither end buffers more than one received frame, and the window is flow
//! control (backpressure) as well.

use super::{
    framing::{FrameQueue, encode, max_body_bytes},
    messages::{Hello, kind},
};
use core::time::Duration;
use stateroom_wasmi_host::Instant;

/// The first retransmission timeout; doubled at each expiry.
const RETRANSMISSION_TIMEOUT: Duration = Duration::from_millis(500);
const MAX_RETRANSMISSION_TIMEOUT: Duration = Duration::from_secs(8);

/// Bytes on the wire of the longest control frame, which is a hello.
const MAX_CONTROL_BYTES: usize = 32;

pub(crate) struct GoBackN<const N: usize> {
    /// Frames that are not acknowledged.
    queue: FrameQueue<N>,
    /// The sequence number of the first frame in the queue.
    base: u8,
    /// Index in the queue of the frame to transmit next.
    next: usize,
    /// Frames of the queue that were transmitted at least once: the peer may acknowledge these.
    transmitted: usize,
    /// Bytes of the frame at `next` that were written.
    partial_bytes: usize,
    /// Whether to go back to the first frame when the one that is partly written is complete.
    rewind_pending: bool,
    peer_is_busy: bool,
    /// Bytes that may be unacknowledged; one frame may be in any case.
    window_bytes: usize,
    peer_max_body_bytes: usize,
    retransmit_at: Option<Instant>,
    retransmission_timeout: Duration,

    /// The sequence number of the next frame to accept.
    expected: u8,
    /// Whether a `REJ` was sent since the last frame was accepted.
    rej_sent: bool,
    /// Whether an `RNR` was sent, and no `REJ` since.
    is_busy: bool,

    pending_hello: Option<Hello>,
    /// The kind of the control frame to send, with `expected` as its sequence number.
    pending_reply: Option<u8>,
    control: heapless::Vec<u8, MAX_CONTROL_BYTES>,
    control_written: usize,
}

/// Where the sequence number of a received frame stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SequenceCheck {
    Expected,
    /// The frame was accepted before.
    Duplicate,
    /// Frames before it are missing.
    Gap,
}

/// Why a frame was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PushError {
    QueueFull,
    /// Longer than this end's buffer, or than the peer's limit.
    TooLong,
}

impl<const N: usize> GoBackN<N> {
    pub(crate) const fn new() -> Self {
        Self {
            queue: FrameQueue::new(),
            base: 0,
            next: 0,
            transmitted: 0,
            partial_bytes: 0,
            rewind_pending: false,
            peer_is_busy: false,
            window_bytes: 0,
            peer_max_body_bytes: 0,
            retransmit_at: None,
            retransmission_timeout: RETRANSMISSION_TIMEOUT,
            expected: 0,
            rej_sent: false,
            is_busy: false,
            pending_hello: None,
            pending_reply: None,
            control: heapless::Vec::new(),
            control_written: 0,
        }
    }

    /// Begins a session with a peer of these limits; drops all queued frames.
    pub(crate) fn reset(&mut self, window_bytes: usize, peer_max_body_bytes: usize) {
        self.queue.clear();
        // A partly written frame stays incomplete: the next frame's leading zero ends it, and its
        // checksum fails.
        (self.base, self.next, self.transmitted, self.partial_bytes) = (0, 0, 0, 0);
        (self.rewind_pending, self.peer_is_busy) = (false, false);
        (self.window_bytes, self.peer_max_body_bytes) = (window_bytes, peer_max_body_bytes);
        (self.retransmit_at, self.retransmission_timeout) = (None, RETRANSMISSION_TIMEOUT);
        (self.expected, self.rej_sent, self.is_busy) = (0, false, false);
        self.pending_reply = None;
    }

    /// Sends a hello, before all other frames.
    pub(crate) const fn send_hello(&mut self, hello: Hello) {
        self.pending_hello = Some(hello);
    }

    /// Queues a numbered frame.
    pub(crate) fn push(&mut self, kind: u8, body: &[&[u8]]) -> Result<(), PushError> {
        let len: usize = body.iter().map(|part| part.len()).sum();
        if len > max_body_bytes(N).min(self.peer_max_body_bytes) {
            return Err(PushError::TooLong);
        }
        let sequence = self.base.wrapping_add(self.queue.len() as u8);
        match self.queue.push(kind, sequence, body) {
            true => Ok(()),
            false => Err(PushError::QueueFull),
        }
    }

    /// The longest body that the peer accepts.
    #[cfg(any(feature = "bridge", feature = "snapshot"))]
    pub(crate) const fn peer_max_body_bytes(&self) -> usize {
        self.peer_max_body_bytes
    }

    /// Whether a frame with a body of this length can be queued.
    pub(crate) fn has_capacity(&self, body_bytes: usize) -> bool {
        self.queue.has_capacity(body_bytes)
    }

    /// Handles an `ACK`, `REJ`, `RNR` or `PING`: each acknowledges the frames before `sequence`. Returns
    /// whether the peer keeps up: it acknowledges a further frame, or says that it is busy.
    pub(crate) fn on_control(&mut self, kind: u8, sequence: u8) -> bool {
        if kind == kind::PING {
            self.pending_reply.get_or_insert(kind::ACK);
        }
        let acknowledged = usize::from(sequence.wrapping_sub(self.base));
        if acknowledged > self.transmitted {
            // The peer cannot know these frames.
            return false;
        }
        let has_progress = self.on_ack(acknowledged);
        match kind {
            kind::REJ => {
                self.peer_is_busy = false;
                self.rewind();
            }
            // After the acknowledgement, which ends an earlier RNR. This one ends with a REJ, or with
            // the retransmission timeout if that is lost. There is one if there is a frame that the
            // peer can have dropped.
            kind::RNR => self.peer_is_busy = self.transmitted > 0,
            _ => {}
        }
        has_progress || self.peer_is_busy
    }

    /// Removes acknowledged frames; returns whether there were any.
    fn on_ack(&mut self, acknowledged: usize) -> bool {
        // A frame that is partly retransmitted stays until it is complete, or the peer would see a
        // damaged one.
        let is_partial = self.partial_bytes > 0;
        if acknowledged == 0 || is_partial && acknowledged > self.next {
            return false;
        }
        self.queue.remove(acknowledged);
        self.base = self.base.wrapping_add(acknowledged as u8);
        self.next = self.next.saturating_sub(acknowledged);
        self.transmitted -= acknowledged;
        self.peer_is_busy = false;
        self.retransmission_timeout = RETRANSMISSION_TIMEOUT;
        // Restarted by the next frame that is transmitted, or by `unsent`.
        self.retransmit_at = None;
        true
    }

    /// Goes back to the first frame that is not acknowledged.
    fn rewind(&mut self) {
        self.rewind_pending = self.partial_bytes > 0;
        if !self.rewind_pending {
            self.next = 0;
        }
    }

    pub(crate) const fn check_sequence(&self, sequence: u8) -> SequenceCheck {
        match sequence.wrapping_sub(self.expected) {
            0 => SequenceCheck::Expected,
            128.. => SequenceCheck::Duplicate,
            _ => SequenceCheck::Gap,
        }
    }

    /// The expected frame was accepted.
    pub(crate) const fn on_accepted(&mut self) {
        self.expected = self.expected.wrapping_add(1);
        (self.rej_sent, self.is_busy) = (false, false);
        self.pending_reply = Some(kind::ACK);
    }

    /// The expected frame cannot be accepted now, and was dropped.
    pub(crate) const fn on_busy(&mut self) {
        self.is_busy = true;
        self.pending_reply = Some(kind::RNR);
    }

    /// The frame that was dropped by [`on_busy`](Self::on_busy) can be accepted.
    pub(crate) const fn on_ready(&mut self) {
        self.is_busy = false;
        self.rej_sent = true;
        self.pending_reply = Some(kind::REJ);
    }

    /// A frame was received again: its acknowledgement was lost, or is late.
    pub(crate) fn on_duplicate(&mut self) {
        self.pending_reply
            .get_or_insert(if self.is_busy { kind::RNR } else { kind::ACK });
    }

    /// A frame was damaged, or its sequence number is ahead of the expected one.
    pub(crate) const fn on_gap(&mut self) {
        if !self.rej_sent && !self.is_busy {
            self.rej_sent = true;
            self.pending_reply = Some(kind::REJ);
        }
    }

    #[cfg(feature = "bridge")]
    pub(crate) fn send_ping(&mut self) {
        self.pending_reply = Some(kind::PING);
    }

    /// The bytes to write next; empty if there are none. Retransmits when that is due.
    pub(crate) fn unsent(&mut self, now: Instant) -> &[u8] {
        if self.retransmit_at.is_some_and(|at| at <= now) {
            self.retransmit_at = None;
            self.retransmission_timeout =
                (self.retransmission_timeout * 2).min(MAX_RETRANSMISSION_TIMEOUT);
            self.peer_is_busy = false;
            self.rewind();
        }
        if self.control.is_empty() && self.partial_bytes == 0 {
            self.fill_control();
        }
        if !self.control.is_empty() {
            return &self.control[self.control_written..];
        }
        let is_paused = self.peer_is_busy && self.partial_bytes == 0;
        match self.queue.get(self.next).filter(|_| !is_paused) {
            Some((frame, before)) if before == 0 || before + frame.len() <= self.window_bytes => {
                &frame[self.partial_bytes..]
            }
            _ => {
                // An acknowledgement of earlier frames stopped the timer.
                if self.retransmit_at.is_none() && self.transmitted > 0 {
                    self.retransmit_at = Some(now + self.retransmission_timeout);
                }
                &[]
            }
        }
    }

    /// The first `bytes` bytes of [`unsent`](Self::unsent) were written.
    pub(crate) fn sent(&mut self, bytes: usize, now: Instant) {
        if !self.control.is_empty() {
            self.control_written += bytes;
            if self.control_written >= self.control.len() {
                self.control.clear();
                self.control_written = 0;
            }
            return;
        }
        let Some((frame, _)) = self.queue.get(self.next) else {
            return;
        };
        let len = frame.len();
        self.partial_bytes += bytes;
        if self.partial_bytes >= len {
            self.partial_bytes = 0;
            self.next += 1;
            self.transmitted = self.transmitted.max(self.next);
            self.retransmit_at = Some(now + self.retransmission_timeout);
            if core::mem::take(&mut self.rewind_pending) {
                self.next = 0;
            }
        }
    }

    /// Frames that are not acknowledged.
    #[cfg(feature = "bridge")]
    pub(crate) fn queued_frames(&self) -> usize {
        self.queue.len()
    }

    /// Whether all frames are acknowledged.
    #[cfg(feature = "bridge")]
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.len() == 0
    }

    /// When to call [`unsent`](Self::unsent) at the latest.
    pub(crate) const fn poll_timeout(&self) -> Option<Instant> {
        self.retransmit_at
    }

    fn fill_control(&mut self) {
        let mut buffer = [0; MAX_CONTROL_BYTES];
        let len = if let Some(hello) = self.pending_hello.take() {
            encode(kind::HELLO, 0, &[&hello.to_bytes()], &mut buffer)
        } else if let Some(reply) = self.pending_reply.take() {
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
