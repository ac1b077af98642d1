//! What goes into a room and what comes out of it.

use alloc::{borrow::ToOwned, string::String, vec::Vec};
use core::{fmt, time::Duration};

/// The id of a client within a room.
///
/// Recipients of ABI 0.2 have 31 bits, so a room accepts clients from 1 to [`ClientId::MAX`], unless it
/// is [unmanaged](crate::Room::unmanaged). A guest may name any number as a recipient, even one that
/// no client has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u32);

impl ClientId {
    /// The largest valid id: 2³¹ − 1.
    pub const MAX: Self = Self(i32::MAX as u32);

    /// Whether a room accepts a client of this id.
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.0 >= 1 && self.0 <= Self::MAX.0
    }
}

impl From<u32> for ClientId {
    fn from(id: u32) -> Self {
        Self(id)
    }
}

impl From<ClientId> for u32 {
    fn from(id: ClientId) -> Self {
        id.0
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The recipients of a message that a room sends.
///
/// It is passed on as the guest gave it, so that a transport that can multicast does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageRecipient {
    /// Every client of the room.
    Broadcast,
    /// One client. If it is not connected, the message has no recipient.
    Client(ClientId),
    /// Every client of the room except one.
    EveryoneExcept(ClientId),
}

impl MessageRecipient {
    /// Whether `client` is a recipient.
    #[must_use]
    pub fn includes(self, client: ClientId) -> bool {
        match self {
            Self::Broadcast => true,
            Self::Client(one) => one == client,
            Self::EveryoneExcept(one) => one != client,
        }
    }
}

/// The payload of a message, borrowed: text or bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessagePayload<'a> {
    /// Text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
}

impl<'a> MessagePayload<'a> {
    /// No bytes: the payload of events that have none.
    pub(crate) const EMPTY: Self = Self::Bytes(&[]);

    /// The payload as bytes; those of a text are UTF-8.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }

    /// The text, unless the payload is bytes.
    #[must_use]
    pub const fn text(self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Bytes(_) => None,
        }
    }

    /// The length in bytes.
    #[must_use]
    pub const fn len(self) -> usize {
        self.as_bytes().len()
    }

    /// Whether the length is zero.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// A copy that owns its bytes.
    #[must_use]
    pub fn to_owned(self) -> OwnedPayload {
        match self {
            Self::Text(text) => OwnedPayload::Text(text.to_owned()),
            Self::Bytes(bytes) => OwnedPayload::Bytes(bytes.to_owned()),
        }
    }
}

impl<'a> From<&'a str> for MessagePayload<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a [u8]> for MessagePayload<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(bytes)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for MessagePayload<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self::Bytes(bytes)
    }
}

/// The payload of a message, owned: text or bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OwnedPayload {
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

impl OwnedPayload {
    /// The payload, borrowed.
    #[must_use]
    pub fn as_payload(&self) -> MessagePayload<'_> {
        match self {
            Self::Text(text) => MessagePayload::Text(text),
            Self::Bytes(bytes) => MessagePayload::Bytes(bytes),
        }
    }
}

impl From<String> for OwnedPayload {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for OwnedPayload {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Vec<u8>> for OwnedPayload {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

/// An input of a room that comes from outside. (Its timer is its own.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A client connected.
    Connect(ClientId),
    /// A client disconnected.
    Disconnect(ClientId),
    /// A client sent a message.
    Message(ClientId, MessagePayload<'a>),
}

impl<'a> Event<'a> {
    /// A message of `client`: text from a `&str`, bytes from a `&[u8]`.
    pub fn message(client: ClientId, payload: impl Into<MessagePayload<'a>>) -> Self {
        Self::Message(client, payload.into())
    }

    /// The client that caused it.
    #[must_use]
    pub const fn client(&self) -> ClientId {
        self.header().client()
    }

    /// The length of its payload in bytes; 0 if it has none.
    #[must_use]
    pub const fn payload_len(&self) -> usize {
        self.payload().len()
    }

    /// The event without its payload.
    #[must_use]
    pub const fn header(&self) -> EventHeader {
        match *self {
            Self::Connect(client) => EventHeader::Connect(client),
            Self::Disconnect(client) => EventHeader::Disconnect(client),
            Self::Message(client, _) => EventHeader::Message(client),
        }
    }

