//! The smallest program with a room of this crate, for the row "size" and for nothing else.

use stateroom_wasmi_host::{ClientId, Event, Instant, Limits, Module, Room, RoomOptions};

fn main() -> anyhow::Result<()> {
    let wasm = std::fs::read(std::env::args_os().nth(1).unwrap_or_default())?;
    let module = Module::load(&wasm, &Limits::default())?;
    let mut room = Room::new(&module, "room", Instant::ZERO, RoomOptions::default())?;
    for event in [Event::Connect(ClientId(1)), Event::message(ClientId(1), "hello")] {
        room.handle_event(Instant::ZERO, event)?;
        while let Some(output) = room.poll_output() {
            println!("{:?}", output.payload);
        }
    }
    Ok(())
}
