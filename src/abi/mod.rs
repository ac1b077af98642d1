//! The two interfaces between a host and a guest, as plain data and pure functions: nothing here
//! knows of an interpreter.
//!
//! ABI 0.2 is the documented one (`stateroom-wasm` 0.2, and guests written by hand in any
//! language): one export for each kind of event, numbers for recipients. ABI 0.4
//! (`stateroom-wasm` 0.4) has one export and one import that carry messages encoded with bincode.
//! Its source is the published crates `stateroom-wasm-host` 0.2.9 and 0.4.4.

mod check;
mod codec;
mod signature;
mod tables;
mod versions;

pub use self::{
    check::AbiProblem,
    codec::{DecodeError, Request, decode, encode_into, encoded_len},
    signature::{ExternKind, Signature, ValueType},
};
pub(crate) use self::{
    check::{ModuleShape, check},
    tables::{WASI, versions, wasi_signature},
    versions::find_versions,
};

use crate::event::{ClientId, MessageRecipient};
use core::fmt;

/// Which of the two interfaces a module speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AbiVersion {
    /// The documented interface: `jam_malloc`, `connect`, `message`, `send_message`, ….
    V0_2,
    /// The interface of `stateroom-wasm` 0.4: `stateroom_recv`, `stateroom_send`.
    V0_4,
}

impl fmt::Display for AbiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V0_2 => "0.2",
            Self::V0_4 => "0.4",
        })
    }
}

/// Something that a guest is told in one call. Both ABIs can say each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call<'a> {
    /// The first call: the room begins. ABI 0.4 does not carry the id.
    Init {
        /// The id of the room.
        room_id: &'a str,
    },
    /// A client joined.
    Connect(ClientId),
    /// A client left.
    Disconnect(ClientId),
    /// A client sent a message.
    Message(ClientId, crate::event::MessagePayload<'a>),
    /// The timer ran off.
    Timer,
}

/// The recipient that ABI 0.2 writes as one number: 0 is everybody, `n > 0` is client n, `n < 0`
/// is everybody but client −n.
///
/// `None` for `i32::MIN`, whose negation is no client id.
#[must_use]
pub fn decode_recipient(recipient: i32) -> Option<MessageRecipient> {
    match recipient {
        0 => Some(MessageRecipient::Broadcast),
        i32::MIN => None,
        1.. => Some(MessageRecipient::Client(ClientId(recipient.unsigned_abs()))),
        _ => Some(MessageRecipient::EveryoneExcept(ClientId(
            recipient.unsigned_abs(),
        ))),
    }
}
