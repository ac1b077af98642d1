//! Where a host sends what its rooms send.

use super::RoomKey;
use crate::error::Fault;
use crate::event::{ClientId, MessageRecipient, OutputMessage, OwnedPayload};
#[cfg(feature = "snapshot")]
use crate::replay::EventRecord;
use alloc::{boxed::Box, vec::Vec};
use core::fmt;

/// Delivers the outputs of rooms to their clients.
///
/// A host calls it with each room's outputs in order. No method may block:
/// [`SendError::WouldBlock`] keeps the output, which is tried again when the host is polled, and all
/// other outputs of the room wait behind it; [`SendError::Failed`] drops it.
pub trait Transport {
    /// Why an output was lost.
    type Error: fmt::Display;

    /// Sends a message.
    ///
    /// The recipient is what the guest named: a client that has left or never existed is possible.
    ///
    /// # Errors
    ///
    /// If the message was not sent.
    fn send(
        &mut self,
        room: RoomKey,
        message: OutputMessage<'_>,
    ) -> Result<(), SendError<Self::Error>>;

    /// Called when the room starts to handle `client`'s connect: messages from here on may be sent
    /// to it.
    ///
    /// What the room sent while the connect waited for its turn is not for the client, not even
    /// broadcasts. A room that [restarts](crate::FaultPolicy::Restart) handles the connects of its
    /// clients again, and this is called again. The default does nothing.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    fn connected(&mut self, room: RoomKey, client: ClientId) -> Result<(), SendError<Self::Error>> {
        let _ = (room, client);
        Ok(())
    }

    /// Called when the room starts to handle `client`'s disconnect: messages from here on are not for
    /// it, even if it has connected again and that connect waits. The default does nothing.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    fn disconnected(
        &mut self,
        room: RoomKey,
        client: ClientId,
    ) -> Result<(), SendError<Self::Error>> {
        let _ = (room, client);
        Ok(())
    }

    /// Called when a room that is recorded ([`Host::set_recording`](super::Host::set_recording)) begins an
    /// event, before what it sends for that. The default does nothing.
    #[cfg(feature = "snapshot")]
    fn recorded(&mut self, room: RoomKey, record: EventRecord<'_>) {
        let _ = (room, record);
    }

    /// Called when a room has had a slice, before what it sent is sent: for a driver that measures. The
    /// default does nothing.
    fn slice_ended(&mut self, room: RoomKey, slice: Slice<'_>) {
        let _ = (room, slice);
    }

    /// Whether the room may run now. If not, it waits as one does whose output was refused, until the host
    /// is polled: backpressure for a transport that must keep up with what rooms do even if they send
    /// nothing, such as one that records it. The default is always.
    fn is_ready(&self, room: RoomKey) -> bool {
        let _ = room;
        true
    }

    /// What the calls above have cost since the last call of this, in units of fuel that take as
    /// long (one is about a nanosecond of a desktop's processor): copies for each recipient of a
    /// broadcast, system calls. The host counts it as the room's, so that a room with many clients
    /// delays others no longer than one that computes. The default is 0: each call is cheap, whoever
    /// the recipients are.
    fn take_cost(&mut self) -> u64 {
        0
    }
}

/// What a room did in a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Slice<'a> {
    /// Fuel that it used.
    pub fuel: u64,
    /// Whether the event is over, or goes on in the room's next slice.
    pub is_event_over: bool,
    /// How the guest failed, if it did.
    pub fault: Option<&'a Fault>,
}

/// Why a transport did not send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError<E> {
    /// It has no space now; the output is tried again later.
    WouldBlock,
    /// The output is lost.
    Failed(E),
}

macro_rules! forward_transport {
    ($($pointer:ty),*) => {
        $(
            impl<T: Transport + ?Sized> Transport for $pointer {
                type Error = T::Error;

                fn send(
                    &mut self,
                    room: RoomKey,
                    message: OutputMessage<'_>,
                ) -> Result<(), SendError<Self::Error>> {
                    (**self).send(room, message)
                }

                fn connected(
                    &mut self,
                    room: RoomKey,
                    client: ClientId,
                ) -> Result<(), SendError<Self::Error>> {
                    (**self).connected(room, client)
                }

                fn disconnected(
                    &mut self,
                    room: RoomKey,
                    client: ClientId,
                ) -> Result<(), SendError<Self::Error>> {
                    (**self).disconnected(room, client)
                }

                #[cfg(feature = "snapshot")]
                fn recorded(&mut self, room: RoomKey, record: EventRecord<'_>) {
                    (**self).recorded(room, record);
                }

                fn slice_ended(&mut self, room: RoomKey, slice: Slice<'_>) {
                    (**self).slice_ended(room, slice);
                }

                fn is_ready(&self, room: RoomKey) -> bool {
                    (**self).is_ready(room)
                }

                fn take_cost(&mut self) -> u64 {
                    (**self).take_cost()
                }
            }
        )*
    };
}

forward_transport!(&mut T, Box<T>);

/// A transport that records messages: for tests.
#[derive(Debug, Default)]
pub struct RecordingTransport {
    /// The messages, in order.
    pub sent: Vec<SentMessage>,
    /// How many more messages it accepts; `None` for no limit.
    pub capacity: Option<usize>,
    /// Whether messages beyond the capacity are lost instead of kept.
    pub fails: bool,
}

/// A recorded message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentMessage {
    /// The room that sent it.
    pub room: RoomKey,
    /// Its recipients.
    pub recipient: MessageRecipient,
    /// Its payload.
    pub payload: OwnedPayload,
}

impl RecordingTransport {
    /// A transport that accepts everything.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            sent: Vec::new(),
            capacity: None,
            fails: false,
        }
    }
}

impl Transport for RecordingTransport {
    type Error = &'static str;

    fn send(
        &mut self,
        room: RoomKey,
        message: OutputMessage<'_>,
    ) -> Result<(), SendError<Self::Error>> {
        match &mut self.capacity {
            Some(0) if self.fails => return Err(SendError::Failed("the transport is set to fail")),
            Some(0) => return Err(SendError::WouldBlock),
            Some(left) => *left -= 1,
            None => {}
        }
        let OutputMessage { recipient, payload } = message;
        self.sent.push(SentMessage {
            room,
            recipient,
            payload: payload.to_owned(),
        });
        Ok(())
    }
}
