//! Echo: everything that a client says comes back to that client, and to nobody else.
//!
//! | from a client | answer | to |
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
        // The SDK takes the address of the first byte of what it sends, and panics when there is
        // none. So an empty message gets no answer here.
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
