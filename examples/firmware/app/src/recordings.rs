//! Rooms that are recorded on one machine and replayed on another.

use crate::{
    heap::Free,
    replay::{EVENTS, for_each_step, sdk_limits, small_limits},
    room_file::{RoomFile, push_event},
    rooms::{self, Bundled},
};
use alloc::{format, string::String, vec::Vec};
use core::{fmt, fmt::Write};
use stateroom_wasmi_host::{
    Backoff, Escaped, Event, EventRecord, FaultPolicy, Instant, Limits, MessagePayload,
    MessageRecipient, Module, Output, RecordedEvent, Room, RoomOptions, SnapshotOptions, StateHash,
};

/// The files of the machine, or of the one that it is debugged from, in the folder that it works in.
pub struct Files {
    /// The contents of a file; none if there is none.
    pub read: fn(&str) -> Option<Vec<u8>>,
    pub write: fn(&str, &[u8]) -> fmt::Result,
}

/// Replays the recordings of the bundled rooms, and writes what each of them does to `out`, as
/// `stateroom-wasmi replay --step` does. A room without a recording is recorded first. The file of a
/// room has its name and ends in `.room`. `sdk` are the rooms made with the SDKs, if they fit into flash.
///
/// An error is a recording that cannot be replayed, or that does something else when it is.
pub fn run(sdk: &[Bundled], free: Free, files: &Files, out: &mut dyn Write) -> fmt::Result {
    for bundled in rooms::SMALL {
        record_or_replay(bundled, &small_limits(), free, files, out)?;
    }
    for bundled in sdk {
        record_or_replay(*bundled, &sdk_limits(), free, files, out)?;
    }
    writeln!(out, "end of recordings")
}

#[inline(never)]
fn record_or_replay(
    bundled: Bundled,
    limits: &Limits,
    free: Free,
    files: &Files,
    out: &mut dyn Write,
) -> fmt::Result {
    free.reserve(bundled.estimate(limits))
        .map_err(|_| fmt::Error)?;
    let module = bundled.load_for_snapshots(limits).map_err(|_| fmt::Error)?;
    let name = format!("{}.room", bundled.name);
    writeln!(out, "recording {}", bundled.name)?;
    if let Some(file) = (files.read)(&name) {
        return replay(&module, &file, out).map(drop);
    }
    let recording = Recording::of(&module, script(bundled))?;
    let file = recording.file();
    (files.write)(&name, &file)?;
    // So that what is replayed elsewhere is compared with what was recorded.
    let replayed = replay(&module, &file, out)?;
    match replayed == (recording.outputs, recording.last_state) {
        true => Ok(()),
        false => Err(fmt::Error),
    }
}

/// What a room is told; the hostile one is told to fail.
fn script(bundled: Bundled) -> &'static str {
    const FAULTS: &str = "5 connect 1
6 connect 2
20 text 1 hello
30 text 2 panic
40 text 1 is anybody there?
200 text 1 hello
210 text 1 loop
600 text 2 recurse
2000 text 2 wild
4000 text 1 flood
9000 text 1 hello
9001 disconnect 1";
    match bundled.name == rooms::HOSTILE.name {
        true => FAULTS,
        false => EVENTS,
    }
}

/// A room that was saved when its guest had started, and what it did since.
struct Recording {
    snapshot: Vec<u8>,
    tail: Vec<u8>,
    /// What it sent, as text.
    outputs: String,
    /// After the last event; none if the room has closed.
    last_state: Option<StateHash>,
}

impl Recording {
    fn of(module: &Module, script: &str) -> Result<Self, fmt::Error> {
        let options = RoomOptions::new()
            .seed(42)
            .on_fault(FaultPolicy::Restart(Backoff::new()));
        let mut room = Room::new(module, "recorded", options).map_err(|_| fmt::Error)?;
        // Its guest starts before it can be saved.
        while room.has_work(Instant::ZERO) || room.peek_output().is_some() {
            while room.poll_output().is_some() {}
            room.resume(Instant::ZERO);
        }
        let mut recording = Self {
            snapshot: room.save().map_err(|_| fmt::Error)?,
            tail: Vec::new(),
            outputs: String::new(),
            last_state: None,
        };
        room.set_recording(true);
        let mut count = 0;
        for_each_step(script, |now, event| {
            room.handle_timeout(now);
            recording.drive(&mut room, now, &mut count)?;
            if let Some(event) = event {
                // A room that is closed, or has no such client, refuses it.
                let _ = room.handle_event(now, event);
                recording.drive(&mut room, now, &mut count)?;
            }
            Ok(())
        })?;
        Ok(recording)
    }

