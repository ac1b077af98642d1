//! The smallest program with a room of the JIT host 0.4.4, for the row `size`.

use stateroom_0_4::{
    ClientId, MessagePayload, MessageRecipient, StateroomContext, StateroomService,
    StateroomServiceFactory,
};
use stateroom_wasm_host_0_4::WasmHostFactory;
use std::sync::Arc;

#[derive(Clone)]
struct Print;

impl StateroomContext for Print {
    fn send_message(&self, _: impl Into<MessageRecipient>, message: impl Into<MessagePayload>) {
        println!("{:?}", message.into());
    }

    fn set_timer(&self, _: u32) {}
}

fn main() -> anyhow::Result<()> {
    let factory = WasmHostFactory::new(std::env::args_os().nth(1).unwrap_or_default())
        .map_err(|error| anyhow::anyhow!(error))?;
    let mut room = factory
        .build("room", Arc::new(Print))
        .map_err(|error| anyhow::anyhow!(error))?;
    room.init(&Print);
    room.connect(ClientId(1), &Print);
    room.message(ClientId(1), MessagePayload::Text("hello".into()), &Print);
    Ok(())
}
