//! Echo: everything that a client says is echoed to that client alone.
//!
//! | from a client | reply | to |
//! |---|---|---|
//! | a text, also an empty one | the same text | the sender |
//! | a binary message, also an empty one | the same bytes | the sender |

use stateroom_wasm::*;

#[stateroom_wasm]
#[derive(Default)]
struct Echo;

impl StateroomService for Echo {
    fn message(
        &mut self,
        client: ClientId,
        message: MessagePayload,
        context: &impl StateroomContext,
    ) {
        context.send_message(client, message);
    }
}
