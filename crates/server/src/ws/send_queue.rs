//! The bounded queue of messages to one client, between its worker and its connection.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};
use tokio::sync::{Notify, mpsc, oneshot};
use tungstenite::{Message, protocol::CloseFrame};

/// The worker's end: queues messages, and requests the close.
#[derive(Debug)]
pub(crate) struct ClientSender {
    /// Distinguishes connections of one client.
    pub(crate) connection_id: u64,
    messages: mpsc::Sender<Message>,
    usage: Arc<QueueUsage>,
    close: oneshot::Sender<CloseRequest>,
}

/// The connection's end.
pub(crate) struct ClientReceiver {
    pub(super) queue: SendQueue,
    pub(super) close: oneshot::Receiver<CloseRequest>,
}

/// The messages that are queued for a client.
pub(super) struct SendQueue {
    messages: mpsc::Receiver<Message>,
    pub(super) usage: Arc<QueueUsage>,
}

/// How a connection is to end.
#[derive(Debug)]
pub(super) struct CloseRequest {
    pub(super) frame: CloseFrame,
    /// Whether the queue is drained first.
    pub(super) drain: bool,
}

/// How much may be queued for one client.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueLimits {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

/// How full a client's queue is.
#[derive(Debug)]
pub(super) struct QueueUsage {
    limits: QueueLimits,
    messages: AtomicUsize,
    bytes: AtomicUsize,
    drained: Notify,
}

/// Creates a queue.
pub(super) fn channel(limits: QueueLimits) -> (ClientSender, ClientReceiver) {
    static NEXT_ID: AtomicU64 = AtomicU64::new(0);
    let (sender, receiver) = mpsc::channel(limits.messages);
    let usage = Arc::new(QueueUsage {
        limits,
        messages: AtomicUsize::new(0),
        bytes: AtomicUsize::new(0),
        drained: Notify::new(),
    });
    let (request_close, close) = oneshot::channel();
    let client_sender = ClientSender {
        connection_id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
        messages: sender,
        usage: usage.clone(),
        close: request_close,
    };
    let queue = SendQueue {
        messages: receiver,
        usage,
    };
    (client_sender, ClientReceiver { queue, close })
}

impl ClientSender {
    /// Queues a message; returns false if the queue is full.
    pub(crate) fn send(&self, message: Message) -> bool {
        let bytes = message_bytes(&message);
        match self.messages.try_reserve() {
            Ok(_) if !self.usage.fits(bytes) => false,
            Ok(slot) => {
                // Counted before the receiver can take it.
                self.usage.add(bytes);
                slot.send(message);
                true
            }
            Err(mpsc::error::TrySendError::Full(())) => false,
            // The connection has ended, and its `Leave` is on the way.
            Err(mpsc::error::TrySendError::Closed(())) => true,
        }
    }

    /// Closes the connection; `drain` sends what is queued first.
    pub(crate) fn close(self, code: u16, reason: &str, drain: bool) {
        let frame = close_frame(code, reason);
        // Fails if the connection has already ended.
        let _ = self.close.send(CloseRequest { frame, drain });
    }
}

/// A close frame, with as much of the reason as fits into one.
pub(super) fn close_frame(code: u16, reason: &str) -> CloseFrame {
    // RFC 6455: the payload of a control frame is at most 125 bytes, two of which are the code.
    let mut end = reason.len().min(123);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    CloseFrame {
        code: code.into(),
        reason: reason[..end].into(),
    }
}

impl SendQueue {
    /// Receives up to `limit` messages, at least one unless the queue has ended. Cancel-safe.
    pub(super) async fn receive(&mut self, batch: &mut Vec<Message>, limit: usize) -> usize {
        let before = batch.len();
        let received = self.messages.recv_many(batch, limit).await;
        let bytes = batch[before..].iter().map(message_bytes).sum();
        self.usage.sub(received, bytes);
        received
    }
}

impl QueueUsage {
    /// Whether a message of this length may be queued. Into an empty queue, any length may.
    fn fits(&self, bytes: usize) -> bool {
        let queued = self.bytes.load(Ordering::Acquire);
        queued == 0 || queued.saturating_add(bytes) <= self.limits.bytes
    }

    fn add(&self, bytes: usize) {
        self.messages.fetch_add(1, Ordering::AcqRel);
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    fn sub(&self, messages: usize, bytes: usize) {
        self.messages.fetch_sub(messages, Ordering::AcqRel);
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        if self.is_below_half() {
            self.drained.notify_one();
        }
    }

    fn is_below_half(&self) -> bool {
        self.messages.load(Ordering::Acquire) <= self.limits.messages / 2
            && self.bytes.load(Ordering::Acquire) <= self.limits.bytes / 2
    }

    /// Waits until at most half of the queue is in use. For one waiter.
    pub(super) async fn below_half(&self) {
        while !self.is_below_half() {
            // A notification before this wait is kept.
            self.drained.notified().await;
        }
    }
}

/// The payload's length.
fn message_bytes(message: &Message) -> usize {
    match message {
        Message::Text(text) => text.len(),
        Message::Binary(bytes) => bytes.len(),
        _ => 0,
    }
}
