//! The client's end of a session, without I/O.

use crate::{
    frame::{Frame, InvalidFrame},
    window::{InvalidCount, Window, WindowFull},
};
use alloc::{string::String, vec::Vec};
use core::fmt;

/// A WebSocket message, to be sent or as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
}

/// A message where it was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageRef<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
}

impl From<MessageRef<'_>> for Message {
    fn from(message: MessageRef<'_>) -> Self {
        match message {
            MessageRef::Text(text) => Self::Text(text.into()),
            MessageRef::Binary(bytes) => Self::Binary(bytes.into()),
        }
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }
}

/// What a frame from the server means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming<M = Message> {
    /// A message of the room, exactly once and in order.
    Message(M),
    /// A session began. If there was one before, it is lost: the room has seen the client leave, and what
    /// was not acknowledged may or may not have arrived.
    New {
        /// Whether there was a session before.
        was_lost: bool,
    },
    /// The session goes on. [`ClientSession::unacknowledged`] are to be sent again, in order, before
    /// anything else.
    Resumed,
    /// Nothing for the program.
    Nothing,
}

/// Why a connection must be given up. The session may go on over another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// The server has sent what is no frame, or not now.
    InvalidFrame,
    /// The server has counted what was never sent.
    InvalidCount,
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidFrame => InvalidFrame.fmt(f),
            Self::InvalidCount => InvalidCount.fmt(f),
        }
    }
}

impl core::error::Error for ClientError {}

/// A session of a client, over as many connections as it takes.
///
/// For each connection: send [`hello`](Self::hello), pass what is received to
/// [`receive`](Self::receive), and after the first of these send what it says. Then messages pass
/// [`send`](Self::send), and [`ack`](Self::ack) is sent now and then.
#[derive(Debug)]
pub struct ClientSession {
    secret: Option<String>,
    sent: Window<Message>,
    received: u64,
    acknowledged: u64,
    is_open: bool,
    max_messages: usize,
    max_bytes: usize,
}

/// Received messages after which one acknowledges.
const ACK_INTERVAL: u64 = 16;

impl ClientSession {
    /// A session that has not begun, which keeps so many messages, and bytes of them, that are not
    /// acknowledged.
    #[must_use]
    pub const fn new(max_messages: usize, max_bytes: usize) -> Self {
        Self {
            secret: None,
            sent: Window::continuing(0),
            received: 0,
            acknowledged: 0,
            is_open: false,
            max_messages,
            max_bytes,
        }
    }

    /// A connection was opened: its first frame.
    pub fn hello(&mut self) -> String {
        use alloc::string::ToString;
        self.is_open = false;
        self.acknowledged = self.received;
        let secret = self.secret.as_deref();
        Frame::Hello(secret.map(|secret| (self.received, secret))).to_string()
    }

    /// Whether messages may be sent: the server has replied to the hello.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.is_open
    }

    /// A frame of the server.
    ///
    /// # Errors
    ///
    /// If the connection must be given up.
    pub fn receive(&mut self, message: &Message) -> Result<Incoming, ClientError> {
        let frame = match message {
            Message::Text(text) => Frame::from_text(text),
            Message::Binary(bytes) => Frame::from_bytes(bytes),
        };
        let frame = frame.map_err(|InvalidFrame| ClientError::InvalidFrame)?;
        Ok(match self.receive_frame(frame)? {
            Incoming::Message(message) => Incoming::Message(message.into()),
            Incoming::New { was_lost } => Incoming::New { was_lost },
            Incoming::Resumed => Incoming::Resumed,
            Incoming::Nothing => Incoming::Nothing,
        })
    }

    /// As [`receive`](Self::receive), without copying the message.
    ///
    /// # Errors
    ///
    /// If the connection must be given up.
    pub fn receive_frame<'f>(
        &mut self,
        frame: Frame<'f>,
    ) -> Result<Incoming<MessageRef<'f>>, ClientError> {
        let invalid_count = |InvalidCount| ClientError::InvalidCount;
        match frame {
            Frame::New(secret) if !self.is_open => {
                let was_lost = self.secret.replace(secret.into()).is_some();
                // What was queued before the first session began is a part of it.
                if was_lost {
                    self.sent = Window::default();
                }
                (self.received, self.acknowledged) = (0, 0);
                self.is_open = true;
                Ok(Incoming::New { was_lost })
            }
            Frame::Resumed(received) if !self.is_open && self.secret.is_some() => {
                self.sent.acknowledge(received).map_err(invalid_count)?;
                self.is_open = true;
                Ok(Incoming::Resumed)
            }
            Frame::Text(text) if self.is_open => {
                self.received += 1;
                Ok(Incoming::Message(MessageRef::Text(text)))
            }
            Frame::Bytes(bytes) if self.is_open => {
                self.received += 1;
                Ok(Incoming::Message(MessageRef::Binary(bytes)))
            }
            Frame::Ack(received) if self.is_open => {
                self.sent.acknowledge(received).map_err(invalid_count)?;
                Ok(Incoming::Nothing)
            }
            _ => Err(ClientError::InvalidFrame),
        }
    }

    /// Keeps a message until it is acknowledged, and returns its frame: to be sent now if the session
    /// [is open](Self::is_open).
    ///
    /// # Errors
    ///
    /// If too much is kept; then nothing has happened.
    pub fn send(&mut self, message: Message) -> Result<Message, WindowFull> {
        let frame = frame_of(&message);
        self.keep(message)?;
        Ok(frame)
    }

    /// As [`send`](Self::send), for those who make the frame themselves.
    ///
    /// # Errors
    ///
    /// If too much is kept; then nothing has happened.
    pub fn keep(&mut self, message: Message) -> Result<(), WindowFull> {
        self.sent.push(message, self.max_messages, self.max_bytes)
    }

    /// The frames of messages that the server may not have received.
    pub fn unacknowledged(&self) -> impl Iterator<Item = Message> {
        self.sent.iter().map(frame_of)
    }

    /// How many messages the server may not have received, and how many bytes they have.
    #[must_use]
    pub fn unacknowledged_size(&self) -> (usize, usize) {
        (self.sent.len(), self.sent.bytes())
    }

    /// An acknowledgement, if one is due: after some messages, or whatever was received if `now`.
    pub fn ack(&mut self, now: bool) -> Option<String> {
        use alloc::string::ToString;
        let due = if now { 1 } else { ACK_INTERVAL };
        if !self.is_open || self.received - self.acknowledged < due {
            return None;
        }
        self.acknowledged = self.received;
        Some(Frame::Ack(self.received).to_string())
    }
}

fn frame_of(message: &Message) -> Message {
    use alloc::string::ToString;
    match message {
        Message::Text(text) => Message::Text(Frame::Text(text).to_string()),
        Message::Binary(bytes) => {
            let mut frame = Vec::with_capacity(1 + bytes.len());
            frame.push(Frame::MESSAGE_PREFIX);
            frame.extend_from_slice(bytes);
            Message::Binary(frame)
        }
    }
}
