//! Replays a script of events to a room and prints its outputs and fuel, to compare machines.

use crate::{
    heap::Free,
    rooms::{Bundled, RoomError},
};
use alloc::vec::Vec;
use core::{fmt, num::ParseIntError, str::FromStr};
use stateroom_wasmi_host::{
    ClientId, Event, Instant, Limits, MessagePayload, MessageRecipient, Module, Room, RoomOptions,
};

/// The script; its first line documents the format.
pub(crate) const EVENTS: &str = include_str!("events.txt");

/// For rooms of at most one page; the same on each machine. Slices are short, so that many events
/// are paused.
pub fn small_limits() -> Limits {
    let mut limits = Limits::small();
    limits.fuel_per_slice = 500;
    limits
}

/// For rooms made with the SDKs.
pub fn sdk_limits() -> Limits {
    let mut limits = small_limits();
    limits.max_memory_bytes = 1 << 20;
    limits.max_stack_bytes = 16 << 10;
    limits.max_recursion_depth = 200;
    limits
}

/// Replays the script to a room of this module, if it fits into `free`, and writes its observable
/// behaviour to `out`. A module that does not load is an error.
fn run(bundled: Bundled, limits: &Limits, free: Free, out: &mut dyn fmt::Write) -> fmt::Result {
    match bundled.load_within(limits, free) {
        Ok((module, _)) => write_transcript(bundled.name, &module, out),
        Err(RoomError::OutOfMemory { .. }) => Ok(()),
        // Every bundled module loads on every machine: a firmware without the validator needs that.
        Err(_) => Err(fmt::Error),
    }
}

/// A replay, of any kind.
pub type Replay = fn(Bundled, &Limits, Free, &mut dyn fmt::Write) -> fmt::Result;

/// All kinds of replays.
pub const REPLAYS: &[Replay] = &[
    run,
    #[cfg(feature = "snapshot")]
    run_saved,
];

/// Heap that saving and loading a room takes, besides another instance: tables of the compression,
/// and the state before and after it.
#[cfg(feature = "snapshot")]
const SNAPSHOT_BYTES: usize = 32 << 10;

/// Replays the script to a room that is saved after each event, and goes on in one that is loaded from
/// that. Writes what it does as well, with a hash of its state each time and the last snapshot: another
/// machine that writes the same could have loaded it.
#[cfg(feature = "snapshot")]
fn run_saved(
    bundled: Bundled,
    limits: &Limits,
    free: Free,
    out: &mut dyn fmt::Write,
) -> fmt::Result {
    let estimate = bundled.estimate(limits);
    // When the module is loaded, it makes an instance, which is gone before the room has its own.
    let fits = free
        .reserve(estimate)
        .is_ok_and(|rest| rest.heap >= SNAPSHOT_BYTES + estimate.load);
    if !fits {
        return Ok(());
    }
    let module = bundled.load_for_snapshots(limits).map_err(|_| fmt::Error)?;
    writeln!(out, "room {}-saved", bundled.name)?;
    let mut last = Vec::new();
    replay(&module, out, |room, out| {
        let Ok(snapshot) = room.save() else {
            // It is closed, or its outputs go on.
            return Ok(room);
        };
        let room = Room::load(
            &module,
            &snapshot,
            stateroom_wasmi_host::SnapshotOptions::new(),
        )
        .map_err(|_| fmt::Error)?;
        writeln!(out, "state {}", room.state_hash().map_err(|_| fmt::Error)?)?;
        last = snapshot;
        Ok(room)
    })?;
    write!(out, "snapshot ")?;
    last.iter().try_for_each(|byte| write!(out, "{byte:02x}"))?;
    writeln!(out)
}

#[inline(never)]
fn write_transcript(name: &str, module: &Module, out: &mut dyn fmt::Write) -> fmt::Result {
    writeln!(out, "room {name}")?;
    replay(module, out, |room, _| Ok(room))
}

/// Replays the script to a room, which another that is in the same state may replace after each event.
fn replay(
    module: &Module,
    out: &mut dyn fmt::Write,
    mut replace: impl FnMut(Room, &mut dyn fmt::Write) -> Result<Room, fmt::Error>,
) -> fmt::Result {
    let options = RoomOptions::new().seed(42);
    let mut room = match Room::new(module, "replay", options) {
        Ok(room) => room,
        Err(error) => return writeln!(out, "open failed: {error}"),
    };
    write_outputs(&mut room, Instant::ZERO, out)?;
    let mut room = Some(room);
    for_each_step(EVENTS, |now, event| {
        let Some(mut current) = room.take() else {
            return Err(fmt::Error);
        };
        current.handle_timeout(now);
        write_outputs(&mut current, now, out)?;
        if let Some(event) = event {
            if let Err(error) = current.handle_event(now, event) {
                writeln!(out, "  refused: {error}")?;
            }
            write_outputs(&mut current, now, out)?;
            current = replace(current, out)?;
        }
        room = Some(current);
        Ok(())
    })?;
    let room = room.ok_or(fmt::Error)?;
    match room.fault() {
        Some(fault) => writeln!(out, "{fault}"),
        None => Ok(()),
    }
}

/// Calls a function with each line of a script: its time, and the event; none for a line that waits.
pub(crate) fn for_each_step(
    script: &str,
    mut step: impl FnMut(Instant, Option<Event<'_>>) -> fmt::Result,
) -> fmt::Result {
    for line in script.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.splitn(4, ' ');
        let now = Instant::from_millis(number(words.next()));
        let kind = words.next();
        let client = ClientId(number(words.next()));
        let payload = words.next().unwrap_or("");
        let bytes;
        let event = match kind {
            Some("connect") => Some(Event::Connect(client)),
            Some("disconnect") => Some(Event::Disconnect(client)),
            Some("text") => Some(Event::message(client, payload)),
            Some("bytes") => {
                bytes = decode_hex(payload);
                Some(Event::message(client, &bytes[..]))
            }
            _ => None,
        };
        step(now, event)?;
    }
    Ok(())
}

/// Resumes the room until it is idle, and writes its outputs. Nothing is printed by `Debug`, which
/// a firmware may be built without.
fn write_outputs(room: &mut Room, now: Instant, out: &mut dyn fmt::Write) -> fmt::Result {
    loop {
        while let Some(output) = room.poll_output() {
            let Some(message) = output.message() else {
                continue;
            };
            match message.recipient {
                MessageRecipient::Broadcast => write!(out, "  to all: ")?,
                MessageRecipient::Client(client) => write!(out, "  to {client}: ")?,
                MessageRecipient::EveryoneExcept(client) => write!(out, "  to all but {client}: ")?,
            }
            match message.payload {
                MessagePayload::Text(text) => writeln!(out, "\"{}\"", text.escape_debug())?,
                MessagePayload::Bytes(bytes) => {
                    bytes
                        .iter()
                        .try_for_each(|byte| write!(out, "{byte:02x} "))?;
                    writeln!(out)?;
                }
            }
        }
        if !room.has_work(now) {
            break;
        }
        room.resume(now);
    }
    writeln!(out, "{} ms, fuel {}", now.as_millis(), room.fuel_used())
}

fn number<T: FromStr<Err = ParseIntError> + Default>(word: Option<&str>) -> T {
    word.and_then(|word| word.parse().ok()).unwrap_or_default()
}

fn decode_hex(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .filter_map(|pair| u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}
