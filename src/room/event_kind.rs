//! An event without its payload.

use crate::{
    abi::Call,
    event::{ClientId, EventHeader, MessagePayload},
};

/// What a guest is called with, without the payload, which is stored beside it.
#[derive(Clone, Copy, Debug)]
pub(super) enum EventKind {
    /// The guest is initialised.
    Init,
    /// A fresh guest handles the connect of a client that was connected before it started.
    Rejoin(ClientId),
    /// An event that was given to the room. Only these are counted and bounded.
    Outside(EventHeader),
    /// The timer fires.
    Timer,
}

impl EventKind {
    /// The call of the guest that delivers it.
    pub(super) const fn call<'a>(self, room_id: &'a str, payload: MessagePayload<'a>) -> Call<'a> {
        match self {
            Self::Init => Call::Init { room_id },
            Self::Timer => Call::Timer,
            Self::Rejoin(client) | Self::Outside(EventHeader::Connect(client)) => {
                Call::Connect(client)
            }
            Self::Outside(EventHeader::Disconnect(client)) => Call::Disconnect(client),
            Self::Outside(EventHeader::Message(client)) => Call::Message(client, payload),
        }
    }
}
