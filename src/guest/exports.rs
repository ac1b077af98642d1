//! The typed exports of a guest, and how each ABI writes what they are called with.

use super::host_state::State;
use crate::{
    abi::{self, AbiVersion, Call},
    event::MessagePayload,
};
use wasmi::{Error, Instance, Memory, Store, TypedFunc, TypedResumableCall};

pub(super) struct Exports {
    pub(super) instance: Instance,
    pub(super) memory: Memory,
    /// A WASI reactor's constructor.
    pub(super) construct: Option<TypedFunc<(), ()>>,
    pub(super) malloc: TypedFunc<u32, u32>,
    pub(super) free: TypedFunc<(u32, u32), ()>,
    pub(super) handlers: Handlers,
}

#[derive(Clone, Copy)]
pub(super) enum Handlers {
    V0_2 {
        initialize: TypedFunc<(u32, u32), ()>,
        connect: TypedFunc<u32, ()>,
        disconnect: TypedFunc<u32, ()>,
        timer: TypedFunc<(), ()>,
        message: TypedFunc<(u32, u32, u32), ()>,
        binary: TypedFunc<(u32, u32, u32), ()>,
    },
    V0_4 {
        recv: TypedFunc<(u32, u32), ()>,
    },
}

impl Exports {
    /// The check at load has seen that all of them are there.
    pub(super) fn new(
        abi: AbiVersion,
        store: &Store<State>,
        instance: Instance,
    ) -> Result<Self, Error> {
        let memory = instance
            .get_memory(store, "memory")
            .ok_or_else(|| Error::new("no memory"))?;
        let construct = instance.get_typed_func(store, "_initialize").ok();
        let (malloc, free) = match abi {
            AbiVersion::V0_2 => ("jam_malloc", "jam_free"),
            AbiVersion::V0_4 => ("stateroom_malloc", "stateroom_free"),
        };
        let malloc = instance.get_typed_func(store, malloc)?;
        let free = instance.get_typed_func(store, free)?;
        let handlers = match abi {
            AbiVersion::V0_2 => Handlers::V0_2 {
                initialize: instance.get_typed_func(store, "initialize")?,
                connect: instance.get_typed_func(store, "connect")?,
                disconnect: instance.get_typed_func(store, "disconnect")?,
                timer: instance.get_typed_func(store, "timer")?,
                message: instance.get_typed_func(store, "message")?,
                binary: instance.get_typed_func(store, "binary")?,
            },
            AbiVersion::V0_4 => Handlers::V0_4 {
                recv: instance.get_typed_func(store, "stateroom_recv")?,
            },
        };
        Ok(Self {
            instance,
            memory,
            construct,
            malloc,
            free,
            handlers,
        })
    }
}

impl Handlers {
    pub(super) const fn abi(&self) -> AbiVersion {
        match self {
            Self::V0_2 { .. } => AbiVersion::V0_2,
            Self::V0_4 { .. } => AbiVersion::V0_4,
        }
    }

    /// The export that takes a call.
    pub(super) const fn name(&self, call: &Call<'_>) -> &'static str {
        match (self, call) {
            (Self::V0_4 { .. }, _) => "stateroom_recv",
            (_, Call::Init { .. }) => "initialize",
            (_, Call::Connect(_)) => "connect",
            (_, Call::Disconnect(_)) => "disconnect",
            (_, Call::Timer) => "timer",
            (_, Call::Message(_, MessagePayload::Text(_))) => "message",
            (_, Call::Message(_, MessagePayload::Bytes(_))) => "binary",
        }
    }

    /// Begins a call, with its payload at `ptr`.
    pub(super) fn call(
        &self,
        store: &mut Store<State>,
        call: &Call<'_>,
        ptr: u32,
        len: u32,
    ) -> Result<TypedResumableCall<()>, Error> {
        match (self, *call) {
            (Self::V0_4 { recv }, _) => recv.call_resumable(store, (ptr, len)),
            (Self::V0_2 { initialize, .. }, Call::Init { .. }) => {
                initialize.call_resumable(store, (ptr, len))
            }
            (Self::V0_2 { connect, .. }, Call::Connect(client)) => {
                connect.call_resumable(store, client.0)
            }
            (Self::V0_2 { disconnect, .. }, Call::Disconnect(client)) => {
                disconnect.call_resumable(store, client.0)
            }
            (Self::V0_2 { timer, .. }, Call::Timer) => timer.call_resumable(store, ()),
            (Self::V0_2 { message, .. }, Call::Message(client, MessagePayload::Text(_))) => {
                message.call_resumable(store, (client.0, ptr, len))
            }
            (Self::V0_2 { binary, .. }, Call::Message(client, MessagePayload::Bytes(_))) => {
                binary.call_resumable(store, (client.0, ptr, len))
            }
        }
    }

    /// Bytes that the guest is handed in its memory for a call. The limits of messages and of room
    /// ids keep this far below what 32 bits hold; beyond, the guest is asked for what it cannot
    /// have.
    pub(super) fn payload_len(&self, call: &Call<'_>) -> u32 {
        let len = match self {
            Self::V0_4 { .. } => abi::encoded_len(call),
            Self::V0_2 { .. } => plain_payload(call).len(),
        };
        u32::try_from(len).unwrap_or(u32::MAX)
    }

    /// Writes those bytes.
    pub(super) fn write_payload(&self, call: &Call<'_>, out: &mut [u8]) {
        match self {
            Self::V0_4 { .. } => abi::encode_into(call, out),
            Self::V0_2 { .. } => out.copy_from_slice(plain_payload(call)),
        }
    }
}

/// ABI 0.2 hands over text and bytes as they are, and the client as a number beside them.
const fn plain_payload<'a>(call: &Call<'a>) -> &'a [u8] {
    match *call {
        Call::Init { room_id } => room_id.as_bytes(),
        Call::Message(_, payload) => payload.as_bytes(),
        Call::Connect(_) | Call::Disconnect(_) | Call::Timer => &[],
    }
}
