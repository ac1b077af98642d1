//! `stateroom-wasmi replay`: a room's events run again.

use crate::{module_file::ModuleFile, print};
use clap::Args;
use stateroom_wasmi_host::{
    Escaped, Event, EventRecord, Instant, LoadOptions, MessagePayload, MessageRecipient, Module,
    Output, RecordedEvent, Room, SnapshotInfo, SnapshotOptions, WithSources,
};
use stateroom_wasmi_server::journal::{LogEntries, RoomFile};
use stateroom_wasmi_store::Recording;
use std::{error::Error, fmt::Write, fs, path::PathBuf, process::ExitCode, task::Poll};

/// Run again what a room did
///
/// Prints each event and what the room sends for it. It stops where the room does something else than when
/// it was recorded. With another module it prints what that does otherwise, and then exits with 2.
#[derive(Args)]
pub(crate) struct Replay {
    /// A file of `serve --record`, of `store export`, or of a fault
    file: PathBuf,
    /// The room's module
    module: PathBuf,
    /// Stop after the event of this number
    #[arg(long, value_name = "EVENT")]
    until: Option<u64>,
    /// Begin with a snapshot of `save`, which was taken while the file was recorded
    #[arg(long, value_name = "SNAPSHOT")]
    from: Option<PathBuf>,
    /// Compare with another module, which is given the same events
    #[arg(long = "module", value_name = "OTHER")]
    other: Option<PathBuf>,
    /// Print the room's state hash, fuel and memory after each event
    #[arg(long, conflicts_with = "other")]
    step: bool,
    /// Print no messages
    #[arg(long)]
    quiet: bool,
}

/// The status if another module does something else.
const DIFFERS: u8 = 2;

impl Replay {
    pub(crate) fn run(self) -> Result<ExitCode, Box<dyn Error>> {
        let bytes = fs::read(&self.file)?;
        let (file, is_cut) = match Recording::read(&bytes) {
            Some(Recording { room, is_cut }) => (room, is_cut),
            None => {
                let room = RoomFile::decode(&bytes);
                let reason = "the file is not one of `serve --record` or `store export`";
                (room.ok_or(reason)?, false)
            }
        };
        let mut snapshot = file.snapshot.room.clone();
        if let Some(from) = &self.from {
            let bytes = fs::read(from)?;
            snapshot = RoomFile::decode(&bytes).map_or(bytes, |file| file.snapshot.room);
        }
        let info = SnapshotInfo::read(&snapshot)?;
        if info.room_id != *file.id {
            return Err("the snapshot is of another room".into());
        }
        let load = |path: &PathBuf| -> Result<Module, Box<dyn Error>> {
            let wasm = ModuleFile::read(path)?.wasm;
            let options = LoadOptions::new().snapshots(true).simd(true);
            Ok(Module::load_with(&wasm, &info.limits, options)?)
        };
        let room = Room::load(&load(&self.module)?, &snapshot, SnapshotOptions::new())?;
        let other = self.other.as_ref().map(load).transpose()?;
        let mut other = other.map(|module| Other::new(&room, &module)).transpose()?;
        let mut replayed = Replayed {
            room,
            next: file.snapshot.events,
            is_before: self.from.is_some(),
        };
        self.print_beginning(&replayed, &info)?;
        for entry in LogEntries::new(&file.tail) {
            let entry = entry?;
            let (record, _) = EventRecord::decode(entry.event)?;
            if !replayed.skips(&record) {
                let outputs = self.replay(&mut replayed, entry.number, &record)?;
                match &mut other {
                    Some(other) => other.compare(entry.number, &record, outputs)?,
                    None => self.print_event(&replayed.room, entry.number, &record, &outputs)?,
                }
            }
            replayed.next = entry.number + 1;
            if self.until == Some(entry.number) || replayed.room.is_closed() {
                break;
            }
        }
        if is_cut {
            print("the recording ends in the middle of an event\n")?;
        }
        if replayed.is_before {
            return Err("the snapshot was not taken while the file was recorded".into());
        }
        match other {
            Some(other) => other.end(),
            None => Ok(ExitCode::SUCCESS),
        }
    }

    fn print_beginning(
        &self,
        replayed: &Replayed,
        info: &SnapshotInfo,
    ) -> Result<(), Box<dyn Error>> {
        let id = Escaped::new(replayed.room.id());
        let text = match self.from {
            Some(_) => format!("room {id:?} at {}\n", info.now),
            None => format!(
                "room {id:?} after {} events, at {}\n",
                replayed.next, info.now
            ),
        };
        Ok(print(&text)?)
    }

    /// Runs an event again; returns what the room sends.
    fn replay(
        &self,
        replayed: &mut Replayed,
        number: u64,
        record: &EventRecord<'_>,
    ) -> Result<Vec<String>, Box<dyn Error>> {
        if number != replayed.next {
            return Err(format!("event {} is missing", replayed.next).into());
        }
        let room = &mut replayed.room;
        if let Err(error) = room.replay(record) {
            print(&describe(number, record))?;
            return Err(format!("event {number}: {error}").into());
        }
        let mut outputs = Vec::new();
        loop {
            take_outputs(room, &mut outputs);
            if !room.is_unfinished() {
                break;
            }
            room.resume(record.at);
        }
        Ok(outputs)
    }

