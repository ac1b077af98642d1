//! What a room is given and what it sends.

use core::fmt;

/// The number that names a client within a room.
///
/// The two ABIs carry it in 31 bits, so a room accepts clients from 1 to [`ClientId::MAX`]; a guest
/// may name any number as a recipient, also one that nobody has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u32);

impl ClientId {
    /// The largest number a client may have: 2³¹ − 1.
    pub const MAX: Self = Self(i32::MAX as u32);

    /// Whether a client may have this number.
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

/// Who is to get a message of a room.
///
/// It is handed on as the guest gave it, so that a transport that can multicast does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageRecipient {
    /// Every client of the room.
    Broadcast,
    /// One client. It may be gone, or never have been there: then nobody gets the message.
    Client(ClientId),
    /// Every client of the room but one.
    EveryoneExcept(ClientId),
}

impl MessageRecipient {
    /// Whether `client` is among the recipients.
    #[must_use]
    pub fn includes(self, client: ClientId) -> bool {
        match self {
            Self::Broadcast => true,
            Self::Client(one) => one == client,
            Self::EveryoneExcept(one) => one != client,
        }
    }
}

/// What a message says: text or bytes, borrowed from whoever holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessagePayload<'a> {
    /// Text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
}

impl<'a> MessagePayload<'a> {
    /// The payload as bytes; those of a text are UTF-8.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }

    /// The text, unless these are bytes.
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

    /// Whether the payload has no bytes.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
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

/// Something that happens to a room from outside. (Its timer is the room's own affair.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A client joined.
    Connect(ClientId),
    /// A client left.
    Disconnect(ClientId),
    /// A client sent a message.
    Message(ClientId, MessagePayload<'a>),
}

impl<'a> Event<'a> {
    /// A message of `client`: text from a `&str`, bytes from a `&[u8]`.
    pub fn message(client: ClientId, payload: impl Into<MessagePayload<'a>>) -> Self {
        Self::Message(client, payload.into())
    }

    /// The client that it is about.
    #[must_use]
    pub const fn client(&self) -> ClientId {
        match *self {
            Self::Connect(client) | Self::Disconnect(client) | Self::Message(client, _) => client,
        }
    }

    /// The length of its message in bytes, if it is one.
    #[must_use]
    pub const fn payload_len(&self) -> usize {
        match *self {
            Self::Connect(_) | Self::Disconnect(_) => 0,
            Self::Message(_, payload) => payload.len(),
        }
    }
}

/// A message that a room sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output<'a> {
    /// Who is to get it.
    pub recipient: MessageRecipient,
    /// What it says.
    pub payload: MessagePayload<'a>,
}
