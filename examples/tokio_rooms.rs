//! A room in a tokio task: `cargo run --features tokio --example tokio_rooms`.
//!
//! The task sleeps until the room's next deadline or the next command.

use stateroom_wasmi_host::{
    ClientId, Limits, Module, OwnedEvent,
    driver::tokio::{Options, RoomOutput, spawn},
};
use std::error::Error;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let wasm = include_bytes!("rooms/wasm/clock-rust-0.2.wasm");
    let module = Module::load(wasm, &Limits::default())?;
    let (host, mut outputs) = spawn(Options::new());

    let tower = host.open("tower", &module).await?;
    host.enqueue(tower, OwnedEvent::Connect(ClientId(1)))
        .await?;
    let mut messages = 0;
    while let Some(output) = outputs.recv().await {
        match output {
            RoomOutput::Joined { client, .. } => println!("client {client} joined"),
            RoomOutput::Message {
                recipient, payload, ..
            } => {
                println!("to {recipient:?}: {payload:?}");
                messages += 1;
                if messages == 3 {
                    host.close(tower).await?;
                }
            }
            RoomOutput::Closed(room) => {
                println!(
                    "room {:?} is closed; it used {} units of fuel",
                    room.id, room.stats.fuel_used
                );
                break;
            }
            _ => {}
        }
    }
    Ok(())
}
