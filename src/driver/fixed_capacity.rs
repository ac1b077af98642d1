//! Queues of a fixed size, for those who want no heap beyond the interpreter's.
//!
//! [`FixedTransport`] keeps what rooms say until it is taken, and refuses while it is full, so that
//! rooms wait. [`FixedEvents`] keeps what happens until the rooms take it. Both are a [`FixedQueue`],
//! whose memory is within itself.
//!
//! ```
//! use stateroom_wasmi_host::{driver::fixed_capacity::*, *};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let wasm = include_bytes!("../../examples/rooms/wasm/echo-c.wasm");
//! # let module = Module::load(wasm, &Limits::small())?;
//! // Sixteen messages at most, and two kilobytes of them at most.
//! let mut host = Host::new(ManualClock::new(), FixedTransport::<16, 2048>::new());
//! let mut events = FixedEvents::<8, 1024>::new();
//! # let room = host.open("lobby", &module)?;
//!
//! events.push(room, Event::Connect(ClientId(1)))?;
//! events.push(room, Event::message(ClientId(1), "hello"))?;
//! events.deliver(&mut host, |room, event, error| panic!("{room} refused {event:?}: {error}"));
//! host.poll(Budget::UNLIMITED);
//!
//! let (to, payload) = host.transport_mut().pop().expect("an echo answers");
//! assert_eq!((to.room, to.recipient), (room, MessageRecipient::Client(ClientId(1))));
//! assert_eq!(payload.text(), Some("hello"));
//! # Ok(())
//! # }
//! ```

use crate::{
    error::EventError,
    event::{ClientId, Event, MessagePayload, MessageRecipient, Output},
    host::{Clock, Host, RoomKey, SendError, Transport},
};
use core::fmt;

/// Headers with payloads, first in first out: at most `ENTRIES` of them, whose payloads have at most
/// `BYTES` bytes together.
#[derive(Debug)]
pub struct FixedQueue<H, const ENTRIES: usize, const BYTES: usize> {
    entries: heapless::Deque<Entry<H>, ENTRIES>,
    /// The payloads, one behind the other.
    bytes: heapless::Vec<u8, BYTES>,
    /// Where the first of them starts; what lies before was popped.
    start: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry<H> {
    header: H,
    is_text: bool,
    len: usize,
}

/// Why something does not go into a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueueError {
    /// There is no place now.
    Full,
    /// The payload is longer than the whole queue.
    TooLong {
        /// Its length in bytes.
        bytes: usize,
        /// The queue's.
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

impl<H: Copy, const ENTRIES: usize, const BYTES: usize> FixedQueue<H, ENTRIES, BYTES> {
    /// An empty queue.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            entries: heapless::Deque::new(),
            bytes: heapless::Vec::new(),
            start: 0,
        }
    }

    /// Puts something behind all others.
    ///
    /// # Errors
    ///
    /// If there is no place for it; then the queue is as before.
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
        debug_assert!(pushed, "there was a place for it");
        Ok(())
    }

    /// The first, which stays.
    #[must_use]
    pub fn front(&self) -> Option<(H, MessagePayload<'_>)> {
        let entry = self.entries.front()?;
        Some((entry.header, self.payload(entry, self.start)))
    }

    /// Takes the first.
    pub fn pop(&mut self) -> Option<(H, MessagePayload<'_>)> {
        let entry = self.entries.pop_front()?;
        let start = self.start;
        self.start += entry.len;
        Some((entry.header, self.payload(&entry, start)))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Length of all payloads.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.bytes.clear();
        self.start = 0;
    }

    fn payload(&self, entry: &Entry<H>, start: usize) -> MessagePayload<'_> {
        let bytes = &self.bytes[start..start + entry.len];
        // A text is looked at once more, since nothing here is unsafe; it was UTF-8 when it came.
        match entry.is_text.then(|| core::str::from_utf8(bytes)) {
            Some(Ok(text)) => MessagePayload::Text(text),
            _ => MessagePayload::Bytes(bytes),
        }
    }
}

impl<H: Copy, const ENTRIES: usize, const BYTES: usize> Default for FixedQueue<H, ENTRIES, BYTES> {
    fn default() -> Self {
        Self::new()
    }
}