    /// Resumes the room until it is idle. Records are taken before outputs.
    fn drive(&mut self, room: &mut Room, now: Instant, count: &mut u64) -> fmt::Result {
        let before = *count;
        loop {
            while let Some(record) = room.poll_record() {
                push_event(&mut self.tail, *count, &record);
                *count += 1;
            }
            while let Some(output) = room.poll_output() {
                write_output(&output, &mut self.outputs)?;
            }
            if !room.has_work(now) {
                break;
            }
            room.resume(now);
        }
        // Time passes without an event, too.
        if *count > before {
            self.last_state = room.state_hash().ok();
        }
        Ok(())
    }

    fn file(&self) -> Vec<u8> {
        let file = RoomFile {
            snapshot: &self.snapshot,
            tail: &self.tail,
        };
        file.encode("recorded")
    }
}

/// Replays a file, and writes what happens; returns what the room sent, and its last state.
fn replay(
    module: &Module,
    file: &[u8],
    out: &mut dyn Write,
) -> Result<(String, Option<StateHash>), fmt::Error> {
    let file = RoomFile::decode(file).ok_or(fmt::Error)?;
    let mut room =
        Room::load(module, file.snapshot, SnapshotOptions::new()).map_err(|_| fmt::Error)?;
    writeln!(
        out,
        "room {:?} after 0 events, at {}",
        Escaped::new(room.id()),
        room.now()
    )?;
    let mut sent = String::new();
    for (number, record) in file.records().enumerate() {
        writeln!(out, "{number} at {}: {}", record.at, Described(record))?;
        if let Err(error) = room.replay(&record) {
            writeln!(out, "event {number}: {error}")?;
            return Err(fmt::Error);
        }
        let from = sent.len();
        loop {
            while let Some(output) = room.poll_output() {
                write_output(&output, &mut sent)?;
            }
            if !room.is_unfinished() {
                break;
            }
            room.resume(record.at);
        }
        out.write_str(&sent[from..])?;
        if let Some(fault) = room.fault() {
            writeln!(out, "    the room has failed: {fault}")?;
        } else {
            let stats = room.stats();
            writeln!(
                out,
                "    state {}, {} fuel, {} bytes of memory",
                room.state_hash().map_err(|_| fmt::Error)?,
                stats.fuel_used,
                stats.memory_bytes
            )?;
        }
    }
    Ok((sent, room.state_hash().ok()))
}

/// What a record is about, in words.
struct Described<'a>(EventRecord<'a>);

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.event {
            RecordedEvent::Start => f.write_str("the guest starts"),
            RecordedEvent::Rejoin(client) => write!(f, "client {client} is connected again"),
            RecordedEvent::Timer => f.write_str("the timer fires"),
            RecordedEvent::Outside(Event::Connect(client)) => {
                write!(f, "client {client} connects")
            }
            RecordedEvent::Outside(Event::Disconnect(client)) => {
                write!(f, "client {client} disconnects")
            }
            RecordedEvent::Outside(Event::Message(client, payload)) => {
                write!(f, "client {client} sends ")?;
                write_payload(payload, f)
            }
        }
    }
}

fn write_output(output: &Output<'_>, out: &mut dyn Write) -> fmt::Result {
    let Some(message) = output.message() else {
        return Ok(());
    };
    out.write_str("    to ")?;
    match message.recipient {
        MessageRecipient::Broadcast => write!(out, "all: ")?,
        MessageRecipient::Client(client) => write!(out, "client {client}: ")?,
        MessageRecipient::EveryoneExcept(client) => write!(out, "all but client {client}: ")?,
    }
    write_payload(message.payload, out)?;
    writeln!(out)
}

/// A text in quotes, or bytes in hexadecimal digits; the beginning of long ones.
fn write_payload(payload: MessagePayload<'_>, out: &mut dyn Write) -> fmt::Result {
    const SHOWN: usize = 200;
    match payload {
        MessagePayload::Text(text) => write!(out, "{:?}", Escaped::new(text).at_most(SHOWN)),
        MessagePayload::Bytes(bytes) => {
            out.write_str("0x")?;
            for byte in bytes.iter().take(SHOWN / 2) {
                write!(out, "{byte:02x}")?;
            }
            match bytes.len() > SHOWN / 2 {
                true => write!(out, "… ({} bytes)", bytes.len()),
                false => Ok(()),
            }
        }
    }
}