    /// Its payload; no bytes if it is not a message.
    #[must_use]
    pub const fn payload(&self) -> MessagePayload<'a> {
        match *self {
            Self::Connect(_) | Self::Disconnect(_) => MessagePayload::EMPTY,
            Self::Message(_, payload) => payload,
        }
    }
}

/// An [`Event`] without its payload, for queues that store payloads in one buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventHeader {
    /// A client connected.
    Connect(ClientId),
    /// A client disconnected.
    Disconnect(ClientId),
    /// A client sent a message.
    Message(ClientId),
}

impl EventHeader {
    /// The client that caused the event.
    #[must_use]
    pub const fn client(self) -> ClientId {
        match self {
            Self::Connect(client) | Self::Disconnect(client) | Self::Message(client) => client,
        }
    }

    /// The event with this payload, which only a message has.
    #[must_use]
    pub const fn with_payload(self, payload: MessagePayload<'_>) -> Event<'_> {
        match self {
            Self::Connect(client) => Event::Connect(client),
            Self::Disconnect(client) => Event::Disconnect(client),
            Self::Message(client) => Event::Message(client, payload),
        }
    }
}

/// An [`Event`] that owns its payload, to be sent between tasks or kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnedEvent {
    /// A client connected.
    Connect(ClientId),
    /// A client disconnected.
    Disconnect(ClientId),
    /// A client sent a message.
    Message(ClientId, OwnedPayload),
}

impl OwnedEvent {
    /// A message of `client`: text from a string, bytes from a `Vec<u8>`.
    pub fn message(client: ClientId, payload: impl Into<OwnedPayload>) -> Self {
        Self::Message(client, payload.into())
    }

    /// The event, borrowed.
    #[must_use]
    pub fn as_event(&self) -> Event<'_> {
        match self {
            Self::Connect(client) => Event::Connect(*client),
            Self::Disconnect(client) => Event::Disconnect(*client),
            Self::Message(client, payload) => Event::Message(*client, payload.as_payload()),
        }
    }
}

/// An output of a room. Outputs are in the order in which they happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output<'a> {
    /// The room handles the connect of this client: messages from here on may be for it, and those
    /// before were not, not even broadcasts that were sent while its connect waited.
    Joined(ClientId),
    /// The room handles the disconnect of this client: messages from here on are not for it.
    Left(ClientId),
    /// The guest sends a message.
    Message(OutputMessage<'a>),
    /// The timer is to fire once, after this time; it replaces one that was set before. Zero is at
    /// once. Only of an [unmanaged](crate::Room::unmanaged) room.
    SetTimer(Duration),
    /// The timer is not to fire any more: the guest cancels it, or restarts. Only of an
    /// [unmanaged](crate::Room::unmanaged) room.
    CancelTimer,
}

impl<'a> Output<'a> {
    /// The message, if it is one.
    #[must_use]
    pub const fn message(self) -> Option<OutputMessage<'a>> {
        match self {
            Self::Message(message) => Some(message),
            _ => None,
        }
    }
}

/// An [`Output`] without its payload.
#[derive(Clone, Copy, Debug)]
pub(crate) enum OutputHeader {
    Joined(ClientId),
    Left(ClientId),
    Message(MessageRecipient),
    /// In milliseconds.
    SetTimer(u32),
    CancelTimer,
}

impl OutputHeader {
    /// A timer that is set to fire after this many milliseconds, or cancelled.
    pub(crate) const fn timer(ms_delay: Option<u32>) -> Self {
        match ms_delay {
            Some(ms_delay) => Self::SetTimer(ms_delay),
            None => Self::CancelTimer,
        }
    }

    pub(crate) const fn is_message(self) -> bool {
        matches!(self, Self::Message(_))
    }

    pub(crate) const fn with_payload(self, payload: MessagePayload<'_>) -> Output<'_> {
        match self {
            Self::Joined(client) => Output::Joined(client),
            Self::Left(client) => Output::Left(client),
            Self::Message(recipient) => Output::Message(OutputMessage { recipient, payload }),
            Self::SetTimer(ms_delay) => Output::SetTimer(Duration::from_millis(ms_delay as u64)),
            Self::CancelTimer => Output::CancelTimer,
        }
    }
}

/// A message that a room sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputMessage<'a> {
    /// Its recipients.
    pub recipient: MessageRecipient,
    /// Its payload.
    pub payload: MessagePayload<'a>,
}