/// Which room said something, and to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The room.
    pub room: RoomKey,
    /// To whom.
    pub recipient: MessageRecipient,
}

/// A transport that keeps what rooms say until it is taken.
///
/// While it is full it refuses, and a room that has more to say waits: take some, and poll the host. A
/// message that is longer than the whole queue is lost.
#[derive(Debug, Default)]
pub struct FixedTransport<const MESSAGES: usize, const BYTES: usize> {
    queue: FixedQueue<Address, MESSAGES, BYTES>,
}

impl<const MESSAGES: usize, const BYTES: usize> FixedTransport<MESSAGES, BYTES> {
    /// A transport that keeps nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            queue: FixedQueue::new(),
        }
    }

    /// The first message, which stays.
    #[must_use]
    pub fn front(&self) -> Option<(Address, MessagePayload<'_>)> {
        self.queue.front()
    }

    /// Takes the first message.
    pub fn pop(&mut self) -> Option<(Address, MessagePayload<'_>)> {
        self.queue.pop()
    }

    /// How many messages wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether no message waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

impl<const MESSAGES: usize, const BYTES: usize> Transport for FixedTransport<MESSAGES, BYTES> {
    type Error = QueueError;

    fn send(&mut self, room: RoomKey, output: Output<'_>) -> Result<(), SendError<QueueError>> {
        let address = Address {
            room,
            recipient: output.recipient,
        };
        self.queue
            .push(address, output.payload)
            .map_err(|error| match error {
                QueueError::Full => SendError::WouldBlock,
                QueueError::TooLong { .. } => SendError::Failed(error),
            })
    }
}

/// Events that wait until their rooms take them: what an interrupt or another task has noted down, for
/// example.
#[derive(Debug, Default)]
pub struct FixedEvents<const EVENTS: usize, const BYTES: usize> {
    queue: FixedQueue<EventHeader, EVENTS, BYTES>,
}

#[derive(Clone, Copy, Debug)]
struct EventHeader {
    room: RoomKey,
    client: ClientId,
    kind: EventKind,
}

#[derive(Clone, Copy, Debug)]
enum EventKind {
    Connect,
    Disconnect,
    Message,
}

impl<const EVENTS: usize, const BYTES: usize> FixedEvents<EVENTS, BYTES> {
    /// No events yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            queue: FixedQueue::new(),
        }
    }

    /// Notes an event down.
    ///
    /// # Errors
    ///
    /// If there is no place for it.
    pub fn push(&mut self, room: RoomKey, event: Event<'_>) -> Result<(), QueueError> {
        let (kind, payload) = match event {
            Event::Connect(_) => (EventKind::Connect, MessagePayload::Bytes(&[])),
            Event::Disconnect(_) => (EventKind::Disconnect, MessagePayload::Bytes(&[])),
            Event::Message(_, payload) => (EventKind::Message, payload),
        };
        self.queue.push(
            EventHeader {
                room,
                client: event.client(),
                kind,
            },
            payload,
        )
    }

    /// Hands the events to their rooms, in order, up to the first whose room has no place for it now:
    /// poll the host, and deliver again. What a room does not take at all, `refused` is told.
    pub fn deliver<C: Clock, T: Transport>(
        &mut self,
        host: &mut Host<C, T>,
        mut refused: impl FnMut(RoomKey, Event<'_>, EventError),
    ) {
        while let Some((EventHeader { room, client, kind }, payload)) = self.queue.front() {
            let event = match kind {
                EventKind::Connect => Event::Connect(client),
                EventKind::Disconnect => Event::Disconnect(client),
                EventKind::Message => Event::Message(client, payload),
            };
            match host.handle_event(room, event) {
                Ok(()) => {}
                // If nothing waits there, it never fits.
                Err(EventError::InboxFull)
                    if host
                        .room(room)
                        .is_some_and(|room| room.stats().waiting_events > 0) =>
                {
                    return;
                }
                Err(error) => refused(room, event, error),
            }
            self.queue.pop();
        }
    }

    /// How many events wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether no event waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
