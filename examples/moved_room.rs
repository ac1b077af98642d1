//! A room that moves from one host to another while it is in use, and one that comes back after a crash:
//! a snapshot, and the records of the events since.
//!
//! `cargo run --release --features snapshot --example moved_room`

use stateroom_wasmi_host::{
    Budget, ClientId, Event, EventRecord, Host, Limits, LoadOptions, ManualClock, Module,
    OutputMessage, Room, RoomKey, SendError, SnapshotOptions, Transport,
};
use std::{convert::Infallible, error::Error};

/// It counts `+` and `-`, and says the count to all.
const ROOM: &[u8] = include_bytes!("rooms/wasm/counter-rust-0.4.wasm");

/// What leaves a host: messages to clients, and records for a log.
#[derive(Default)]
struct Wire {
    messages: Vec<String>,
    log: Vec<Vec<u8>>,
}

impl Transport for Wire {
    type Error = Infallible;

    fn send(
        &mut self,
        _: RoomKey,
        message: OutputMessage<'_>,
    ) -> Result<(), SendError<Infallible>> {
        let text = message.payload.text().unwrap_or("(bytes)");
        self.messages.push(text.into());
        Ok(())
    }

    fn recorded(&mut self, _: RoomKey, record: EventRecord<'_>) {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        self.log.push(bytes);
    }
}

type Server = Host<ManualClock, Wire>;

fn say(server: &mut Server, room: RoomKey, text: &str) -> Result<(), Box<dyn Error>> {
    server.enqueue(room, Event::message(ClientId(1), text))?;
    server.poll(Budget::UNLIMITED);
    let said = server
        .transport_mut()
        .messages
        .drain(..)
        .collect::<Vec<_>>();
    println!("  {text} -> {}", said.join(", "));
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let module = Module::load_with(ROOM, &Limits::new(), LoadOptions::new().snapshots(true))?;
    let server = || Host::new(ManualClock::new(), Wire::default());

    println!("here:");
    let mut here = server();
    let room = here.open("lobby", &module)?;
    here.enqueue(room, Event::Connect(ClientId(1)))?;
    for text in ["+", "+"] {
        say(&mut here, room, text)?;
    }

    // The room moves: it stops here at the end of an event, and goes on there.
    let snapshot = here.save(room)?;
    here.discard(room)?;
    println!("there, from {} bytes:", snapshot.len());
    let mut there = server();
    let room = there.load(&module, &snapshot, SnapshotOptions::new())?;
    there.set_recording(room, true)?;
    for text in ["+", "-", "+"] {
        say(&mut there, room, text)?;
    }

    // There is a crash. What is left is the snapshot, and the log: the same events again make the same
    // room.
    let log = there.transport().log.clone();
    drop(there);
    println!("again, from the snapshot and {} events since:", log.len());
    let mut lobby = Room::load(&module, &snapshot, SnapshotOptions::new())?;
    for bytes in &log {
        let (record, _) = EventRecord::decode(bytes)?;
        lobby.replay(&record)?;
        while lobby.is_unfinished() {
            lobby.resume(record.at);
        }
        // The clients have had these.
        while lobby.poll_output().is_some() {}
    }
    let mut again = server();
    let room = again.insert(lobby, None)?;
    say(&mut again, room, "+")
}
