//! ABI 0.2. Source: `stateroom-wasm-macro` 0.2.9.

use super::{
    Call,
    description::{Abi, Handler, Handlers, LOAD, Parameters, SAVE},
};
use crate::event::{ClientId, MessageRecipient};

pub(super) const ABI: Abi = Abi {
    name: "0.2",
    malloc: "jam_malloc",
    free: "jam_free",
    allocates_room_id: false,
    // Of a panic in `initialize`, which each version of the SDK's macro defines.
    sdk_text: "Error parsing UTF-8 from host ",
    handlers: Handlers {
        init: Handler::new("initialize", Parameters::Payload),
        connect: Handler::new("connect", Parameters::Client),
        disconnect: Handler::new("disconnect", Parameters::Client),
        timer: Handler::new("timer", Parameters::None),
        text: Handler::new("message", Parameters::ClientAndPayload),
        bytes: Handler::new("binary", Parameters::ClientAndPayload),
        save: SAVE,
        load: LOAD,
    },
    identified_by: None,
    imports: &[
        ("send_message", "iii:"),
        ("send_binary", "iii:"),
        ("set_timer", "i:"),
    ],
    version_globals: &[("JAMSOCKET_API_VERSION", 1), ("JAMSOCKET_API_PROTOCOL", 0)],
    versions_after_init: true,
};

/// Text and bytes are passed as they are; the client is a parameter of its own.
pub(super) const fn payload<'a>(call: &Call<'a>) -> &'a [u8] {
    match *call {
        Call::Init { room_id } => room_id.as_bytes(),
        Call::Message(_, payload) => payload.as_bytes(),
        Call::Load(state) => state,
        Call::Connect(_) | Call::Disconnect(_) | Call::Timer | Call::Save => &[],
    }
}

/// The recipient as one number: 0 is everybody, `n > 0` is client n, `n < 0` is everybody but
/// client −n. So `i32::MIN` is everybody, since 2³¹ is no client's id; the JIT host says the same.
#[must_use]
pub const fn decode_recipient(recipient: i32) -> MessageRecipient {
    let client = ClientId(recipient.unsigned_abs());
    match recipient {
        0 => MessageRecipient::Broadcast,
        1.. => MessageRecipient::Client(client),
        _ => MessageRecipient::EveryoneExcept(client),
    }
}
