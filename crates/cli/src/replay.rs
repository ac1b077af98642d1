//! `stateroom-wasmi replay`: a room's events run again.

use crate::{module_file::ModuleFile, print};
use clap::Args;
use stateroom_wasmi_host::{
    Escaped, Event, EventRecord, LoadOptions, MessagePayload, MessageRecipient, Module, Output,
    RecordedEvent, Room, SnapshotInfo, SnapshotOptions,
};
use stateroom_wasmi_server::journal::{LogEntries, RoomFile};
use std::{error::Error, fmt::Write, fs, path::PathBuf, process::ExitCode};

/// Run the events of a room again that `store export` wrote
///
/// Prints each event and what the room sends for it. It stops where the room does something else than when
/// it was recorded.
#[derive(Args)]
pub(crate) struct Replay {
    /// A file of `store export`
    file: PathBuf,
    /// The room's module
    module: PathBuf,
    /// Stop after the event of this number
    #[arg(long, value_name = "EVENT")]
    until: Option<u64>,
    /// Print the room's state hash, fuel and memory after each event
    #[arg(long)]
    step: bool,
    /// Print no messages
    #[arg(long)]
    quiet: bool,
}

impl Replay {
    pub(crate) fn run(self) -> Result<ExitCode, Box<dyn Error>> {
        let bytes = fs::read(&self.file)?;
        let file = RoomFile::decode(&bytes).ok_or("the file is not one of `store export`")?;
        let info = SnapshotInfo::read(&file.snapshot.room)?;
        let wasm = ModuleFile::read(&self.module)?.wasm;
        let options = LoadOptions::new().snapshots(true).simd(true);
        let module = Module::load_with(&wasm, &info.limits, options)?;
        let mut room = Room::load(&module, &file.snapshot.room, SnapshotOptions::new())?;
        let first = file.snapshot.events;
        print(&format!(
            "room {:?} after {first} events, at {}\n",
            Escaped::new(&file.id),
            info.now
        ))?;
        for (next, entry) in (first..).zip(LogEntries::new(&file.tail)) {
            let entry = entry?;
            if entry.number != next {
                return Err(format!("event {next} is missing").into());
            }
            let (record, _) = EventRecord::decode(entry.event)?;
            let mut text = describe(next, &record);
            if let Err(error) = room.replay(&record) {
                print(&text)?;
                return Err(format!("event {next}: {error}").into());
            }
            loop {
                while let Some(output) = room.poll_output() {
                    if !self.quiet {
                        describe_output(&output, &mut text);
                    }
                }
                if !room.is_unfinished() {
                    break;
                }
                room.resume(record.at);
            }
            if let Some(fault) = room.fault() {
                let _ = writeln!(text, "    the room has failed: {fault}");
            } else if self.step {
                let stats = room.stats();
                let _ = writeln!(
                    text,
                    "    state {}, {} fuel, {} bytes of memory",
                    room.state_hash()?,
                    stats.fuel_used,
                    stats.memory_bytes
                );
            }
            print(&text)?;
            if self.until == Some(next) || room.is_closed() {
                break;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn describe(number: u64, record: &EventRecord<'_>) -> String {
    let what = match record.event {
        RecordedEvent::Start => "the guest starts".into(),
        RecordedEvent::Rejoin(client) => format!("client {client} is connected again"),
        RecordedEvent::Timer => "the timer fires".into(),
        RecordedEvent::Outside(Event::Connect(client)) => format!("client {client} connects"),
        RecordedEvent::Outside(Event::Disconnect(client)) => {
            format!("client {client} disconnects")
        }
        RecordedEvent::Outside(Event::Message(client, payload)) => {
            format!("client {client} sends {}", describe_payload(payload))
        }
    };
    format!("{number} at {}: {what}\n", record.at)
}

fn describe_output(output: &Output<'_>, text: &mut String) {
    let Output::Message(message) = output else {
        return;
    };
    let recipient = match message.recipient {
        MessageRecipient::Broadcast => "all".into(),
        MessageRecipient::Client(client) => format!("client {client}"),
        MessageRecipient::EveryoneExcept(client) => format!("all but client {client}"),
    };
    let payload = describe_payload(message.payload);
    let _ = writeln!(text, "    to {recipient}: {payload}");
}

/// A text in quotes, or bytes in hexadecimal digits; the beginning of long ones.
fn describe_payload(payload: MessagePayload<'_>) -> String {
    const SHOWN: usize = 200;
    match payload {
        MessagePayload::Text(text) => format!("{:?}", Escaped::new(text).at_most(SHOWN)),
        MessagePayload::Bytes(bytes) => {
            let mut shown = String::from("0x");
            for byte in bytes.iter().take(SHOWN / 2) {
                let _ = write!(shown, "{byte:02x}");
            }
            if bytes.len() > SHOWN / 2 {
                let _ = write!(shown, "… ({} bytes)", bytes.len());
            }
            shown
        }
    }
}
