//! The frames' kinds and bodies, as `PROTOCOL.md` specifies them.

use stateroom_wasmi_host::{ClientId, EventError, MessageRecipient};

/// The version of the protocol, which each hello carries.
pub const VERSION: u8 = 1;

/// The kinds of frames.
pub(crate) mod kind {
    pub(crate) const HELLO: u8 = 0x01;
    pub(crate) const ACK: u8 = 0x02;
    /// Retransmit from here (HDLC's reject).
    pub(crate) const REJ: u8 = 0x03;
    /// Receiver not ready.
    pub(crate) const RNR: u8 = 0x04;
    pub(crate) const PING: u8 = 0x05;
    /// Kinds from here on are numbered frames.
    pub(crate) const NUMBERED: u8 = 0x10;
    pub(crate) const CONNECT: u8 = 0x10;
    pub(crate) const DISCONNECT: u8 = 0x11;
    pub(crate) const TEXT: u8 = 0x12;
    pub(crate) const BYTES: u8 = 0x13;
    pub(crate) const ROOM_OPENED: u8 = 0x20;
    pub(crate) const ROOM_CLOSED: u8 = 0x21;
    pub(crate) const JOINED: u8 = 0x22;
    pub(crate) const REFUSED: u8 = 0x23;
    pub(crate) const OUTPUT_TEXT: u8 = 0x24;
    pub(crate) const OUTPUT_BYTES: u8 = 0x25;

    #[cfg(any(feature = "bridge", feature = "snapshot"))]
    pub(crate) use self::transfers::*;

    /// Of rooms on their way.
    #[cfg(any(feature = "bridge", feature = "snapshot"))]
    mod transfers {
        pub(crate) const SAVE: u8 = 0x14;
        pub(crate) const RELEASE: u8 = 0x15;
        pub(crate) const LOAD: u8 = 0x16;
        pub(crate) const LOAD_PIECE: u8 = 0x17;
        pub(crate) const TRANSFERS: u8 = 0x26;
        pub(crate) const SAVED: u8 = 0x27;
        pub(crate) const SAVED_PIECE: u8 = 0x28;
        pub(crate) const LOAD_READY: u8 = 0x29;
        pub(crate) const LOADED: u8 = 0x2a;
        pub(crate) const TRANSFER_REFUSED: u8 = 0x2b;
    }
}

/// Room and client, before the payload of a message to a room.
pub(crate) const EVENT_HEADER_BYTES: usize = 5;
/// Room and recipient, before the payload of a message from a room.
pub(crate) const OUTPUT_HEADER_BYTES: usize = 6;

/// The body of a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) version: u8,
    /// The session's id; 0 if there is none.
    pub(crate) session: u32,
    /// The longest body that the sender accepts.
    pub(crate) max_body_bytes: u32,
    /// Bytes on the wire that the sender accepts before it acknowledges.
    pub(crate) window_bytes: u32,
}

impl Hello {
    pub(crate) const BYTES: usize = 13;

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [self.version; Self::BYTES];
        bytes[1..5].copy_from_slice(&self.session.to_le_bytes());
        bytes[5..9].copy_from_slice(&self.max_body_bytes.to_le_bytes());
        bytes[9..].copy_from_slice(&self.window_bytes.to_le_bytes());
        bytes
    }

    /// Parses a hello. Other versions may define what follows the version differently, so it is
    /// ignored for these.
    pub(crate) fn from_bytes(body: &[u8]) -> Option<Self> {
        let (version, rest) = body.split_first()?;
        let mut fields = rest
            .chunks_exact(4)
            .map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
        if *version != VERSION {
            return Some(Self {
                version: *version,
                session: 0,
                max_body_bytes: 0,
                window_bytes: 0,
            });
        }
        let hello = Self {
            version: *version,
            session: fields.next()?,
            max_body_bytes: fields.next()?,
            window_bytes: fields.next()?,
        };
        Some(hello)
    }
}

/// Splits a body into room, client, and the rest.
pub(crate) fn parse_event_header(body: &[u8]) -> Option<(u8, ClientId, &[u8])> {
    let (room, rest) = body.split_first()?;
    let (client, rest) = rest.split_first_chunk()?;
    Some((*room, ClientId(u32::from_le_bytes(*client)), rest))
}

pub(crate) const fn event_header(room: u8, ClientId(client): ClientId) -> [u8; EVENT_HEADER_BYTES] {
    let [a, b, c, d] = client.to_le_bytes();
    [room, a, b, c, d]
}

