//! The two interfaces between a host and a guest, as plain data and pure functions that do not
//! depend on an interpreter.
//!
//! ABI 0.2 is the documented one (`stateroom-wasm` 0.2, and guests written by hand in any
//! language): one export for each kind of event, numbers for recipients. ABI 0.4
//! (`stateroom-wasm` 0.4) has one export and one import that carry messages encoded with bincode.
//! The sources are the published crates `stateroom-wasm-host` 0.2.9 and 0.4.4.

mod check;
mod description;
mod signature;
mod v0_2;
mod v0_4;
mod versions;
#[cfg_attr(not(feature = "wasi"), path = "wasi_off.rs")]
pub(crate) mod wasi;

pub use self::{
    check::AbiProblem,
    signature::{ExternKind, Signature, ValueType},
    v0_4::DecodeError,
};
// For tests and fuzz targets; not part of the public API.
#[cfg(feature = "snapshot")]
pub(crate) use self::description::SAVE;
pub(crate) use self::{
    check::{ModuleShape, check},
    description::{CONSTRUCTOR, ENV, Handlers, MEMORY, Parameters},
    versions::find_versions,
};
#[doc(hidden)]
pub use self::{
    v0_2::decode_recipient,
    v0_4::{Request, decode, encode_into, encoded_len},
};

use self::description::Abi;
use crate::event::{ClientId, MessagePayload};
use core::fmt;

/// The interface that a module uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AbiVersion {
    /// The documented interface: `jam_malloc`, `connect`, `message`, `send_message`, ….
    V0_2,
    /// The interface of `stateroom-wasm` 0.4: `stateroom_recv`, `stateroom_send`.
    V0_4,
}

/// An ABI is a file that describes it, and an arm in each of these functions. They match instead of
/// calling through pointers, since two of them run for each event.
impl AbiVersion {
    pub(crate) const NEWEST_FIRST: [Self; 2] = [Self::V0_4, Self::V0_2];

    pub(crate) const fn description(self) -> &'static Abi {
        match self {
            Self::V0_2 => &v0_2::ABI,
            Self::V0_4 => &v0_4::ABI,
        }
    }

    /// Bytes of a call's payload in the guest's memory; none if its handler takes no payload. The
    /// limits of messages and of room ids keep this far below `u32::MAX`; larger lengths saturate, and
    /// the guest's allocator refuses them.
    #[inline]
    pub(crate) fn payload_len(self, call: &Call<'_>) -> Option<u32> {
        let len = match (self, call) {
            (_, Call::Save) => return None,
            (Self::V0_2, Call::Connect(_) | Call::Disconnect(_) | Call::Timer) => return None,
            (Self::V0_2, _) => v0_2::payload(call).len(),
            (Self::V0_4, _) => v0_4::encoded_len(call),
        };
        Some(u32::try_from(len).unwrap_or(u32::MAX))
    }

    /// Writes a call's payload; `out` has its length.
    #[inline]
    pub(crate) fn write_payload(self, call: &Call<'_>, out: &mut [u8]) {
        match self {
            Self::V0_2 => out.copy_from_slice(v0_2::payload(call)),
            Self::V0_4 => v0_4::encode_into(call, out),
        }
    }
}

impl fmt::Display for AbiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.description().name)
    }
}

/// One event as it is delivered to a guest; each ABI has all of them. The last two are of optional exports
/// which are the same in each.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call<'a> {
    /// The first call, when the room is opened. ABI 0.4 does not carry the id.
    Init {
        /// The id of the room.
        room_id: &'a str,
    },
    /// A client joined.
    Connect(ClientId),
    /// A client left.
    Disconnect(ClientId),
    /// A client sent a message.
    Message(ClientId, MessagePayload<'a>),
    /// The timer fired.
    Timer,
    /// The guest is to return its state, for a guest of another module.
    Save,
    /// A fresh guest is given the state that one of another module has returned.
    Load(&'a [u8]),
}
