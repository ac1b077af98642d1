//! Where a host sends what its rooms say.

use super::RoomKey;
use crate::event::{ClientId, MessagePayload, MessageRecipient, Output};
use alloc::{borrow::ToOwned, boxed::Box, string::String, vec::Vec};
use core::fmt;

/// Takes the messages of rooms to their clients.
pub trait Transport {
    /// Why a message was lost.
    type Error: fmt::Display;

    /// Sends one message, or refuses it for now. It must not block.
    ///
    /// The recipient is as the guest gave it: it may be a client that has gone, or never was there.
    ///
    /// # Errors
    ///
    /// [`SendError::WouldBlock`] keeps the message: it is tried again when the host is polled, and
    /// everything else that the room sends waits behind it. [`SendError::Failed`] loses it.
    fn send(&mut self, room: RoomKey, output: Output<'_>) -> Result<(), SendError<Self::Error>>;

    /// Tells that the room is being told of this client: what it sends from now on knows of it.
    ///
    /// What a room sent before, while the connect waited for its turn, is not for the client, even
    /// where it goes to everybody. A room that [starts again](crate::FaultPolicy::Restart) is told
    /// of its clients anew, and so is this. The default does nothing.
    fn connected(&mut self, room: RoomKey, client: ClientId) {
        let _ = (room, client);
    }
}

/// Why a transport did not send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError<E> {
    /// It has no room now; the message is tried again later.
    WouldBlock,
    /// The message is lost.
    Failed(E),
}

impl<T: Transport + ?Sized> Transport for &mut T {
    type Error = T::Error;

    fn send(&mut self, room: RoomKey, output: Output<'_>) -> Result<(), SendError<Self::Error>> {
        (**self).send(room, output)
    }

    fn connected(&mut self, room: RoomKey, client: ClientId) {
        (**self).connected(room, client);
    }
}

impl<T: Transport + ?Sized> Transport for Box<T> {
    type Error = T::Error;

    fn send(&mut self, room: RoomKey, output: Output<'_>) -> Result<(), SendError<Self::Error>> {
        (**self).send(room, output)
    }

    fn connected(&mut self, room: RoomKey, client: ClientId) {
        (**self).connected(room, client);
    }
}

/// A transport that writes down what it is given: for tests.
#[derive(Debug, Default)]
pub struct RecordingTransport {
    /// What was sent, in order.
    pub sent: Vec<Sent>,
    /// How many more messages it takes before it refuses; no bound if there is none.
    pub capacity: Option<usize>,
    /// Whether what is refused is lost instead of kept.
    pub fails: bool,
}

/// A message that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// By which room.
    pub room: RoomKey,
    /// To whom.
    pub recipient: MessageRecipient,
    /// What.
    pub payload: SentPayload,
}

/// What a message said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SentPayload {
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

impl RecordingTransport {
    /// A transport that takes everything.
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

    fn send(&mut self, room: RoomKey, output: Output<'_>) -> Result<(), SendError<Self::Error>> {
        match &mut self.capacity {
            Some(0) if self.fails => return Err(SendError::Failed("the transport is set to fail")),
            Some(0) => return Err(SendError::WouldBlock),
            Some(left) => *left -= 1,
            None => {}
        }
        let payload = match output.payload {
            MessagePayload::Text(text) => SentPayload::Text(text.to_owned()),
            MessagePayload::Bytes(bytes) => SentPayload::Bytes(bytes.to_owned()),
        };
        self.sent.push(Sent {
            room,
            recipient: output.recipient,
            payload,
        });
        Ok(())
    }
}
