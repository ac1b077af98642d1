//! A script of events, played to a room: what the room says and the fuel that it uses, to be
//! compared between machines.

use crate::{
    heap::Free,
    rooms::{Bundled, Refused},
};
use alloc::vec::Vec;
use core::{fmt, num::ParseIntError, str::FromStr};
use stateroom_wasmi_host::{
    ClientId, Event, Instant, Limits, MessagePayload, MessageRecipient, Module, Room, RoomOptions,
};

/// The script: see its first line.
const EVENTS: &str = include_str!("events.txt");

/// For rooms of a page at most, and the same on each machine. Short slices, so that many events are
/// paused.
pub fn small_limits() -> Limits {
    let mut limits = Limits::small();
    limits.fuel_per_slice = 500;
    limits
}

/// For rooms that are made with the SDKs.
pub fn sdk_limits() -> Limits {
    let mut limits = small_limits();
    limits.max_memory_bytes = 1 << 20;
    limits.max_stack_bytes = 16 << 10;
    limits.max_recursion_depth = 200;
    limits
}

/// Plays the script to a room of this module, if there is memory for it, and writes down all that is
/// to be seen of it. A module that does not load is an error.
pub fn play(
    bundled: Bundled,
    limits: &Limits,
    free: Free,
    out: &mut dyn fmt::Write,
) -> fmt::Result {
    match bundled.load_within(limits, free) {
        Ok((module, _)) => transcript(bundled.name, &module, out),
        Err(Refused::NoMemory { .. }) => Ok(()),
        // All that there are load, on every machine; a firmware without the validator relies on it.
        Err(_) => Err(fmt::Error),
    }
}

#[inline(never)]
fn transcript(name: &str, module: &Module, out: &mut dyn fmt::Write) -> fmt::Result {
    writeln!(out, "room {name}")?;
    let options = RoomOptions::new().seed(42);
    let mut room = match Room::new(module, "replay", options) {
        Ok(room) => room,
        Err(error) => return writeln!(out, "does not open: {error}"),
    };
    say(&mut room, Instant::ZERO, out)?;
    for line in EVENTS.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.splitn(4, ' ');
        let now = Instant::from_millis(number(words.next()));
        room.handle_timeout(now);
        say(&mut room, now, out)?;
        let what = words.next();
        let client = ClientId(number(words.next()));
        let said = words.next().unwrap_or("");
        let bytes;
        let event = match what {
            Some("connect") => Event::Connect(client),
            Some("disconnect") => Event::Disconnect(client),
            Some("text") => Event::message(client, said),
            Some("bytes") => {
                bytes = unhex(said);
                Event::message(client, &bytes[..])
            }
            _ => continue,
        };
        if let Err(error) = room.handle_event(now, event) {
            writeln!(out, "  not taken: {error}")?;
        }
        say(&mut room, now, out)?;
    }
    match room.fault() {
        Some(fault) => writeln!(out, "{fault}"),
        None => Ok(()),
    }
}

/// Lets the room go on until it has nothing left to do, and writes down what it says. Nothing is
/// printed by `Debug`, which a firmware may be built without.
fn say(room: &mut Room, now: Instant, out: &mut dyn fmt::Write) -> fmt::Result {
    loop {
        while let Some(output) = room.poll_output() {
            match output.recipient {
                MessageRecipient::Broadcast => write!(out, "  to all: ")?,
                MessageRecipient::Client(client) => write!(out, "  to {client}: ")?,
                MessageRecipient::EveryoneExcept(client) => write!(out, "  to all but {client}: ")?,
            }
            match output.payload {
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

fn unhex(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .filter_map(|pair| u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}
