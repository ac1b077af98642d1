//! Cursors: everybody sees where everybody else points. All of it is binary.
//!
//! | what happens | reply | to |
//! |---|---|---|
//! | a client sends 1 to 256 bytes (its position, in whatever form the clients agree on) | a frame | everybody but the sender |
//! | a client connects | the latest frame of each other client that has sent one, by id | the newcomer |
//! | a client disconnects | a frame without a position | everybody but that client |
//! | an empty binary message, or one of more than 256 bytes | nothing | |
//! | a text | `This room is binary: send your position as 1 to 256 bytes.` | the sender |
//!
//! A frame is the id of the client that it is about, as four bytes, little endian, and then the
//! position, unchanged. A frame of four bytes has no position: the client has disconnected, and its
//! cursor is removed.

use std::collections::BTreeMap;

use stateroom_wasm::*;

/// A position is small. The limit keeps one client from making the room hold and send a lot.
const POSITION_BYTES: usize = 256;

const HINT: &str = "This room is binary: send your position as 1 to 256 bytes.";

#[stateroom_wasm]
#[derive(Default)]
struct Cursors {
    /// Everybody who is here, with the latest position; empty until there is one.
    positions: BTreeMap<ClientId, Vec<u8>>,
}

impl StateroomService for Cursors {
    fn connect(&mut self, client: ClientId, context: &impl StateroomContext) {
        self.positions.insert(client, Vec::new());
        for (&other, position) in self.positions.iter().filter(|(_, p)| !p.is_empty()) {
            context.send_message(client, frame(other, position));
        }
    }

    fn disconnect(&mut self, client: ClientId, context: &impl StateroomContext) {
        if self.positions.remove(&client).is_some() {
            context.send_message(MessageRecipient::EveryoneExcept(client), frame(client, &[]));
        }
    }

    fn message(
        &mut self,
        client: ClientId,
        message: MessagePayload,
        context: &impl StateroomContext,
    ) {
        let Some(position) = message.bytes() else {
            context.send_message(client, HINT);
            return;
        };
        if let Some(frame) = self.moved(client, position) {
            context.send_message(MessageRecipient::EveryoneExcept(client), frame);
        }
    }
}

impl Cursors {
    /// Stores the position of `client` and returns the frame for the others, or `None` if the
    /// position is invalid.
    fn moved(&mut self, client: ClientId, position: &[u8]) -> Option<Vec<u8>> {
        if position.is_empty() || position.len() > POSITION_BYTES {
            return None;
        }
        // Only connected clients have a position, so that every cursor is removed in the end.
        let latest = self.positions.get_mut(&client)?;
        latest.clear();
        latest.extend_from_slice(position);
        Some(frame(client, position))
    }
}

fn frame(client: ClientId, position: &[u8]) -> Vec<u8> {
    let mut frame = u32::from(client).to_le_bytes().to_vec();
    frame.extend_from_slice(position);
    frame
}
