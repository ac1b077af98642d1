//! Welcomes each client.

use stateroom_wasm::*;

#[stateroom_wasm]
#[derive(Default)]
struct Welcome;

impl StateroomService for Welcome {
    fn connect(&mut self, client: ClientId, context: &impl StateroomContext) {
        context.send_message(client, "welcome");
    }
}
