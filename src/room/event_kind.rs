//! What a waiting event is, without its payload.

use crate::{
    abi::Call,
    event::{ClientId, Event, MessagePayload},
};

#[derive(Clone, Copy, Debug)]
pub(super) enum EventKind {
    Init,
    Connect(ClientId),
    Disconnect(ClientId),
    Message(ClientId),
    Timer,
}

impl EventKind {
    pub(super) const fn of(call: &Call<'_>) -> Self {
        match *call {
            Call::Init { .. } => Self::Init,
            Call::Connect(client) => Self::Connect(client),
            Call::Disconnect(client) => Self::Disconnect(client),
            Call::Message(client, _) => Self::Message(client),
            Call::Timer => Self::Timer,
        }
    }

    /// The client that it is about, if there is one.
    pub(super) const fn client(self) -> Option<ClientId> {
        match self {
            Self::Connect(client) | Self::Disconnect(client) | Self::Message(client) => {
                Some(client)
            }
            Self::Init | Self::Timer => None,
        }
    }

    /// The call of the guest that it is, with what was kept beside it.
    pub(super) const fn call<'a>(self, room_id: &'a str, payload: MessagePayload<'a>) -> Call<'a> {
        match self {
            Self::Init => Call::Init { room_id },
            Self::Connect(client) => Call::Connect(client),
            Self::Disconnect(client) => Call::Disconnect(client),
            Self::Message(client) => Call::Message(client, payload),
            Self::Timer => Call::Timer,
        }
    }
}

pub(super) const fn call(event: Event<'_>) -> Call<'_> {
    match event {
        Event::Connect(client) => Call::Connect(client),
        Event::Disconnect(client) => Call::Disconnect(client),
        Event::Message(client, payload) => Call::Message(client, payload),
    }
}

/// What is kept beside a [`EventKind`].
pub(super) const fn payload<'a>(call: &Call<'a>) -> MessagePayload<'a> {
    match *call {
        Call::Message(_, payload) => payload,
        _ => MessagePayload::Bytes(&[]),
    }
}
