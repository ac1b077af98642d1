//! ABI 0.4 and the codec of its messages. Source: `stateroom-wasm-macro` 0.4.0.
//!
//! Messages are bincode 1.3 with its defaults (little endian, fixed-width integers, enum tags of 32
//! bits, lengths of 64). Source: `stateroom` 0.4.4, `messages.rs` and `message_recipient.rs`, whose
//! enums are numbered in the order of their variants.

use super::{
    Call,
    description::{Abi, Handler, Handlers, Parameters},
};
use crate::event::{ClientId, MessagePayload, MessageRecipient};
use core::fmt;

const RECV: &str = "stateroom_recv";

pub(super) const ABI: Abi = Abi {
    name: "0.4",
    malloc: "stateroom_malloc",
    free: "stateroom_free",
    // `stateroom-wasm-host` 0.4.4, `WasmHost::new`; from the time when a guest was given the id.
    allocates_room_id: true,
    // Of the file of a panic in `stateroom_recv`, which is in the SDK's crate.
    sdk_text: "stateroom-wasm-0.4.",
    handlers: Handlers::all(Handler::new(RECV, Parameters::Payload)),
    identified_by: Some(RECV),
    imports: &[("stateroom_send", "ii:")],
    version_globals: &[("STATEROOM_API_VERSION", 1), ("STATEROOM_API_PROTOCOL", 0)],
    versions_after_init: false,
};

/// One message from a guest, the argument of `stateroom_send`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Send a message.
    Message {
        /// The clients that receive it.
        recipient: MessageRecipient,
        /// Its content.
        payload: MessagePayload<'a>,
    },
    /// Set the timer.
    SetTimer {
        /// The delay in milliseconds.
        ms_delay: u32,
    },
}

/// Why a guest's bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end before the message does.
    Truncated,
    /// A tag that no variant of an enum has.
    UnknownTag {
        /// The name of the enum.
        of: &'static str,
        /// The tag.
        tag: u32,
    },
    /// A text that is not UTF-8.
    NotUtf8,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("the encoded message is cut off"),
            Self::UnknownTag { of, tag } => write!(f, "{tag} is no variant of {of}"),
            Self::NotUtf8 => f.write_str("the encoded text is not UTF-8"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// Bytes of a message before its payload: tag, sender, kind, length.
const MESSAGE_HEADER: usize = 4 + 4 + 4 + 8;

/// The number of bytes that [`encode_into`] writes for a call.
#[must_use]
pub const fn encoded_len(call: &Call<'_>) -> usize {
    match call {
        Call::Init { .. } | Call::Timer => 4,
        Call::Connect(_) | Call::Disconnect(_) => 8,
        Call::Message(_, payload) => MESSAGE_HEADER + payload.len(),
        Call::Save => 0,
        Call::Load(state) => state.len(),
    }
}

/// Encodes a call for `stateroom_recv`.
///
/// # Panics
///
/// If `out` is not [`encoded_len`] bytes long.
pub fn encode_into(call: &Call<'_>, out: &mut [u8]) {
    let put = |out: &mut [u8], words: &[u32]| {
        for (bytes, word) in out.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
    };
    assert_eq!(out.len(), encoded_len(call), "the buffer must fit the call");
    match *call {
        Call::Init { .. } => put(out, &[0]),
        Call::Connect(client) => put(out, &[1, client.0]),
        Call::Disconnect(client) => put(out, &[2, client.0]),
        Call::Message(client, payload) => {
            let (header, body) = out.split_at_mut(MESSAGE_HEADER);
            let kind = match payload {
                MessagePayload::Bytes(_) => 0,
                MessagePayload::Text(_) => 1,
            };
            put(header, &[3, client.0, kind]);
            header[12..].copy_from_slice(&(payload.len() as u64).to_le_bytes());
            body.copy_from_slice(payload.as_bytes());
        }
        Call::Timer => put(out, &[4]),
        Call::Save => {}
        // It is the guests' own encoding.
        Call::Load(state) => out.copy_from_slice(state),
    }
}

/// Decodes the argument of `stateroom_send`.
///
/// Bytes after the message are ignored, as the published host ignores them.
///
/// # Errors
///
/// If the bytes are not a message.
pub fn decode(bytes: &[u8]) -> Result<Request<'_>, DecodeError> {
    let mut reader = Reader(bytes);
    match reader.u32()? {
        0 => {
            let recipient = match reader.u32()? {
                0 => MessageRecipient::Broadcast,
                1 => MessageRecipient::Client(ClientId(reader.u32()?)),
                2 => MessageRecipient::EveryoneExcept(ClientId(reader.u32()?)),
                tag => {
                    return Err(DecodeError::UnknownTag {
                        of: "MessageRecipient",
                        tag,
                    });
                }
            };
            let payload = match reader.u32()? {
                0 => MessagePayload::Bytes(reader.bytes()?),
                1 => MessagePayload::Text(
                    core::str::from_utf8(reader.bytes()?).map_err(|_| DecodeError::NotUtf8)?,
                ),
                tag => {
                    return Err(DecodeError::UnknownTag {
                        of: "MessagePayload",
                        tag,
                    });
                }
            };
            Ok(Request::Message { recipient, payload })
        }
        1 => Ok(Request::SetTimer {
            ms_delay: reader.u32()?,
        }),
        tag => Err(DecodeError::UnknownTag {
            of: "MessageFromProcess",
            tag,
        }),
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    /// A length and that many bytes. A length that does not fit into `usize` is truncated input, too.
    fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = u64::from_le_bytes(self.array()?);
        self.take(usize::try_from(len).map_err(|_| DecodeError::Truncated)?)
    }
}