    fn print_event(
        &self,
        room: &Room,
        number: u64,
        record: &EventRecord<'_>,
        outputs: &[String],
    ) -> Result<(), Box<dyn Error>> {
        let mut text = describe(number, record);
        if !self.quiet {
            for output in outputs {
                let _ = writeln!(text, "    {output}");
            }
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
        Ok(print(&text)?)
    }
}

/// The room, as it was recorded.
struct Replayed {
    room: Room,
    /// The number of the next event.
    next: u64,
    /// Whether the events so far were before the snapshot that it began with.
    is_before: bool,
}

impl Replayed {
    /// Whether an event is before the snapshot: the fuel that was used tells where that is.
    fn skips(&mut self, record: &EventRecord<'_>) -> bool {
        let is_here = record.fuel_used == self.room.fuel_used() && record.at >= self.room.now();
        self.is_before &= !is_here;
        self.is_before
    }
}

/// A room of another module that is given the same events.
struct Other {
    room: Room,
    /// What it has sent since the last event that was compared.
    outputs: Vec<String>,
    compared: u64,
    differing: u64,
}

impl Other {
    /// From the same state on, which must be one that can pass to the other module.
    fn new(room: &Room, module: &Module) -> Result<Self, Box<dyn Error>> {
        let mut room = room.fork()?;
        let cannot = |error| {
            let error = WithSources(&error).to_string();
            format!(
                "the room had a state already, which does not pass to the other module: {error}"
            )
        };
        room.begin_upgrade(module).map_err(cannot)?;
        while room.is_upgrading() {
            room.resume(room.now());
            if let Poll::Ready(upgraded) = room.poll_upgrade() {
                upgraded.map_err(cannot)?;
            }
        }
        Ok(Self {
            room,
            outputs: Vec::new(),
            compared: 0,
            differing: 0,
        })
    }

    /// Gives it an event, and prints what it does otherwise than `expected`.
    fn compare(
        &mut self,
        number: u64,
        record: &EventRecord<'_>,
        expected: Vec<String>,
    ) -> Result<(), Box<dyn Error>> {
        self.run_until(record.at);
        let refused = match record.event {
            RecordedEvent::Outside(event) => self.room.handle_event(record.at, event).err(),
            // It starts, and its timer fires, by its own.
            RecordedEvent::Start | RecordedEvent::Rejoin(_) | RecordedEvent::Timer => None,
        };
        self.run_until(record.at);
        let mut outputs = core::mem::take(&mut self.outputs);
        if let Some(error) = refused {
            outputs.push(format!("it refuses the event: {error}"));
        }
        self.compared += 1;
        if outputs != expected {
            self.differing += 1;
            let mut text = describe(number, record);
            for change in diff(&expected, &outputs) {
                let _ = writeln!(text, "  {change}");
            }
            print(&text)?;
        }
        Ok(())
    }

    /// Lets it do what it does until this time: its timer may be set otherwise.
    fn run_until(&mut self, now: Instant) {
        /// A timer that always fires at once would never end.
        const MAX_TURNS: usize = 100_000;
        for _ in 0..MAX_TURNS {
            take_outputs(&mut self.room, &mut self.outputs);
            match self.room.poll_timeout() {
                Some(at) if at <= now => self.room.handle_timeout(at),
                _ if self.room.has_work(self.room.now()) => self.room.resume(self.room.now()),
                _ => break,
            }
        }
        self.room.handle_timeout(now);
        take_outputs(&mut self.room, &mut self.outputs);
    }

    fn end(self) -> Result<ExitCode, Box<dyn Error>> {
        let (compared, differing) = (self.compared, self.differing);
        let mut text = format!("{differing} of {compared} events have other outputs\n");
        if let Some(fault) = self.room.last_fault() {
            let _ = writeln!(text, "its last fault: {fault}");
        }
        print(&text)?;
        Ok(match differing {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::from(DIFFERS),
        })
    }
}

/// Lines that are only in the one, with `-`, or only in the other, with `+`, in order.
fn diff(before: &[String], after: &[String]) -> Vec<String> {
    let start = before.iter().zip(after).take_while(|(a, b)| a == b).count();
    let (before, after) = (&before[start..], &after[start..]);
    let end = before.iter().rev().zip(after.iter().rev());
    let end = end.take_while(|(a, b)| a == b).count();
    let removed = before[..before.len() - end]
        .iter()
        .map(|line| format!("- {line}"));
    let added = after[..after.len() - end]
        .iter()
        .map(|line| format!("+ {line}"));
    removed.chain(added).collect()
}

fn take_outputs(room: &mut Room, outputs: &mut Vec<String>) {
    while let Some(output) = room.poll_output() {
        outputs.extend(describe_output(&output));
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

/// None is nothing that clients notice.
fn describe_output(output: &Output<'_>) -> Option<String> {
    let Output::Message(message) = output else {
        return None;
    };
    let recipient = match message.recipient {
        MessageRecipient::Broadcast => "all".into(),
        MessageRecipient::Client(client) => format!("client {client}"),
        MessageRecipient::EveryoneExcept(client) => format!("all but client {client}"),
    };
    let payload = describe_payload(message.payload);
    Some(format!("to {recipient}: {payload}"))
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
