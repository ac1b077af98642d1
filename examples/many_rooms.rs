//! A thousand chat rooms on one host, with a custom transport:
//! `cargo run --release --features std --example many_rooms`.

use stateroom_wasmi_host::{
    Budget, ClientId, Event, Host, Limits, Module, OutputMessage, RoomKey, SendError, SystemClock,
    Transport,
};
use std::{convert::Infallible, error::Error, time::Instant};

/// Counts messages and bytes instead of sending them.
#[derive(Default)]
struct Counter {
    messages: usize,
    bytes: usize,
}

impl Transport for Counter {
    type Error = Infallible;

    fn send(
        &mut self,
        _room: RoomKey,
        message: OutputMessage<'_>,
    ) -> Result<(), SendError<Infallible>> {
        self.messages += 1;
        self.bytes += message.payload.len();
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let wasm = include_bytes!("rooms/wasm/chat-rust-0.4.wasm");
    let module = Module::load(wasm, &Limits::default())?;
    let mut host = Host::new(SystemClock::new(), Counter::default());

    let started = Instant::now();
    let mut rooms = Vec::new();
    for number in 0..1000 {
        rooms.push(host.open(&format!("room {number}"), &module)?);
    }
    for room in &rooms {
        for client in 1..=3 {
            host.enqueue(*room, Event::Connect(ClientId(client)))?;
            host.enqueue(*room, Event::message(ClientId(client), "hello, everybody"))?;
        }
    }
    host.poll(Budget::UNLIMITED);

    let Counter { messages, bytes } = host.transport();
    println!(
        "{} rooms sent {messages} messages of {bytes} bytes in {:?}",
        rooms.len(),
        started.elapsed()
    );
    while let Some(closed) = host.poll_closed() {
        println!("room {:?} is closed: {:?}", closed.id, closed.fault);
    }
    Ok(())
}
