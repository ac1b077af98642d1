//! A room in virtual time, without any runtime: `cargo run --example virtual_time`.
//!
//! The clock room ticks every second while a client is connected. Here no real time passes: the
//! driver passes the time to the room and jumps from one deadline to the next.

use stateroom_wasmi_host::{ClientId, Event, Instant, Limits, Module, Room, RoomOptions};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let wasm = include_bytes!("rooms/wasm/clock-rust-0.4.wasm");
    let module = Module::load(wasm, &Limits::default())?;
    let mut now = Instant::ZERO;
    let mut room = Room::new(&module, "tower", RoomOptions::default())?;
    room.handle_event(now, Event::Connect(ClientId(1)))?;
    for _ in 0..5 {
        // A real driver sleeps until the deadline; this one jumps to it.
        now = room.poll_timeout().ok_or("the clock has set no timer")?;
        room.handle_timeout(now);
        while let Some(output) = room.poll_output() {
            if let Some(text) = output.message().and_then(|message| message.payload.text()) {
                println!("{now}: {text}");
            }
        }
    }
    Ok(())
}
