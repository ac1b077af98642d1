//! The frames that are exchanged, as [the module](super) describes them.

use stateroom_wasmi_host::{ClientId, EventError, MessageRecipient};

/// The version of the format.
pub const VERSION: u8 = 1;

/// The kinds of frames.
pub(crate) mod kind {
    pub(crate) const HELLO: u8 = 0x01;
    pub(crate) const ACK: u8 = 0x02;
    pub(crate) const RESEND: u8 = 0x03;
    pub(crate) const BUSY: u8 = 0x04;
    pub(crate) const PING: u8 = 0x05;
    /// From here on, frames are numbered.
    pub(crate) const NUMBERED: u8 = 0x10;
    pub(crate) const CONNECT: u8 = 0x10;
    pub(crate) const DISCONNECT: u8 = 0x11;
    pub(crate) const TEXT: u8 = 0x12;
    pub(crate) const BYTES: u8 = 0x13;
    pub(crate) const ROOM: u8 = 0x20;
    pub(crate) const CLOSED: u8 = 0x21;
    pub(crate) const JOINED: u8 = 0x22;
    pub(crate) const REFUSED: u8 = 0x23;
    pub(crate) const SAID_TEXT: u8 = 0x24;
    pub(crate) const SAID_BYTES: u8 = 0x25;
}

/// What stands before the payload of a message to a room: the room and the client.
pub(crate) const EVENT_HEAD: usize = 5;
/// What stands before the payload of a message of a room: the room and the recipient.
pub(crate) const OUTPUT_HEAD: usize = 6;

/// A greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) version: u8,
    /// Names the session; 0 if there is none.
    pub(crate) session: u32,
    /// The longest body that the sender takes.
    pub(crate) longest_body: u32,
    /// Bytes that the sender takes before it answers.
    pub(crate) window: u32,
}

impl Hello {
    pub(crate) const BYTES: usize = 13;

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [self.version; Self::BYTES];
        bytes[1..5].copy_from_slice(&self.session.to_le_bytes());
        bytes[5..9].copy_from_slice(&self.longest_body.to_le_bytes());
        bytes[9..].copy_from_slice(&self.window.to_le_bytes());
        bytes
    }

    /// Reads a greeting. Of one of another version, the rest may say something else, or be missing.
    pub(crate) fn from_bytes(body: &[u8]) -> Option<Self> {
        let (version, rest) = body.split_first()?;
        let mut numbers = rest
            .chunks_exact(4)
            .map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
        if *version != VERSION {
            return Some(Self {
                version: *version,
                session: 0,
                longest_body: 0,
                window: 0,
            });
        }
        let hello = Self {
            version: *version,
            session: numbers.next()?,
            longest_body: numbers.next()?,
            window: numbers.next()?,
        };
        Some(hello)
    }
}

/// The room and the client that a frame begins with, and what follows.
pub(crate) fn room_and_client(body: &[u8]) -> Option<(u8, ClientId, &[u8])> {
    let (room, rest) = body.split_first()?;
    let (client, rest) = rest.split_first_chunk()?;
    Some((*room, ClientId(u32::from_le_bytes(*client)), rest))
}

/// The room, the recipient and the payload of what a room says.
#[cfg(feature = "bridge")]
pub(crate) fn room_and_recipient(body: &[u8]) -> Option<(u8, MessageRecipient, &[u8])> {
    let (room, [tag, rest @ ..]) = body.split_first()? else {
        return None;
    };
    let (client, payload) = rest.split_first_chunk()?;
    let client = ClientId(u32::from_le_bytes(*client));
    let recipient = match tag {
        0 => MessageRecipient::Broadcast,
        1 => MessageRecipient::Client(client),
        2 => MessageRecipient::EveryoneExcept(client),
        _ => return None,
    };
    Some((*room, recipient, payload))
}

/// The room and the recipient.
pub(crate) fn output_head(room: u8, recipient: MessageRecipient) -> [u8; OUTPUT_HEAD] {
    let (tag, ClientId(client)) = match recipient {
        MessageRecipient::Broadcast => (0, ClientId(0)),
        MessageRecipient::Client(client) => (1, client),
        MessageRecipient::EveryoneExcept(client) => (2, client),
    };
    let [a, b, c, d] = client.to_le_bytes();
    [room, tag, a, b, c, d]
}

/// The room and the client.
pub(crate) const fn event_head(room: u8, ClientId(client): ClientId) -> [u8; EVENT_HEAD] {
    let [a, b, c, d] = client.to_le_bytes();
    [room, a, b, c, d]
}

/// Why a room did not take an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The board has no room of this number, or it is closed.
    NoSuchRoom = 1,
    /// The room has its limit of clients.
    RoomFull = 2,
    /// The message is longer than the room takes.
    MessageTooLong = 3,
    /// The client id is not one that a room accepts.
    InvalidClient = 4,
    /// The client is connected already.
    AlreadyConnected = 5,
    /// The text is not UTF-8.
    NotUtf8 = 6,
}

impl Reason {
    #[cfg(feature = "bridge")]
    pub(crate) const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::NoSuchRoom,
            2 => Self::RoomFull,
            3 => Self::MessageTooLong,
            4 => Self::InvalidClient,
            5 => Self::AlreadyConnected,
            6 => Self::NotUtf8,
            _ => return None,
        })
    }

    /// What to tell the other side; nothing where it will know by itself.
    pub(crate) const fn of(error: EventError) -> Option<Self> {
        match error {
            EventError::RoomFull { .. } => Some(Self::RoomFull),
            EventError::MessageTooLong { .. } | EventError::InboxFull => Some(Self::MessageTooLong),
            EventError::InvalidClientId(_) => Some(Self::InvalidClient),
            EventError::AlreadyConnected(_) => Some(Self::AlreadyConnected),
            EventError::NotConnected(_) => None,
            // Unknown and closed rooms, and errors that a later version of the core adds.
            _ => Some(Self::NoSuchRoom),
        }
    }
}
