//! The smallest program with a room of the JIT host 0.2.9, for the row `size`.

use stateroom_0_2::{
    ClientId, MessageRecipient, StateroomContext, StateroomService, StateroomServiceFactory,
};
use stateroom_wasm_host_0_2::WasmHostFactory;

struct Print;

impl StateroomContext for Print {
    fn send_message(&self, _: impl Into<MessageRecipient>, message: &str) {
        println!("{message:?}");
    }

    fn send_binary(&self, _: impl Into<MessageRecipient>, message: &[u8]) {
        println!("{message:?}");
    }

    fn set_timer(&self, _: u32) {}
}

fn main() -> anyhow::Result<()> {
    let factory = WasmHostFactory::new(std::env::args_os().nth(1).unwrap_or_default())?;
    let mut room = factory.build("room", Print)?;
    room.connect(ClientId(1));
    room.message(ClientId(1), "hello");
    Ok(())
}
