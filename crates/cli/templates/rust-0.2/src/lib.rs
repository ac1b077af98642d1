//! A counter: one number that everybody in the room shares.

use stateroom_wasm::prelude::*;

/// The state of a room.
#[stateroom_wasm]
struct Counter {
    count: i64,
}

impl SimpleStateroomService for Counter {
    fn new(_room_id: &str, _context: &impl StateroomContext) -> Self {
        Counter { count: 0 }
    }

    fn connect(&mut self, client: ClientId, context: &impl StateroomContext) {
        context.send_message(client, &self.count.to_string());
    }

    fn message(&mut self, client: ClientId, message: &str, context: &impl StateroomContext) {
        // Clients can send anything.
        match message {
            "+" => self.count = self.count.saturating_add(1),
            "-" => self.count = self.count.saturating_sub(1),
            _ => return context.send_message(client, "Say + or -."),
        }
        context.send_message(MessageRecipient::Broadcast, &self.count.to_string());
    }
}
