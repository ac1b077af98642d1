//! A transport and an event queue of a fixed capacity, which need no heap.
//!
//! [`FixedTransport`] stores what rooms send until it is taken, and applies backpressure while it is
//! full. [`FixedEvents`] stores events until their rooms accept them. Both are
//! [`FixedPayloadQueue`]s, whose memory is part of the value.
//!
//! ```
//! use stateroom_wasmi_host::{driver::fixed_capacity::*, *};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let wasm = include_bytes!("../../examples/rooms/wasm/echo-c.wasm");
//! # let module = Module::load(wasm, &Limits::small())?;
//! // At most sixteen messages, with at most two kilobytes in total.
//! let mut host = Host::new(ManualClock::new(), FixedTransport::<16, 2048>::new());
//! let mut events = FixedEvents::<8, 1024>::new();
//! # let room = host.open("lobby", &module)?;
//!
//! events.push(room, Event::Connect(ClientId(1)))?;
//! events.push(room, Event::message(ClientId(1), "hello"))?;
//! events.deliver(&mut host, |room, event, error| panic!("{room} refused {event:?}: {error}"));
//! host.poll(Budget::UNLIMITED);
//!
//! let (to, payload) = host.transport_mut().pop().expect("the guest echoes");
//! assert_eq!((to.room, to.recipient), (room, MessageRecipient::Client(ClientId(1))));
//! assert_eq!(payload.text(), Some("hello"));
//! # Ok(())
//! # }
//! ```

pub use crate::storage::{FixedPayloadQueue, QueueError};

use crate::{
    error::EventError,
    event::{Event, EventHeader, MessagePayload, MessageRecipient, OutputMessage},
    host::{Clock, Host, RoomKey, SendError, Transport},
};

/// The room that sent a message, and its recipients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageHeader {
    /// The sender.
    pub room: RoomKey,
    /// The recipients.
    pub recipient: MessageRecipient,
}

/// A transport that stores messages until they are taken.
///
/// While it is full, rooms that have more to send wait: take some messages, and poll the host. A
/// message longer than the whole queue is lost.
#[derive(Debug, Default)]
pub struct FixedTransport<const MESSAGES: usize, const BYTES: usize> {
    queue: FixedPayloadQueue<MessageHeader, MESSAGES, BYTES>,
}

impl<const MESSAGES: usize, const BYTES: usize> FixedTransport<MESSAGES, BYTES> {
    /// An empty transport.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            queue: FixedPayloadQueue::new(),
        }
    }

    /// The first message, which stays.
    #[must_use]
    pub fn front(&self) -> Option<(MessageHeader, MessagePayload<'_>)> {
        self.queue.front()
    }

    /// Takes the first message.
    pub fn pop(&mut self) -> Option<(MessageHeader, MessagePayload<'_>)> {
        self.queue.pop()
    }

    /// The number of stored messages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether no message is stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

impl<const MESSAGES: usize, const BYTES: usize> Transport for FixedTransport<MESSAGES, BYTES> {
    type Error = QueueError;

    fn send(
        &mut self,
        room: RoomKey,
        message: OutputMessage<'_>,
    ) -> Result<(), SendError<QueueError>> {
        let header = MessageHeader {
            room,
            recipient: message.recipient,
        };
        self.queue
            .push(header, message.payload)
            .map_err(|error| match error {
                QueueError::Full => SendError::WouldBlock,
                QueueError::TooLong { .. } => SendError::Failed(error),
            })
    }
}

/// Events that wait until their rooms accept them: what an interrupt or another task has recorded,
/// for example.
#[derive(Debug, Default)]
pub struct FixedEvents<const EVENTS: usize, const BYTES: usize> {
    queue: FixedPayloadQueue<(RoomKey, EventHeader), EVENTS, BYTES>,
}

impl<const EVENTS: usize, const BYTES: usize> FixedEvents<EVENTS, BYTES> {
    /// An empty queue.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            queue: FixedPayloadQueue::new(),
        }
    }

    /// Appends an event.
    ///
    /// # Errors
    ///
    /// If there is no space for it.
    pub fn push(&mut self, room: RoomKey, event: Event<'_>) -> Result<(), QueueError> {
        self.queue.push((room, event.header()), event.payload())
    }

    /// Gives the events to their rooms, in order, up to the first whose room's inbox is full: poll
    /// the host, and deliver again. Other refusals go to `refused`.
    pub fn deliver<C: Clock, T: Transport>(
        &mut self,
        host: &mut Host<C, T>,
        mut refused: impl FnMut(RoomKey, Event<'_>, EventError),
    ) {
        while let Some(((room, header), payload)) = self.queue.front() {
            let event = header.with_payload(payload);
            match host.enqueue(room, event) {
                Ok(()) => {}
                Err(EventError::InboxFull) => return,
                Err(error) => refused(room, event, error),
            }
            self.queue.pop();
        }
    }

    /// The number of events that wait.
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