/// Splits the body of an output into room, recipient and payload.
#[cfg(feature = "bridge")]
pub(crate) fn parse_output_header(body: &[u8]) -> Option<(u8, MessageRecipient, &[u8])> {
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

pub(crate) fn output_header(room: u8, recipient: MessageRecipient) -> [u8; OUTPUT_HEADER_BYTES] {
    let (tag, ClientId(client)) = match recipient {
        MessageRecipient::Broadcast => (0, ClientId(0)),
        MessageRecipient::Client(client) => (1, client),
        MessageRecipient::EveryoneExcept(client) => (2, client),
    };
    let [a, b, c, d] = client.to_le_bytes();
    [room, tag, a, b, c, d]
}

/// Why the board refused an event of a client: a connect, or a message.
///
/// The discriminants are the codes on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusalReason {
    /// The board has no room of this number, or the room is closed.
    NoSuchRoom = 1,
    /// The room has reached its limit of clients (`Limits::max_clients`).
    RoomFull = 2,
    /// The message is longer than the room, or its inbox, accepts.
    MessageTooLong = 3,
    /// The client id is not between 1 and 2³¹ − 1.
    InvalidClientId = 4,
    /// A client with this id is connected to the room.
    AlreadyConnected = 5,
    /// The payload of a text message is not UTF-8.
    InvalidUtf8 = 6,
    /// The room was saved to go to the bridge, which has not said yet what becomes of it.
    Held = 7,
}

impl RefusalReason {
    #[cfg(feature = "bridge")]
    pub(crate) const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::NoSuchRoom,
            2 => Self::RoomFull,
            3 => Self::MessageTooLong,
            4 => Self::InvalidClientId,
            5 => Self::AlreadyConnected,
            6 => Self::InvalidUtf8,
            7 => Self::Held,
            _ => return None,
        })
    }

    /// The reason to report to the bridge; `None` for events of clients that are not connected,
    /// which are ignored.
    pub(crate) const fn from_error(error: EventError) -> Option<Self> {
        match error {
            EventError::RoomFull { .. } => Some(Self::RoomFull),
            EventError::MessageTooLong { .. } => Some(Self::MessageTooLong),
            EventError::InvalidClientId(_) => Some(Self::InvalidClientId),
            EventError::AlreadyConnected(_) => Some(Self::AlreadyConnected),
            EventError::NotConnected(_) => None,
            // Unknown and closed rooms, and errors that a later version of the core adds.
            _ => Some(Self::NoSuchRoom),
        }
    }
}

/// Why a room was not saved or loaded.
///
/// The discriminants are the codes on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransferReason {
    /// The board has no such room, or it is closed.
    NoSuchRoom = 1,
    /// The snapshot is longer than the board takes, or saving or loading it takes more memory.
    TooLong = 2,
    /// There is too little memory now.
    OutOfMemory = 3,
    /// Another room is on its way.
    Busy = 4,
    /// A piece is missing, or the checksum is wrong.
    Damaged = 5,
    /// The board cannot make a room of it: the text says why.
    Rejected = 6,
    /// The room cannot be saved: the text says why.
    CannotSave = 7,
}

impl TransferReason {
    #[cfg(feature = "bridge")]
    pub(crate) const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::NoSuchRoom,
            2 => Self::TooLong,
            3 => Self::OutOfMemory,
            4 => Self::Busy,
            5 => Self::Damaged,
            6 => Self::Rejected,
            7 => Self::CannotSave,
            _ => return None,
        })
    }
}

impl core::fmt::Display for TransferReason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::NoSuchRoom => "the board has no such room",
            Self::TooLong => "the room is too large for the board",
            Self::OutOfMemory => "the board has too little memory",
            Self::Busy => "the board is saving or loading another room",
            Self::Damaged => "the snapshot arrived damaged",
            Self::Rejected => "the board cannot load the room",
            Self::CannotSave => "the board cannot save the room",
        })
    }
}

/// Reads the fields of a body.
#[cfg(any(feature = "bridge", feature = "snapshot"))]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

#[cfg(any(feature = "bridge", feature = "snapshot"))]
impl<'a> Fields<'a> {
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    /// Of four bytes.
    pub(crate) fn number(&mut self) -> Option<u32> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*bytes))
    }

    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.0
    }
}
