//! Echo: everything that a client says is echoed to that client alone.
//!
//! | from a client | reply | to |
//! |---|---|---|
//! | a text | the same text | the sender |
//! | a binary message | the same bytes | the sender |
//! | an empty text or binary message | nothing (see below) | |

use stateroom_wasm::prelude::*;

#[stateroom_wasm]
struct Echo;

impl SimpleStateroomService for Echo {
    fn new(_room_id: &str, _context: &impl StateroomContext) -> Self {
        Echo
    }

    fn message(&mut self, client: ClientId, message: &str, context: &impl StateroomContext) {
        // The SDK panics on an empty message, since it takes the address of the first byte. So
        // there is no reply to one.
        if !message.is_empty() {
            context.send_message(client, message);
        }
    }

    fn binary(&mut self, client: ClientId, message: &[u8], context: &impl StateroomContext) {
        if !message.is_empty() {
            context.send_binary(client, message);
        }
    }
}
