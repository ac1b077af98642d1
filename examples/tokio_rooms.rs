//! A room in a tokio task: `cargo run --features tokio --example tokio_rooms`.
//!
//! The task sleeps exactly until the room's next deadline, or until something comes in.

use stateroom_wasmi_host::{
    ClientId, Limits, Module,
    driver::tokio::{Options, OwnedEvent, Said, spawn},
};
use std::error::Error;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let wasm = include_bytes!("rooms/wasm/clock-rust-0.2.wasm");
    let module = Module::load(wasm, &Limits::default())?;
    let (rooms, mut said) = spawn(Options::default());

    let tower = rooms.open("tower", &module).await?;
    rooms
        .handle_event(tower, OwnedEvent::Connect(ClientId(1)))
        .await?;
    for _ in 0..3 {
        if let Some(Said::Text {
            recipient, text, ..
        }) = said.recv().await
        {
            println!("to {recipient:?}: {text}");
        }
    }
    rooms.close(tower).await;
    if let Some(Said::Closed(room)) = said.recv().await {
        println!(
            "room {:?} is closed; it used {} units of fuel",
            room.id, room.stats.fuel_used
        );
    }
    Ok(())
}
