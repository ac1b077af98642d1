//! Frames: what a WebSocket message is.

use core::fmt;

/// A WebSocket message of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A room's message or a client's: text.
    Text(&'a str),
    /// A room's message or a client's: bytes.
    Bytes(&'a [u8]),
    /// The client's first frame: how many messages of its session it has received, and the session's
    /// secret; or that it has none.
    Hello(Option<(u64, &'a str)>),
    /// The server's first frame: a session begins, with this secret.
    New(&'a str),
    /// The server's first frame: the session goes on; the server has received so many of its messages.
    Resumed(u64),
    /// So many messages were received, from the session's beginning, and will not be lost.
    Ack(u64),
    /// The client leaves; the session is over.
    Goodbye,
}

/// The WebSocket message is none of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidFrame;

impl fmt::Display for InvalidFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the message is none of stateroom.resume.1")
    }
}

impl core::error::Error for InvalidFrame {}

/// The first character of a message, and the first byte of a binary one.
const MESSAGE: char = 'm';

/// Longest secret of a session.
const MAX_SECRET_BYTES: usize = 64;

impl<'a> Frame<'a> {
    /// The byte before the payload of [`Frame::Text`] and [`Frame::Bytes`].
    pub const MESSAGE_PREFIX: u8 = MESSAGE as u8;

    /// Reads a WebSocket message that is text.
    ///
    /// # Errors
    ///
    /// If it is none of the protocol.
    pub fn from_text(text: &'a str) -> Result<Self, InvalidFrame> {
        let mut chars = text.chars();
        let kind = chars.next().ok_or(InvalidFrame)?;
        let rest = chars.as_str();
        match kind {
            MESSAGE => Ok(Self::Text(rest)),
            'h' if rest.is_empty() => Ok(Self::Hello(None)),
            'h' => {
                let (received, secret) = rest.split_once(' ').ok_or(InvalidFrame)?;
                Ok(Self::Hello(Some((count(received)?, self::secret(secret)?))))
            }
            'n' => secret(rest).map(Self::New),
            'r' => count(rest).map(Self::Resumed),
            'a' => count(rest).map(Self::Ack),
            'g' if rest.is_empty() => Ok(Self::Goodbye),
            _ => Err(InvalidFrame),
        }
    }

    /// Reads a WebSocket message that is binary.
    ///
    /// # Errors
    ///
    /// If it is none of the protocol.
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self, InvalidFrame> {
        match bytes.split_first() {
            Some((&Self::MESSAGE_PREFIX, payload)) => Ok(Self::Bytes(payload)),
            _ => Err(InvalidFrame),
        }
    }
}

/// The text of a frame; that of [`Frame::Bytes`], which is not text, is empty.
impl fmt::Display for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{MESSAGE}{text}"),
            Self::Bytes(_) => Ok(()),
            Self::Hello(None) => f.write_str("h"),
            Self::Hello(Some((received, secret))) => write!(f, "h{received} {secret}"),
            Self::New(secret) => write!(f, "n{secret}"),
            Self::Resumed(received) => write!(f, "r{received}"),
            Self::Ack(received) => write!(f, "a{received}"),
            Self::Goodbye => f.write_str("g"),
        }
    }
}

/// Decimal digits, without zeros before them, of a number that JavaScript can count to.
fn count(text: &str) -> Result<u64, InvalidFrame> {
    const MAX: u64 = 1 << 53;
    let is_short = text == "0" || !text.starts_with('0');
    let is_number = is_short && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| *number <= MAX);
    number.filter(|_| is_number).ok_or(InvalidFrame)
}

fn secret(text: &str) -> Result<&str, InvalidFrame> {
    let is_character = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let is_secret = (1..=MAX_SECRET_BYTES).contains(&text.len()) && text.bytes().all(is_character);
    is_secret.then_some(text).ok_or(InvalidFrame)
}
