//! The message types of `stateroom` 0.4.4 (`messages.rs`, `message_recipient.rs`, `lib.rs`).
//! bincode serialises them in order of declaration. The fuzz target of the codec includes this
//! file too.

use serde::{Deserialize, Serialize};
use stateroom_wasmi_host::{
    self as ours,
    abi::{Call, Request},
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientId(pub u32);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum MessagePayload {
    Bytes(Vec<u8>),
    Text(String),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum MessageRecipient {
    Broadcast,
    Client(ClientId),
    EveryoneExcept(ClientId),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum MessageToProcess {
    Init,
    Connect {
        client: ClientId,
    },
    Disconnect {
        client: ClientId,
    },
    Message {
        sender: ClientId,
        message: MessagePayload,
    },
    Timer,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum MessageFromProcess {
    Message {
        recipient: MessageRecipient,
        message: MessagePayload,
    },
    SetTimer {
        ms_delay: u32,
    },
}

/// The call in the published host's types.
pub fn as_published(call: &Call<'_>) -> MessageToProcess {
    match *call {
        Call::Init { .. } => MessageToProcess::Init,
        Call::Connect(client) => MessageToProcess::Connect {
            client: ClientId(client.0),
        },
        Call::Disconnect(client) => MessageToProcess::Disconnect {
            client: ClientId(client.0),
        },
        Call::Message(sender, message) => MessageToProcess::Message {
            sender: ClientId(sender.0),
            message: match message {
                ours::MessagePayload::Bytes(bytes) => MessagePayload::Bytes(bytes.to_owned()),
                ours::MessagePayload::Text(text) => MessagePayload::Text(text.to_owned()),
            },
        },
        Call::Timer => MessageToProcess::Timer,
        Call::Save | Call::Load(_) => unreachable!("the published ABI does not have it"),
    }
}

/// The request that a message of the published guest stands for, in our types.
pub fn as_request(message: &MessageFromProcess) -> Request<'_> {
    let ours = |client: &ClientId| ours::ClientId(client.0);
    match message {
        MessageFromProcess::Message { recipient, message } => Request::Message {
            recipient: match recipient {
                MessageRecipient::Broadcast => ours::MessageRecipient::Broadcast,
                MessageRecipient::Client(client) => ours::MessageRecipient::Client(ours(client)),
                MessageRecipient::EveryoneExcept(client) => {
                    ours::MessageRecipient::EveryoneExcept(ours(client))
                }
            },
            payload: match message {
                MessagePayload::Bytes(bytes) => ours::MessagePayload::Bytes(bytes),
                MessagePayload::Text(text) => ours::MessagePayload::Text(text),
            },
        },
        MessageFromProcess::SetTimer { ms_delay } => Request::SetTimer {
            ms_delay: *ms_delay,
        },
    }
}
