//! A counter: one number that everybody in the room shares.

use stateroom_wasm::*;

/// The state of a room.
#[stateroom_wasm]
#[derive(Default)]
struct Counter {
    count: i64,
}

impl StateroomService for Counter {
    fn connect(&mut self, client: ClientId, context: &impl StateroomContext) {
        context.send_message(client, self.count.to_string());
    }

    fn message(
        &mut self,
        client: ClientId,
        message: MessagePayload,
        context: &impl StateroomContext,
    ) {
        // Clients can send anything, binary messages too.
        let Some(text) = message.text() else {
            return;
        };
        match text {
            "+" => self.count = self.count.saturating_add(1),
            "-" => self.count = self.count.saturating_sub(1),
            _ => return context.send_message(client, "Say + or -."),
        }
        context.send_message(MessageRecipient::Broadcast, self.count.to_string());
    }
}
